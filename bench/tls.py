#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""TLS, side by side: an unmodified nbdcopy into and out of varve and nbdkit, interleaved.

Each server runs as its manual says, with the same credentials and no further option: nbdkit's file
plugin on a raw file, varve on a QCOW2 image that is made anew for each copy. Source and images lie
in memory unless --disk names a directory, so that TLS is what is measured: nbdkit would read from
the page cache what varve reads from the disk. The time of a copy into a server ends with its flush.
Medians over the rounds; the ratio is the median of the ratios within each round.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from harness import scratch, tls_files  # noqa: E402

MIB = 1 << 20
MEMORY = Path("/dev/shm")
USER = "bench"


class Bench:
    def __init__(self, varve, directory, size_mib):
        self.varve, self.directory, self.size = varve, directory, size_mib * MIB
        authority = tls_files.Authority(directory / "authority")
        self.server_files = authority.server(directory / "server")
        self.keys = tls_files.keys_file(directory / "keys.psk", {USER: os.urandom(32)})
        self.source = MEMORY / f"{directory.name}.raw"
        block = os.urandom(64 * MIB)
        with open(self.source, "wb") as file:
            for _ in range(0, self.size, len(block)):
                file.write(block)

    def close(self):
        self.source.unlink()

    def credentials(self, kind):
        return f"--tls-psk={self.keys}" if kind == "psk" else f"--tls-certificates={self.server_files}"

    def uri(self, kind, port):
        if kind == "psk":
            return f"nbds://{USER}@127.0.0.1:{port}/?tls-psk-file={self.keys}"
        return f"nbds://localhost:{port}/?tls-certificates={self.server_files}"

    def start(self, server, kind, port):
        tls = ["--tls=require", self.credentials(kind)]
        if server == "nbdkit":
            disk = self.directory / "disk.raw"
            if not disk.exists():
                with open(disk, "wb") as file:
                    file.truncate(self.size)
            words = ["nbdkit", "-f", "-i", "127.0.0.1", "-p", port, *tls, "file", disk]
        else:
            image = self.directory / "disk.qcow2"
            image.unlink(missing_ok=True)
            subprocess.run([self.varve, "create", image, str(self.size)], check=True, stdout=subprocess.DEVNULL)
            words = [self.varve, "nbd", image, "-p", port, *tls]
        process = subprocess.Popen([str(word) for word in words], stderr=subprocess.DEVNULL)
        scratch.wait_until(lambda: self.answers(self.uri(kind, port)), 20, f"{server} to answer")
        return process

    @staticmethod
    def answers(uri):
        return subprocess.run(["nbdinfo", "--size", uri], capture_output=True, check=False).returncode == 0

    def copies(self, server, kind):
        """Seconds of one copy in, and of one out."""
        port = scratch.free_port()
        process = self.start(server, kind, port)
        try:
            uri = self.uri(kind, port)
            return [self.seconds("nbdcopy", "--flush", self.source, uri), self.seconds("nbdcopy", uri, "null:")]
        finally:
            scratch.end_process(process)

    @staticmethod
    def seconds(*words):
        start = time.monotonic()
        subprocess.run([str(word) for word in words], check=True)
        return time.monotonic() - start

    def compare(self, kind, rounds):
        found = {server: [self.copies(server, kind)] for server in ("varve", "nbdkit")}  # warms up
        for turn in range(rounds):
            for server in ("varve", "nbdkit") if turn % 2 else ("nbdkit", "varve"):
                found[server].append(self.copies(server, kind))
        for index, way in enumerate(("in", "out")):
            ours = [times[index] for times in found["varve"][1:]]
            theirs = [times[index] for times in found["nbdkit"][1:]]
            ratio = statistics.median(b / a for a, b in zip(ours, theirs))
            rate = [self.size / MIB / statistics.median(times) for times in (ours, theirs)]
            print(f"{kind:5} {way:3}  varve {rate[0]:5.0f} MiB/s  nbdkit {rate[1]:5.0f} MiB/s  ratio {ratio:.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--varve", default=os.environ.get("VARVE", "build/app/varve"))
    parser.add_argument("--size-mib", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", default="psk,x509")
    parser.add_argument("--disk", default=MEMORY, help="directory of the images")
    options = parser.parse_args()
    tempfile.tempdir = str(options.disk)
    with scratch.directory("varve-bench-tls-") as directory:
        bench = Bench(Path(options.varve).resolve(), directory, options.size_mib)
        try:
            for kind in options.kinds.split(","):
                bench.compare(kind, options.rounds)
        finally:
            bench.close()


if __name__ == "__main__":
    main()
