# SPDX-License-Identifier: Apache-2.0
"""A small ext4 of its own on a loop device, for tests of storage that is full or fails."""

import contextlib
import functools
import os
import subprocess
import tempfile
from pathlib import Path


def _run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}"
    return done.stdout


@functools.cache
def why_not():
    """Why this machine mounts nothing; "" where it does."""
    if os.geteuid() != 0:
        return "a loop mount needs root"
    with tempfile.TemporaryDirectory(prefix="varve-test-") as directory:
        try:
            LoopMount(Path(directory), 4 << 20).unmount()
        except (AssertionError, OSError) as failure:
            return f"no loop mount here: {failure}"
    return ""


class LoopMount:
    """`path` is the mount point; unmount() when nobody holds files there any more."""

    def __init__(self, directory, size, options="loop"):
        self.image = directory / "small.img"
        self.path = directory / "small"
        self.options = options
        self.path.mkdir()
        with open(self.image, "wb") as file:
            file.truncate(size)
        _run("mke2fs", "-q", "-t", "ext4", "-m", "0", self.image)
        self._mount()

    def _mount(self):
        _run("mount", "-o", self.options, self.image, self.path)
        self.mounted = True

    def unmount(self):
        if self.mounted:
            _run("umount", self.path)
            self.mounted = False

    def remount(self):
        """Ends this mount, with whatever state it is in, and mounts the file system again."""
        self.unmount()
        self._mount()

    def make_read_only(self):
        """As the kernel does on finding damage; the mount option errors=remount-ro is needed."""
        device = _run("findmnt", "-n", "-o", "SOURCE", self.path).strip()
        Path(f"/sys/fs/ext4/{Path(device).name}/trigger_fs_error").write_text("1")


@contextlib.contextmanager
def loop_device(backing):
    """The path of a block device whose bytes are those of the file."""
    device = _run("losetup", "--find", "--show", backing).strip()
    try:
        yield Path(device)
    finally:
        _run("losetup", "--detach", device)
