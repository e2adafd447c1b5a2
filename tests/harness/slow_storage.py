# SPDX-License-Identifier: Apache-2.0
"""A block device's writes slowed down for one process, by a control group of version 1."""

import contextlib
import os
import time
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup/blkio")
LIMIT = "blkio.throttle.write_bps_device"


def why_not(directory):
    """Why writes to `directory` cannot be slowed down here; "" where they can."""
    if os.geteuid() != 0:
        return "a control group needs root"
    if not (GROUPS / LIMIT).exists():
        return "this machine has no blkio control group of version 1"
    if not Path("/sys/dev/block", _device(directory)).exists():
        return f"{directory} lies on no block device"
    return ""


def _device(directory):
    number = os.stat(directory).st_dev
    return f"{os.major(number)}:{os.minor(number)}"


@contextlib.contextmanager
def slowed_down(pid, directory, bytes_per_second):
    """What `pid` sends to the disk of `directory` from now on takes its time, beyond its death."""
    group = GROUPS / f"varve-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / LIMIT).write_text(f"{_device(directory)} {bytes_per_second}")
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        # A limit that is lifted lets go at once what still waits.
        (group / LIMIT).write_text(f"{_device(directory)} 0")
        _remove(group)


def _remove(group):
    end = time.monotonic() + 30
    while True:
        try:
            return group.rmdir()
        except OSError:  # a process of it has not quite ended
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
