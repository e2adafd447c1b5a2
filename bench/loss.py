#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What kill -9 costs: acknowledged, unflushed bytes that are lost, varve beside qemu-nbd.

A client writes, every write is answered, no FLUSH is sent (as the VMware backup client never does),
and some seconds later the server is killed. Prints the table of the README.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import nbd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from harness import image_server, qemu, scratch  # noqa: E402

MIB = 1 << 20
PIECE = 64 << 10


class Qemu:
    def __init__(self, image, *options):
        self.socket = image.with_suffix(".sock")
        self.process = subprocess.Popen(
            ["qemu-nbd", "-f", "qcow2", "--shared", "10", "-t", *options, "-k", self.socket, image]
        )
        scratch.wait_until(self.socket.exists, 10, "qemu-nbd serves")

    def connect(self):
        handle = nbd.NBD()
        handle.connect_uri(f"nbd+unix:///?socket={self.socket}")
        return handle

    def kill(self):
        self.process.kill()
        self.process.wait()


def varve(image):
    return image_server.ImageServer(image, socket_path=image.with_suffix(".sock")).wait()


SERVERS = {
    "`varve nbd`": varve,
    "`qemu-nbd -f qcow2 -t`": Qemu,
    "`qemu-nbd --cache=none --aio=io_uring`": lambda image: Qemu(image, "--cache=none", "--aio=io_uring"),
}


def write_and_wait(handle, size, seconds):
    """The whole disk, then silence; returns what was acknowledged."""
    for offset in range(0, size, MIB):
        handle.pwrite(content(offset, MIB), offset)
    time.sleep(seconds)
    return size


def write_all_the_time(handle, size, seconds):
    """Small pieces at an even pace up to the kill."""
    pieces = size // PIECE
    begun = time.monotonic()
    for number in range(pieces):
        handle.pwrite(content(number * PIECE, PIECE), number * PIECE)
        time.sleep(max(0, begun + (number + 1) * seconds / pieces - time.monotonic()))
    return size


def content(offset, length):
    """Each piece of 64 KiB says where it belongs, and is not zero."""
    return b"".join((at + 1).to_bytes(8, "big") * (PIECE // 8) for at in range(offset, offset + length, PIECE))


def lost_bytes(image, raw, size):
    qemu.convert_to_raw(image, raw)
    with open(raw, "rb") as file:
        return sum(PIECE for at in range(0, size, PIECE) if file.read(PIECE) != content(at, PIECE))


def check_words(image):
    done = subprocess.run(["qemu-img", "check", image], capture_output=True, text=True, check=False)
    return {0: "no errors", 3: "leaks"}.get(done.returncode, "ERRORS")


def measure(directory, serve, write, size, seconds):
    image, raw = directory / "disk.qcow2", directory / "disk.raw"
    assert image_server.create(image, size).returncode == 0
    server = serve(image)
    acknowledged = write(server.connect(), size, seconds)
    server.kill()
    time.sleep(0.2)  # the kernel gives the locks back
    lost, words = lost_bytes(image, raw, acknowledged), check_words(image)
    for path in directory.iterdir():
        path.unlink()
    return acknowledged, lost, words


def table(size, seconds):
    cases = {f"{seconds:g} s after its last write": write_and_wait, "while it writes": write_all_the_time}
    yield f"| kill -9, {size // MIB} MiB acknowledged, no FLUSH | killed | lost | `qemu-img check` then says |"
    yield "|---|---|---|---|"
    for name, serve in SERVERS.items():
        for moment, write in cases.items():
            with scratch.directory("varve-loss-") as directory:
                acknowledged, lost, words = measure(directory, serve, write, size, seconds)
            yield f"| {name} | {moment} | {lost / MIB:.1f} MiB of {acknowledged // MIB} | {words} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size-mib", type=int, default=64, help="bytes written")
    parser.add_argument("--seconds", type=float, default=5, help="from the last write to the kill, or of writing")
    options = parser.parse_args()
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    for line in table(options.size_mib << 20, options.seconds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
