#!/usr/bin/python3
"""Ingest, side by side: the same writes into varve and into qemu-nbd, interleaved, ending durable.

Each run makes a fresh overlay on the same parent, starts one server on it, writes with bench/load,
stops the server (which must leave everything on the disk), and syncs the file. The time from the
first request to the end of that sync counts; CPU is the server's own, user and system. Medians over
the rounds, with the smallest and largest; ratios are medians of the ratios within each round.
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

GIB = 1 << 30

# name: (arguments of bench/load, bytes written, virtual size, parent)
WORKLOADS = {
    "seq256": (["--block", "256K", "--depth", "16"], 4 * GIB, 16 * GIB, "empty"),
    "seq64": (["--block", "64K", "--depth", "16"], 4 * GIB, 16 * GIB, "empty"),
    "scatter64": (["--pattern", "scattered", "--block", "64K", "--depth", "16"], 2 * GIB, 16 * GIB, "empty"),
    "client": (["--pattern", "client", "--depth", "1"], 4 * GIB, 4 * GIB, "empty"),
    "sync256": (["--block", "256K", "--depth", "1"], 4 * GIB, 16 * GIB, "empty"),
    "random4k": (["--pattern", "random", "--block", "4K", "--depth", "16"], 64 << 20, 4 * GIB, "quarter"),
    "disks8": (["--block", "256K", "--depth", "4"], 4 * GIB, 16 * GIB, "empty"),
    "zeroes1t": (["--zeroes", "--block", "32M", "--depth", "1"], 1024 * GIB, 1024 * GIB, "empty"),
}
SERVERS = ("varve", "qemu-best", "qemu-hub")
DISKS = {"disks8": 8}


class Bench:
    def __init__(self, build, directory, rounds, tcp):
        self.load = build / "bench" / "load"
        self.varve = build / "app" / "varve"
        self.directory = directory
        self.rounds = rounds
        self.tcp = tcp

    def parent(self, kind, size):
        """A parent image: empty, or with every fourth 64 KiB cluster holding data."""
        path = self.directory / f"parent-{kind}-{size}.qcow2"
        if path.exists():
            return path
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(size)], check=True)
        if kind == "quarter":
            socket = self.directory / "parent.sock"
            server = subprocess.Popen(["qemu-nbd", "-f", "qcow2", "-k", socket, path])
            wait_for(socket)
            subprocess.run([self.load, "--unix", socket, "--pattern", "scattered", "--block", "64K",
                            "--bytes", str(size // 4)], check=True, stdout=subprocess.DEVNULL)
            server.wait(60)
        return path

    def command(self, server, image, socket):
        if server == "varve":
            return [self.varve, "nbd", "-k", socket, image]
        common = ["qemu-nbd", "-f", "qcow2", "-k", socket, "--shared", "10", "-t"]
        if server == "qemu-best":
            common += ["--cache", "none", "--aio", "io_uring"]
        return common + [image]

    def run(self, server, workload):
        arguments, total, size, kind = WORKLOADS[workload]
        disks = DISKS.get(workload, 1)
        images, servers, loads = [], [], []
        for disk in range(disks):
            image = self.directory / f"run-{disk}.qcow2"
            image.unlink(missing_ok=True)
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b",
                            self.parent(kind, size).name, image, str(size)], check=True)
            images.append(image)
        os.sync()
        for disk, image in enumerate(images):
            socket = self.directory / f"run-{disk}.sock"
            socket.unlink(missing_ok=True)
            servers.append(subprocess.Popen(self.command(server, image, socket),
                                            stderr=subprocess.DEVNULL))
            wait_for(socket)
        for disk in range(disks):
            loads.append(subprocess.Popen(
                [self.load, "--unix", self.directory / f"run-{disk}.sock", "--bytes",
                 str(total // disks), "--seed", str(disk + 1), *arguments],
                stdout=subprocess.PIPE, text=True))
        seconds = max(json.loads(load.communicate(timeout=600)[0])["seconds"] for load in loads)
        start = time.monotonic()
        cpu = sum(stop(process) for process in servers)
        for image in images:
            with open(image, "rb") as file:
                os.fsync(file.fileno())
        seconds += time.monotonic() - start
        for image in images:
            subprocess.run(["qemu-img", "check", "-q", image], check=True)
            image.unlink()
        return {"mib_s": total / seconds / (1 << 20), "cpu_gib": cpu / (total / GIB)}

    def compare(self, workload, servers):
        results = {server: [] for server in servers}
        for number in range(self.rounds + 1):
            for server in servers:
                result = self.run(server, workload)
                if number > 0:  # the first round warms memory and file system
                    results[server].append(result)
        return results


def wait_for(socket, seconds=10):
    deadline = time.monotonic() + seconds
    while not socket.exists():
        if time.monotonic() > deadline:
            raise SystemExit(f"no server on {socket} after {seconds} s")
        time.sleep(0.01)


def stop(process):
    """Ends a server in good order; returns its CPU seconds."""
    process.send_signal(signal.SIGTERM)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, -signal.SIGTERM):
        raise SystemExit(f"{process.args[0]} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def spread(values, digits):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def ratio(results, over, member):
    pairs = zip(results["varve"], results[over])
    return statistics.median(mine[member] / theirs[member] for mine, theirs in pairs)


def report(workload, results):
    for server, runs in results.items():
        print(f"| {workload} | {server} | {spread([r['mib_s'] for r in runs], 0)} | "
              f"{spread([r['cpu_gib'] for r in runs], 2)} |"
              + (f" {ratio(results, server, 'mib_s'):.2f} | {ratio(results, server, 'cpu_gib'):.2f} |"
                 if server != "varve" and "varve" in results else " | |"), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", help=f"of {', '.join(WORKLOADS)} (default: all)")
    parser.add_argument("--build", default="build", type=pathlib.Path)
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--servers", default=",".join(SERVERS))
    parser.add_argument("--directory", help="where the images go (default: a temporary directory)")
    options = parser.parse_args()
    servers = options.servers.split(",")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="varve-bench-", dir=options.directory))
    print("| workload | server | MiB/s | CPU s/GiB | varve's throughput ratio | varve's CPU ratio |")
    print("|---|---|---|---|---|---|")
    try:
        bench = Bench(options.build.resolve(), directory, options.rounds, None)
        for workload in options.workloads or WORKLOADS:
            report(workload, bench.compare(workload, servers))
    finally:
        shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
