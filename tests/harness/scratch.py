# SPDX-License-Identifier: Apache-2.0
"""Directories, ports and processes that are given back whatever happens to the test."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

KEEP_VARIABLE = "VARVE_KEEP"  # set it to look at a failed test's files


_in_use = set()


@contextlib.contextmanager
def directory(prefix="varve-test-"):
    """A temporary directory, removed at the end unless VARVE_KEEP is set."""
    path = Path(tempfile.mkdtemp(prefix=prefix))
    _in_use.add(path)
    try:
        yield path
    finally:
        _in_use.discard(path)
        _remove(path)


def _remove(path):
    if os.environ.get(KEEP_VARIABLE):
        print(f"kept: {path}")
    else:
        shutil.rmtree(path, ignore_errors=True)


def remove_all_when_terminated():
    """A runner's time limit ends the whole process group: only the directories would stay."""

    def clean_up(*_):
        for path in _in_use:
            _remove(path)
        os._exit(1)

    signal.signal(signal.SIGTERM, clean_up)


def free_port():
    """A loopback port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def free_port_range(count):
    """The first of `count` neighbouring free ports, below the kernel's range for port 0."""
    for _ in range(200):
        first = random.SystemRandom().randrange(12000, 32000 - count)
        if all(_can_bind(port) for port in range(first, first + count)):
            return first
    raise RuntimeError(f"no {count} neighbouring free ports")


def _can_bind(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def wait_until(condition, seconds, what):
    """The first true value of `condition()`; fails with `what` when time is up."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"after {seconds} s still not: {what}")
        time.sleep(0.02)


def end_process(process, seconds=10):
    """SIGTERM, then SIGKILL after `seconds`; returns the exit status."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def allocated_bytes(path):
    """File space in use, as `du` counts it."""
    return os.stat(path).st_blocks * 512
