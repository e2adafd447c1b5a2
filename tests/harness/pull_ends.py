# SPDX-License-Identifier: Apache-2.0
"""What a pull stands between: a machine as its source, and proxies that strike at a chosen moment."""

import contextlib
import http.server
import random
import socket
import socketserver
import subprocess
import threading

from harness import daemon, scratch, sources
from harness.storage_daemon import StorageDaemon

MIB = 1 << 20
SIZES = (8 * MIB, 5 * MIB + 512)
CLUSTER = 65536


class Machine:
    """Two disks of a QEMU that keeps its bitmaps in memory: with it, they are lost."""

    def __init__(self, directory):
        self.directory, self.socket = directory, directory / "source.sock"
        self.dice = random.Random(11)
        self.disks = [directory / f"disk-{index}.raw" for index in range(len(SIZES))]
        for seed, (raw, size) in enumerate(zip(self.disks, SIZES)):
            sources.make_disk(raw, size, seed)
            with open(raw, "r+b") as file:
                file.write(self.dice.randbytes(size // 4))
        self.start()

    def start(self):
        self.vm = StorageDaemon(self.directory, [{"driver": "file", "node-name": f"disk{index}", "filename": str(raw)}
                                                 for index, raw in enumerate(self.disks)])  # fmt: skip
        self.socket.unlink(missing_ok=True)
        self.vm.command("nbd-server-start", addr={"type": "unix", "data": {"path": str(self.socket)}}, **{"max-connections": 0})
        self.checkpoints = []

    def kill(self):
        self.vm.process.kill()
        self.vm.process.wait()

    def begin(self, checkpoint, since):
        """A bitmap that counts from now, and exports that tell what has changed since that one."""
        for index in range(len(SIZES)):
            node = f"disk{index}"
            self.vm.command("block-dirty-bitmap-add", node=node, name=checkpoint)
            bitmaps = {"bitmaps": [{"node": node, "name": since}]} if since else {}
            # Writable, as bitmaps that are being written to are not exported otherwise.
            self.vm.command("block-export-add", type="nbd", id=node, writable=True, name=node, **{"node-name": node, **bitmaps})
        self.checkpoints.append(checkpoint)

    def end(self, keep):
        """The exports go, and all bitmaps but that one."""
        for index in range(len(SIZES)):
            self.vm.command("block-export-del", id=f"disk{index}", mode="hard")
        scratch.wait_until(lambda: not self.vm.command("query-block-exports"), 10, "the exports are gone")
        for checkpoint in [one for one in self.checkpoints if one != keep]:
            for index in range(len(SIZES)):
                self.vm.command("block-dirty-bitmap-remove", node=f"disk{index}", name=checkpoint)
        self.checkpoints = [one for one in self.checkpoints if one == keep]

    def write(self):
        """To the first quarter of each disk, which is full: pulls take as long as before."""
        for index, size in enumerate(SIZES):
            node = f"disk{index}"
            self.vm.command("block-export-add", type="nbd", id="guest", writable=True, name="guest", **{"node-name": node})
            commands = []
            for pattern in (0, 0, *(self.dice.randrange(1, 256) for _ in range(12))):
                length = self.dice.choice((512, CLUSTER, 2 * CLUSTER))
                offset = self.dice.randrange((size // 4 - length) // 512) * 512
                commands += ["-c", f"write -P {pattern} {offset} {length}"]
            uri = f"nbd+unix:///guest?socket={self.socket}"
            subprocess.run(["qemu-io", "-f", "raw", *commands, uri], check=True, capture_output=True)
            self.vm.command("block-export-del", id="guest", mode="hard")
            scratch.wait_until(lambda: not self.vm.command("query-block-exports"), 10, "the export is gone")

    def copies(self, name):
        made = [self.directory / f"{name}-{index}.raw" for index in range(len(SIZES))]
        for raw, copy in zip(self.disks, made):
            sources.sparse_copy(raw, copy)
        return made


class BeforeTheHub:
    """Passes requests on; at the `number`-th one it strikes, before that is passed on or before its answer is."""

    def __init__(self, hub):
        self.hub = hub
        self.strike_at(0, "", None)
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                with contextlib.suppress(OSError):  # the hub has stopped answering, or the client has gone
                    outer.pass_on(self)

            do_PUT = do_POST = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def strike_at(self, number, moment, strike, of=""):
        """Of the requests whose path ends so. `strike` returns whether the request, or its answer, still arrives."""
        self.requests, self.number, self.moment, self.strike, self.of = [], number, moment, strike, of

    def pass_on(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        if handler.path.endswith(self.of):
            self.requests.append(f"{handler.command} {handler.path}")
        is_it = handler.path.endswith(self.of) and len(self.requests) == self.number
        if is_it and self.moment == "request" and not self.strike():
            return
        answer = daemon.http(handler.command, self.hub.url + handler.path, raw=body or None)
        if is_it and self.moment == "answer" and not self.strike():
            return
        handler.send_response(answer.status)
        handler.send_header("Content-Type", answer.headers["Content-Type"])
        handler.end_headers()
        handler.wfile.write(answer.text.encode())

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class BeforeTheSource(socketserver.ThreadingUnixStreamServer):
    """Passes bytes on; strikes when the source has sent so many."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path, source):
        super().__init__(str(path), None)
        self.source, self.lock, self.passed, self.limit, self.strike = source, threading.Lock(), 0, 0, None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def strike_after(self, count, strike):
        self.passed, self.limit, self.strike = 0, count, strike

    def finish_request(self, client, _):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as server:
            server.connect(str(self.source))
            threading.Thread(target=self.pump, args=(client, server, lambda data: None), daemon=True).start()
            self.pump(server, client, self.count)

    def count(self, data):
        with self.lock:
            before, self.passed = self.passed, self.passed + len(data)
            if before < self.limit <= self.passed:
                self.strike()

    @staticmethod
    def pump(source, target, note):
        with contextlib.suppress(OSError):
            while data := source.recv(16384):
                note(data)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.shutdown()
        self.server_close()
