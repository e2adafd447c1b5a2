#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Verifications beside a plain read of the same file, interleaved; see docs/benchmark.md.

    scripts/bench verify [WORKLOAD ...] [--rounds N] [--directory DISK] [--mib N]

  read    a full of an incompressible disk proven by varve's own reader, by libqcow and by both, beside fio's sequential
          reads of the image with O_DIRECT

Everything was pushed out of the page cache before each run. Rates are of the image's data, whoever reads it; with both
readers it is read twice. CPU is that of `varve serve` and of the process in which libqcow reads. Figures are medians
(smallest-largest), ratios medians of the ratios within each round.
"""
import json
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))
import tables  # noqa: E402
from restore_tools import MIB  # noqa: E402
from tables import cells, ratio, verdict  # noqa: E402

GIB = 1 << 30
READERS = {"varve": ["varve"], "libqcow": ["libqcow"], "both": ["varve", "libqcow"]}


def cpu_with_children(pid):
    """Seconds of a process and of those that it has waited for."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def verified(tools, backup, image, readers):
    tools.put_cache(image, cold=True)
    pid = tools.hub.ready["pid"]
    cpu, begun = cpu_with_children(pid), time.monotonic()
    task = tools.hub.api("POST", f"/backups/{backup}/verify", {"readers": readers}).body
    while task["state"] == "running":
        time.sleep(0.005)
        task = tools.hub.get(f"/verifications/{task['verification_id']}").body
    seconds = time.monotonic() - begun
    [proof] = task["images"]
    second = proof.get("second_reader") or {}
    read_by = {"varve": proof["data_bytes"], "libqcow": second.get("covered_bytes", 0)}
    if proof["result"] != "sound" or any(read_by[reader] != tools.size for reader in readers):
        raise SystemExit(f"not what was to be measured: {proof}")
    return {"mib_s": tools.size / seconds / MIB, "cpu_gib": (cpu_with_children(pid) - cpu) / (tools.size / GIB)}


def fio_reads_file(tools, image):
    tools.put_cache(image, cold=True)
    command = ["fio", "--name=limit", f"--filename={image}", "--ioengine=io_uring", "--direct=1", "--rw=read", "--bs=1m",
               "--iodepth=16", f"--size={tools.size}", "--readonly", "--output-format=json"]
    done = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE)
    [job] = json.loads(done.stdout)["jobs"]
    seconds = job["job_runtime"] / 1000
    return {"mib_s": tools.size / seconds / MIB,
            "cpu_gib": seconds * (job["usr_cpu"] + job["sys_cpu"]) / 100 / (tools.size / GIB)}


def read(tools):
    name, image = tools.chain(1)
    backup = name.partition("@")[2]
    runs = {who: lambda names=names: verified(tools, backup, image, names) for who, names in READERS.items()}
    results = tools.interleaved({**runs, "fio": lambda: fio_reads_file(tools, image)})
    return ["| proving a full, cold, MiB/s | varve's reader | libqcow | both | fio (O_DIRECT) | varve × fio | libqcow × fio | "
            "varve's CPU s per GiB |", "|---" * 8 + "|",
            f"| {tools.size // MIB} MiB, incompressible | {cells(results)} | {verdict(results, 'fio', 0.8)} | "
            f"{ratio(results, 'fio', of='libqcow'):.2f} | "
            f"{tables.report.verdict(tables.report.median(results['varve'], 'cpu_gib'), 0.5, False)} |"]


WORKLOADS = {"read": read}


if __name__ == "__main__":
    tables.main("verifications", "verify.json", WORKLOADS, __doc__)
