# SPDX-License-Identifier: Apache-2.0
"""A varve whose events a test makes up: everything else is passed on to a real one."""

import http.server
import json
import threading
import time

from harness.daemon import http as request

PASSED_ON = ("Authorization", "Content-Type", "If-None-Match")


class EventStub:
    """Listens on loopback. `tell(document)` is an event `jobs`, `cut()` ends the streams."""

    def __init__(self, url):
        self.url_behind = url
        self.document, self.version, self.cuts = None, 0, 0
        self.streams = 0  # that were asked for
        self.changed = threading.Condition()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def tell(self, document):
        with self.changed:
            self.document, self.version = document, self.version + 1
            self.changed.notify_all()

    def cut(self):
        with self.changed:
            self.cuts += 1
            self.changed.notify_all()

    def close(self):
        self.cut()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def _stream(self, out):
        cuts, seen = self.cuts, -1
        self.streams += 1
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.cuts != cuts or self.version != seen)
                if self.cuts != cuts:
                    return
                seen, text = self.version, json.dumps(self.document)
            # In pieces that end anywhere, with a comment before.
            for piece in (": alive\n\nevent: jo", f"bs\ndata: {text[:7]}", f"{text[7:]}\n", "\n"):
                out.write(piece.encode())
                out.flush()
                time.sleep(0.02)

    def _handler(stub):
        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                if self.path == "/api/v1/events":
                    self.send_response(200)
                    self.send_header("Content-Type", "text/event-stream")
                    self.end_headers()
                    return stub._stream(self.wfile)
                return self.pass_on()

            def do_POST(self):
                self.pass_on()

            def pass_on(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
                headers = {name: self.headers[name] for name in PASSED_ON if self.headers[name]}
                answer = request(self.command, stub.url_behind + self.path, raw=body, headers=headers)
                content = answer.text.encode()
                self.send_response(answer.status)
                for name in ("Content-Type", "Content-Security-Policy", "ETag"):
                    if answer.headers[name]:
                        self.send_header(name, answer.headers[name])
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        return Handler
