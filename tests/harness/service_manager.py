# SPDX-License-Identifier: Apache-2.0
"""What systemd is to a service, as far as a test needs it: the notification socket, and one stopped thread."""

import contextlib
import ctypes
import os
import re
import socket
import time
from pathlib import Path

SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17  # PTRACE_…
ALL_CHILDREN = 0x40000000  # __WALL


class NotifySocket:
    """Collects the datagrams of sd_notify(3)."""

    def __init__(self, path):
        self.path = Path(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self.heard = []  # (seconds, {name: value})

    def close(self):
        self._socket.close()

    def listen(self, seconds):
        """The next datagram as {name: value}; None after so many seconds of silence."""
        self._socket.settimeout(seconds)
        try:
            text = self._socket.recv(65536).decode()
        except TimeoutError:
            return None
        said = dict(line.split("=", 1) for line in text.splitlines() if line)
        self.heard.append((time.monotonic(), said))
        return said

    def wait_for(self, name, value=None, seconds=20):
        """The first datagram with NAME, whose value matches the pattern `value`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            said = self.listen(max(0.01, end - time.monotonic()))
            if said and name in said and (value is None or re.search(value, said[name])):
                return said
        raise AssertionError(f"{name}={value or ''} was not said within {seconds} s: {self.heard}")

    def drain(self):
        """What has come so far."""
        said = []
        while (one := self.listen(0.001)) is not None:
            said.append(one)
        return said


def thread_named(pid, name):
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().strip() == name[:15]:
            return int(task.name)
    raise AssertionError(f"process {pid} has no thread {name}")


@contextlib.contextmanager
def stopped_thread(pid, name):
    """One thread of a child process stands still; the others go on. Raises OSError where tracing is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    thread = thread_named(pid, name)

    def trace(request):
        if libc.ptrace(request, thread, None, None) != 0:
            raise OSError(ctypes.get_errno(), f"ptrace {request:#x}")

    trace(SEIZE)
    trace(INTERRUPT)
    os.waitpid(thread, ALL_CHILDREN)
    try:
        yield
    finally:
        trace(DETACH)
