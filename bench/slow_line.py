#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A TCP line with a delay and a limited rate, as a proxy on the loopback: no root and no kernel module needed.

    bench/slow_line.py --to PORT [--delay-ms N] [--mbit N]

Prints its own port. All connections share the rate, each way by itself. Nothing is lost, and TCP's own windows are
those of the loopback: what is seen is what a client's requests in flight make of a long line.
"""
import argparse
import asyncio
import http.server
import threading
import time
import urllib.request

CHUNK = 128 << 10


class Way:
    """One direction of the line, shared by all connections."""

    def __init__(self, delay, bytes_per_second):
        self.delay, self.rate, self.free_at = delay, bytes_per_second, 0.0

    def arrival(self, count):
        self.free_at = max(self.free_at, time.monotonic()) + count / self.rate
        return self.free_at + self.delay


async def carry(way, reader, writer):
    """Reads on while earlier bytes are still on their way, as a line does."""
    on_the_line = asyncio.Queue(maxsize=1024)

    async def deliver():
        while (item := await on_the_line.get()) is not None:
            due, data = item
            await asyncio.sleep(max(0, due - time.monotonic()))
            writer.write(data)
            await writer.drain()
        writer.close()

    delivering = asyncio.create_task(deliver())
    try:
        while data := await reader.read(CHUNK):
            due = way.arrival(len(data))
            await on_the_line.put((due, data))
            # No further ahead than the line: the sender sees its rate.
            await asyncio.sleep(max(0, due - way.delay - time.monotonic()))
    except ConnectionError:
        pass
    await on_the_line.put(None)
    try:
        await delivering
    except ConnectionError:
        pass


async def serve(port, delay, rate):
    there, back = Way(delay, rate), Way(delay, rate)

    async def connected(reader, writer):
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(carry(there, reader, server_writer), carry(back, server_reader, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


class Answers:
    """The API of a varve whose NBD port is elsewhere: GETs are passed on, with the other port in the URIs."""

    def __init__(self, url, port, other_port):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                with urllib.request.urlopen(url + self.path) as answer:
                    body = answer.read().replace(f":{port}/".encode(), f":{other_port}/".encode())
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--to", type=int, required=True, metavar="PORT")
    parser.add_argument("--delay-ms", type=float, default=25, help="each way (default 25)")
    parser.add_argument("--mbit", type=float, default=1000, help="a second, each way (default 1000)")
    options = parser.parse_args()
    try:
        asyncio.run(serve(options.to, options.delay_ms / 1000, options.mbit * 1e6 / 8))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
