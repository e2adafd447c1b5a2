# SPDX-License-Identifier: Apache-2.0
"""A Debian newer than this machine's, in a directory: its NBD clients are foreign to varve.

Made by debootstrap from the mirror that apt is configured for, once, and kept in the user's cache.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SUITE = "trixie"  # Debian 13
PACKAGES = ("qemu-utils", "libnbd-bin", "python3-libnbd", "nbdkit")


def why_not():
    """Why no such directory can be made or used here; empty when it can."""
    if not os.environ.get("VARVE_FOREIGN"):
        return "set VARVE_FOREIGN=1 (scripts/test --foreign): the first run loads some 100 MB of packages"
    if os.geteuid() != 0:
        return "debootstrap and chroot need root"
    if not _cached().is_dir() and not shutil.which("debootstrap"):
        return "debootstrap is not installed"
    return ""


def _cached():
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "varve" / f"debian-{SUITE}"


def _mirror():
    """That of the first source of Debian's own packages."""
    asked = ["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"]
    for line in subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines():
        label, uri = line.split(maxsplit=1)
        if label == "Debian":
            return uri
    raise AssertionError("apt has no source of Debian's packages")


class Root:
    """The directory as a place to run programs in."""

    def __init__(self):
        self.path = _cached()
        if not self.path.is_dir():
            self._make()

    def _make(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=self.path.parent))
        command = ["debootstrap", "--variant=minbase", "--include=" + ",".join(PACKAGES), SUITE, str(unfinished), _mirror()]
        try:
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            assert made.returncode == 0, f"debootstrap {SUITE}: {made.stdout[-2000:]}{made.stderr[-2000:]}"
            unfinished.chmod(0o755)
            unfinished.rename(self.path)
        finally:
            subprocess.run(["umount", unfinished / "proc"], capture_output=True, check=False)
            shutil.rmtree(unfinished, ignore_errors=True)

    def directory(self):
        """A new directory that programs inside see by inside(); the caller removes it."""
        return Path(tempfile.mkdtemp(prefix="varve-test-", dir=self.path / "tmp"))

    def inside(self, path):
        return "/" + str(Path(path).relative_to(self.path))

    def run(self, *command, check=True, seconds=120):
        """The finished process; with `check` its output, and a failure is the test's."""
        words = ["chroot", str(self.path), *map(str, command)]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/tmp"}
        done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=seconds, check=False)
        if not check:
            return done
        assert done.returncode == 0, f"{' '.join(words[2:])}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout
