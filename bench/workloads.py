# SPDX-License-Identifier: Apache-2.0
"""The workloads of scripts/bench, and what each must reach."""
from dataclasses import dataclass, field

GIB = 1 << 30
RAW = ("nbdkit", "sink")


@dataclass
class Workload:
    title: str
    load: list  # arguments of bench/load
    bytes: int
    size: int = 16 * GIB  # of the disk
    parent: str = "empty"  # or "quarter": every fourth cluster holds data
    layers: int = 1  # images below the overlay
    disks: int = 1
    tcp: bool = False
    options: tuple = ()  # more options of varve
    servers: tuple = ("varve", "qemu-best", "qemu-hub")
    # varve's throughput at least this many times a server's; its CPU at most this part of qemu-best's
    goals: dict = field(default_factory=dict)
    cpu_goal: float = 0


WORKLOADS = {
    "seq256": Workload(
        "sequential 256 KiB × 16, Unix socket", ["--block", "256K", "--depth", "16"], 2 * GIB,
        servers=("varve", "qemu-best", "qemu-hub", *RAW, "fio"),
        goals={"qemu-best": 2.0, "qemu-hub": 4, "sink": 0.95, "fio": 0.9}, cpu_goal=0.25),
    "seq256-tcp": Workload(
        "sequential 256 KiB × 16, TCP", ["--block", "256K", "--depth", "16"], 2 * GIB, tcp=True,
        servers=("varve", "qemu-best", "qemu-hub", "fio"),
        goals={"qemu-best": 2.0, "qemu-hub": 4}, cpu_goal=0.25),
    "seq64": Workload(
        "sequential 64 KiB × 16", ["--block", "64K", "--depth", "16"], 2 * GIB,
        servers=("varve", "qemu-best", "qemu-hub", *RAW, "fio"),
        goals={"qemu-best": 2.8, "qemu-hub": 7}, cpu_goal=0.3),
    "scatter64": Workload(
        "scattered 64 KiB, every fourth cluster, × 16",
        ["--pattern", "scattered", "--block", "64K", "--depth", "16"], 2 * GIB,
        goals={"qemu-best": 1.8, "qemu-hub": 2}, cpu_goal=0.3),
    "client": Workload(
        "the existing client: one request of 32 MiB, misaligned thirds",
        ["--pattern", "client", "--depth", "1"], 2 * GIB, size=2 * GIB,
        servers=("varve", "qemu-best", "qemu-hub", *RAW),
        goals={"qemu-best": 2.2, "qemu-hub": 6}, cpu_goal=0.4),
    "sync256": Workload(
        "one synchronous request of 256 KiB", ["--block", "256K", "--depth", "1"], 2 * GIB,
        servers=("varve", "qemu-best", "qemu-hub", *RAW),
        goals={"qemu-best": 4, "qemu-hub": 5}, cpu_goal=0.3),
    "random4k": Workload(
        "random 4 KiB × 16 over a parent of which a quarter is data",
        ["--pattern", "random", "--block", "4K", "--depth", "16"], 64 << 20, size=4 * GIB,
        parent="quarter", goals={"qemu-best": 2, "qemu-hub": 2}, cpu_goal=0.5),
    "disks8": Workload(
        "8 disks at once, 256 KiB × 4 each", ["--block", "256K", "--depth", "4"], 2 * GIB, disks=8,
        servers=("varve", "qemu-best", "qemu-hub", "fio"),
        goals={"qemu-best": 2.0, "qemu-hub": 4}, cpu_goal=0.3),
    "zeroes1t": Workload(
        "WRITE_ZEROES of a whole 1 TiB disk, 32 MiB requests",
        ["--zeroes", "--block", "32M", "--depth", "1"], 1024 * GIB, size=1024 * GIB,
        servers=("varve", "qemu-best", "qemu-hub", "sink"),
        goals={"qemu-best": 3, "qemu-hub": 3}, cpu_goal=0.3),
}

# Cost must not grow with the disk or the chain: the same increment, varve alone, interleaved.
INCREMENT = ["--block", "256K", "--depth", "16"]
SCALES = {
    "disk size": {
        "1 GiB": Workload("", ["--block", "256K", "--depth", "16"], GIB, size=GIB),
        "1 TiB": Workload("", INCREMENT, GIB, size=1024 * GIB),
        "16 TiB": Workload("", INCREMENT, GIB, size=16384 * GIB),
    },
    "chain length": {
        "1 layer": Workload("", INCREMENT, GIB, layers=1),
        "8 layers": Workload("", INCREMENT, GIB, layers=8),
        "64 layers": Workload("", INCREMENT, GIB, layers=64),
    },
    "commit interval": {
        "only at the end": Workload("", INCREMENT, 4 * GIB,
                                    options=("--commit-interval", "1h", "--commit-bytes", "8G")),
        "1 s or 256 MiB": Workload("", INCREMENT, 4 * GIB),
    },
}
