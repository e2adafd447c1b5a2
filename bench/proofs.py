#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What proof costs while a backup is written: the same overlay with and without write elision; see docs/benchmark.md.

    scripts/bench proof [WORKLOAD ...] [--rounds N] [--directory DISK] [--mib N]

  elision   an incremental backup of a whole disk, of which no cluster is what the chain holds, through `varve serve
            --write-elision true` and `false`: each cluster's checksum is looked up in the parent's manifest, nothing is
            left out, and all is stored

Each run begins with the first request and ends with the answer to the last `complete`: sealed, with its manifest,
published and synchronised. The runs are interleaved, and the side that begins changes with each round. CPU is that of
`varve serve`. Figures are medians (smallest-largest), ratios and differences medians of those within each round.
"""
import os
import pathlib
import statistics
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))
import report  # noqa: E402
import tables  # noqa: E402
from restore_tools import MIB, cpu_seconds  # noqa: E402
from runner import finish  # noqa: E402
from tables import cells, ratio  # noqa: E402
from harness.client import parse_targets  # noqa: E402
from harness.daemon import Daemon  # noqa: E402

GIB = 1 << 30
VM = "bench"
THROUGHPUT_GOAL, CPU_GOAL = 0.92, 0.06  # of the other side's rate; seconds more for a GiB


class Side:
    """A `varve serve` of its own with a full of the whole disk, on which increments are made one after the other."""

    def __init__(self, tools, elides):
        self.tools = tools
        self.daemon = Daemon(tools.directory / f"elides-{elides}", port_count=2, write_elision=elides).start()
        assert self.daemon.register(VM, [tools.size]).status == 201
        self.back_up("full", seed=1)

    def close(self):
        self.daemon.close()

    def back_up(self, backup_type, seed):
        """The backup's id, seconds from the first request to the published point, and CPU seconds."""
        os.sync()  # what came before is on the disk, and costs this run nothing
        cpu = cpu_seconds(self.daemon.ready["pid"])
        answer = self.daemon.api("POST", "/backups", {"vm_name": VM, "backup_type": backup_type, "repository_id": "1"})
        assert answer.status == 200, answer
        job = answer.body
        [target] = parse_targets(job["nbd_targets_string"])
        [sent] = finish([self.load(target, seed)])
        begun = time.monotonic()
        answer = self.daemon.api("POST", f"/backups/{job['backup_id']}/complete", {"change_id": "u/1", "disk_id": 0},
                                 timeout=600)
        assert answer.status == 200, answer
        seconds = sent["seconds"] + time.monotonic() - begun
        return job["backup_id"], seconds, cpu_seconds(self.daemon.ready["pid"]) - cpu

    def load(self, target, seed):
        where = ["--tcp", f"{target.host}:{target.port}", "--export", target.export]
        return self.tools.start_load([*where, "--block", "256K", "--depth", "16", "--bytes", self.tools.size,
                                      "--seed", seed])

    def increment(self):
        """Every cluster differs from the full's, and is stored; then the increment is deleted."""
        backup, seconds, cpu = self.back_up("incremental", seed=2)
        [disk] = self.daemon.get(f"/backups/{backup}/disks").body["disks"]
        stored, elided = disk["bytes_stored"], disk["bytes_elided"]
        if (stored, elided) != (self.tools.size, 0):
            raise SystemExit(f"not what was to be measured: {stored} bytes stored, {elided} elided")
        assert self.daemon.api("DELETE", f"/backups/{backup}").status == 200
        return {"mib_s": self.tools.size / seconds / MIB, "cpu_gib": cpu / (self.tools.size / GIB)}


def alternating(sides, rounds):
    """Name -> figures, one a round; the first round warms up, and the order changes each time."""
    results = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name in list(sides) if turn % 2 else reversed(list(sides)):
            figures = sides[name].increment()
            if turn > 0:
                results[name].append(figures)
    return results


def elision(tools):
    sides = {}
    try:
        for name, elides in (("compared", "true"), ("stored", "false")):
            sides[name] = Side(tools, elides)
        results = alternating(sides, tools.rounds)
    finally:
        for side in sides.values():
            side.close()
    more = statistics.median(mine["cpu_gib"] - theirs["cpu_gib"]
                             for mine, theirs in zip(results["compared"], results["stored"]))
    rate, cpu = (ratio(results, "stored", member, of="compared") for member in ("mib_s", "cpu_gib"))
    return ["| an increment that is nowhere what the chain holds | with write elision | without | with ÷ without "
            "| more |", "|---" * 5 + "|",
            f"| {tools.size // MIB} MiB, incompressible, MiB/s | {cells(results)} | "
            f"{report.verdict(rate, THROUGHPUT_GOAL, True)} | |",
            f"| CPU s per GiB | {cells(results, 'cpu_gib', 2)} | {cpu:.2f} | {report.verdict(more, CPU_GOAL, False)} |"]


WORKLOADS = {"elision": elision}


if __name__ == "__main__":
    tables.main("proofs", "proof.json", WORKLOADS, __doc__)
