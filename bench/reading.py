#!/usr/bin/python3
"""Restores, side by side: an unmodified nbdcopy out of varve, qemu-nbd and nbdkit, interleaved.

2 GiB of data, from an image of one layer and from one of eight layers that hold 256 KiB of each 2 MiB in
turn; nbdkit serves the same bytes as a raw file. Cold: the files are pushed out of the page cache before
each copy; warm: they were read just before. Prints MiB/s, medians over the rounds (smallest-largest), and
the median of varve's ratio to each within a round.

    bench/reading.py [--varve build/app/varve] [--disk DIRECTORY] [--rounds N] [--mib N]
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time

import nbd

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests"))
from servers import Scratch, wait_until  # noqa: E402
from harness import scratch  # noqa: E402

MIB = 1 << 20
RUN = 256 << 10  # bytes that one layer holds in a row
LAYERS = 8

SERVERS = {
    "varve": lambda varve, image, socket: [varve, "nbd", "-r", "-k", socket, image],
    "qemu-nbd": lambda _, image, socket: ["qemu-nbd", "-r", "-t", "-f", "qcow2", "-k", socket, image],
    "qemu-nbd at its best": lambda _, image, socket: [
        "qemu-nbd", "-r", "-t", "-f", "qcow2", "--cache=none", "--aio=io_uring", "-k", socket, image],
    "nbdkit (raw)": lambda _, image, socket: [
        "nbdkit", "-f", "-r", "-U", socket, "file", f"file={image.parent / 'disk.raw'}"],
}


def make_disk(directory, size):
    """disk.raw, the same as one image, and as a chain whose layers hold RUN bytes in turn."""
    raw = directory / "disk.raw"
    with open(raw, "wb") as file:
        for _ in range(0, size, 64 * MIB):
            file.write(os.urandom(64 * MIB))
    one = directory / "one.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, one], check=True)
    below, chain = None, []
    for layer in range(LAYERS):
        image = directory / f"layer-{layer}.qcow2"
        backing = ["-F", "qcow2", "-b", below.name] if below else []
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, image, str(size)], check=True)
        fill(image, raw, range(layer * RUN, size, LAYERS * RUN))
        chain.append(image)
        below = image
    return {"one layer": (one, [one, raw]), "eight layers": (below, [*chain, raw])}


def fill(image, raw, offsets):
    """Copies RUN bytes at each offset from `raw`; qemu-io would need a file for each."""
    with open(raw, "rb") as source:
        handle = nbd.NBD()
        handle.connect_systemd_socket_activation(["qemu-nbd", "-f", "qcow2", "--cache=unsafe", str(image)])
        for offset in offsets:
            source.seek(offset)
            handle.pwrite(source.read(RUN), offset)
        handle.shutdown()


def copy_seconds(command, socket, files, cold):
    for file in files:
        with open(file, "rb") as opened:
            if cold:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while opened.read(16 * MIB):
                    pass
    socket.unlink(missing_ok=True)
    server = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(socket.exists, f"no server on {socket}")
        begun = time.monotonic()
        subprocess.run(["nbdcopy", f"nbd+unix:///?socket={socket}", "null:"], check=True)
        return time.monotonic() - begun
    finally:
        scratch.end_process(server)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--varve", type=pathlib.Path, default="build-bench/app/varve")
    parser.add_argument("--disk", type=pathlib.Path, default="/var/tmp", help="directory of the images")
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print("| image | " + " | ".join(SERVERS) + " | varve × |")
    print("|---" * (len(SERVERS) + 2) + "|")
    with Scratch(options.disk) as directory:
        images = make_disk(directory, options.mib * MIB)
        for cold in (True, False):
            for title, (image, files) in images.items():
                row = measure(options, directory, image, files, cold)
                print(f"| {title}, {'cold' if cold else 'in the page cache'} | {row} |", flush=True)


def measure(options, directory, image, files, cold):
    rates = {name: [] for name in SERVERS}
    socket = directory / "reading.sock"
    for turn in range(options.rounds + 1):  # the first warms up
        for name, command in SERVERS.items():
            seconds = copy_seconds(command(options.varve.resolve(), image, socket), socket, files, cold)
            if turn > 0:
                rates[name].append(options.mib / seconds)
    cells = [f"{statistics.median(rate):.0f} ({min(rate):.0f}–{max(rate):.0f})" for rate in rates.values()]
    ratios = [statistics.median(mine / theirs for mine, theirs in zip(rates["varve"], rate))
              for name, rate in rates.items() if name != "varve"]
    return " | ".join([*cells, " / ".join(f"{ratio:.2f}" for ratio in ratios)])


if __name__ == "__main__":
    main()
