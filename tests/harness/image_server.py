# SPDX-License-Identifier: Apache-2.0
"""`varve create` and `varve nbd`: one image served in the foreground."""

import signal
import subprocess
import time
import urllib.parse

import nbd

from harness import scratch
from harness.daemon import binary

START_SECONDS = 20


def create(image, size, backing=None):
    """Runs `varve create`; returns the finished process, for tests of refusals."""
    more = ["--backing", str(backing)] if backing else []
    return subprocess.run([binary(), "create", str(image), str(size), *more], capture_output=True, text=True, check=False)


class ImageServer:
    """`varve nbd FILE` on a Unix socket, or on a loopback port when `port` is given."""

    def __init__(self, image, socket_path=None, port=None, export="", read_only=False, options=()):
        self.socket_path, self.port, self.export = socket_path, port, export
        place = ["--socket", str(socket_path)] if socket_path else ["--port", str(port), "--bind", "127.0.0.1"]
        name = ["--export-name", export] if export else []
        self.log_path = image.with_suffix(".server-log")
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [binary(), "nbd", str(image), *place, *name, *(["--read-only"] if read_only else []), *map(str, options)],
                stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def uri(self):
        export = urllib.parse.quote(self.export)
        if self.socket_path:
            return f"nbd+unix:///{export}?socket={self.socket_path}"
        return f"nbd://127.0.0.1:{self.port}/{export}"

    @property
    def log(self):
        return self.log_path.read_text(errors="replace")

    def wait(self):
        """Returns once a client is served; fails when the process ends instead."""
        end = time.monotonic() + START_SECONDS
        while True:
            assert self.process.poll() is None, f"varve nbd ended with {self.process.returncode}:\n{self.log}"
            try:
                return self.connect().get_size() >= 0 and self
            except nbd.Error as error:
                assert time.monotonic() < end, f"varve nbd does not answer: {error}\n{self.log}"
                time.sleep(0.02)

    def connect(self):
        handle = nbd.NBD()
        handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        handle.connect_uri(self.uri)
        return handle

    def stop(self):
        """SIGTERM; the exit status."""
        return scratch.end_process(self.process, 30)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self):
        if self.process.poll() is None:
            self.stop()
