#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Restores, side by side: what comes out of varve, qemu-nbd and nbdkit, interleaved; see docs/benchmark.md.

    scripts/bench restore [WORKLOAD ...] [--rounds N] [--directory DISK] [--mib N]

  sequential   256 KiB x 16 from a chain of 1, 8 and 64 layers, cold and in the page cache
  random       4 KiB x 16 from the same chains, cold
  nbdcopy      an unmodified nbdcopy out of the chain of 8, cold and in the page cache
  compared     the same nbdcopy, and 4 KiB and 64 KiB at random, one at a time: with and without comparing what is read
               with what was sent (--verify-restores)
  copy         `varve restore` to a raw file, beside `qemu-img convert` and a plain write of the disk
  first        the first byte of a point of 64 layers that is not open yet, beside qemu-nbd's start
  status       BLOCK_STATUS of a whole 16 TiB disk; what changed between the ends of a chain of 250
  beside       a backup beside four readers, and alone
  delay        `varve restore` through a line of 1 Gbit/s with 50 ms of delay (a proxy: bench/slow_line.py)

Data is incompressible; layers hold 256 KiB of each 256 KiB x layers in turn. Cold: the files were pushed out of
the page cache before. Figures are medians (smallest-largest), ratios medians of the ratios within each round.
"""
import json
import os
import pathlib
import random
import subprocess
import sys
import time

import nbd

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))
import report  # noqa: E402
import tables  # noqa: E402
from tables import cells, ratio, verdict  # noqa: E402
from restore_tools import MIB, fio_reads, served, timed  # noqa: E402
from slow_line import Answers  # noqa: E402
from harness import scratch  # noqa: E402

DEPTHS = (1, 8, 64)


SEQUENTIAL_GOALS = {1: 1.8, 8: 2, 64: 4}
RANDOM_GOALS = {1: 1.3, 8: 1.5, 64: 3}


def sequential(tools):
    servers = ("varve", "qemu-best", "qemu-nbd", "nbdkit")
    lines = ["| 256 KiB × 16, MiB/s | varve | qemu-nbd at its best | qemu-nbd | nbdkit (raw) | fio (raw, O_DIRECT) | "
             "varve × qemu-nbd at its best | × qemu-nbd | × nbdkit | × fio | CPU per GiB of qemu-nbd at its best |",
             "|---" * 11 + "|"]
    for cold in (True, False):
        for depth in DEPTHS:
            def reads(at):
                return [tools.load, "--unix", at.socket, "--export", at.export, "--reads", "--block", "256K",
                        "--depth", 16, "--bytes", tools.size]
            runs = {s: lambda s=s: served(tools, s, depth, cold, reads, tools.size) for s in servers}
            if cold:
                runs["fio"] = lambda: fio_reads(tools, "256k", 16, "read")
            results = tools.interleaved(runs)
            title = f"{depth} layer{'s' * (depth > 1)}, {'cold' if cold else 'in the page cache'}"
            if cold:
                more = [verdict(results, "qemu-best", SEQUENTIAL_GOALS[depth]), f"{ratio(results, 'qemu-nbd'):.2f}",
                        f"{ratio(results, 'nbdkit'):.2f}", verdict(results, "fio", 0.95),
                        verdict(results, "qemu-best", 0.4, "cpu_gib", False)]
                figures = cells(results)
            else:
                more = [f"{ratio(results, 'qemu-best'):.2f}", verdict(results, "qemu-nbd", 1.5),
                        verdict(results, "nbdkit", 1.0), "", f"{ratio(results, 'qemu-best', 'cpu_gib'):.2f}"]
                figures = cells(results) + " | "
            lines.append(f"| {title} | {figures} | " + " | ".join(more) + " |")
            print(lines[-1], flush=True)
    return lines


def random_reads(tools):
    amount = min(tools.size, 128 * MIB)
    lines = ["| 4 KiB × 16, cold, MiB/s | varve | qemu-nbd at its best | qemu-nbd | varve × qemu-nbd at its best | × qemu-nbd |",
             "|---" * 6 + "|"]
    rates = {}
    for depth in DEPTHS:
        def reads(at):
            return [tools.load, "--unix", at.socket, "--export", at.export, "--reads", "--pattern", "random",
                    "--block", "4K", "--depth", 16, "--bytes", amount]
        results = tools.interleaved({s: lambda s=s: served(tools, s, depth, True, reads, amount)
                                     for s in ("varve", "qemu-best", "qemu-nbd")})
        rates[depth] = report.median(results["varve"], "mib_s")
        lines.append(f"| {depth} layer{'s' * (depth > 1)} | {cells(results)} | "
                     f"{verdict(results, 'qemu-best', RANDOM_GOALS[depth])} | {ratio(results, 'qemu-nbd'):.2f} |")
        print(lines[-1], flush=True)
    flat = min(rates.values()) / max(rates.values())
    lines += ["", f"Slowest over fastest depth: {report.verdict(flat, 0.9, True)}."]
    print(lines[-1], flush=True)
    return lines


def nbdcopy(tools):
    servers = ("varve", "qemu-best", "qemu-nbd", "nbdkit")
    lines = ["| nbdcopy to nowhere, 8 layers, MiB/s | varve | qemu-nbd at its best | qemu-nbd | nbdkit (raw) | "
             "varve × qemu-nbd at its best | × qemu-nbd | × nbdkit |", "|---" * 8 + "|"]
    for cold in (True, False):
        def copies(at):
            return ["nbdcopy", at.uri, "null:"]
        results = tools.interleaved({s: lambda s=s: served(tools, s, 8, cold, copies, tools.size) for s in servers})
        ratios = " | ".join(f"{ratio(results, s):.2f}" for s in servers[1:])
        lines.append(f"| {'cold' if cold else 'in the page cache'} | {cells(results)} | {ratios} |")
        print(lines[-1], flush=True)
    return lines


def small_reads(uri, size, length, count=4000):
    handle = nbd.NBD()
    handle.connect_uri(uri)
    dice = random.Random(2)
    begun = time.monotonic()
    for _ in range(count):
        handle.pread(length, dice.randrange(size // length) * length)
    seconds = time.monotonic() - begun
    handle.shutdown()
    return count / seconds


def compared(tools):
    name, _ = tools.chain(8)

    def reads(setting):
        tools.hub.stop()
        tools.hub.options["verify_restores"] = setting
        tools.hub.start()
        uri = tools.uri(name)
        subprocess.run(["nbdcopy", uri, "null:"], check=True)  # the point is open, the files are in the page cache
        begun = time.monotonic()
        subprocess.run(["nbdcopy", uri, "null:"], check=True)
        return {"mib_s": tools.size / (time.monotonic() - begun) / MIB, "4k": small_reads(uri, tools.size, 4096),
                "64k": small_reads(uri, tools.size, 65536)}

    results = tools.interleaved({"varve": lambda: reads("true"), "as it is": lambda: reads("false")})
    lines = ["| 8 layers, in the page cache | compared | as it is | compared ÷ as it is |", "|---" * 4 + "|"]
    for title, member in (("nbdcopy to nowhere, MiB/s", "mib_s"), ("4 KiB at random, one at a time, 1/s", "4k"),
                          ("64 KiB at random, one at a time, 1/s", "64k")):
        lines.append(f"| {title} | {cells(results, member)} | {ratio(results, 'as it is', member):.2f} |")
        print(lines[-1], flush=True)
    return lines


def copy(tools):
    image, out = tools.chain(8)[1], tools.directory / "out.raw"

    def by_varve():
        out.unlink(missing_ok=True)
        tools.put_cache(image, cold=True)
        seconds = timed([tools.varve, "restore", "depth8", "--to", out, "--server", tools.hub.url, "--json"])
        return {"mib_s": tools.size / seconds / MIB}

    def by_qemu():
        out.unlink(missing_ok=True)
        tools.put_cache(image, cold=True)
        begun = time.monotonic()
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", "-t", "none", "-T", "none", "-W", "-m", "16",
                        image, out], check=True)
        with open(out, "rb") as file:
            os.fsync(file.fileno())
        return {"mib_s": tools.size / (time.monotonic() - begun) / MIB}

    def by_fio():
        out.unlink(missing_ok=True)
        command = ["fio", "--name=limit", f"--filename={out}", "--ioengine=io_uring", "--direct=1", "--rw=write",
                   "--bs=1m", "--iodepth=16", f"--size={tools.size}", "--end_fsync=1", "--output-format=json"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        return {"mib_s": tools.size / (json.loads(done.stdout)["jobs"][0]["job_runtime"] / 1000) / MIB}

    results = tools.interleaved({"varve": by_varve, "qemu-img": by_qemu, "fio": by_fio})
    by_varve()
    assert subprocess.run(["cmp", out, tools.raw], check=False).returncode == 0, "restored wrongly"
    out.unlink()
    return ["| to a raw file from 8 layers, cold, durable, MiB/s | `varve restore` | `qemu-img convert` | fio writes (raw, "
            "O_DIRECT) | × qemu-img | × fio |", "|---" * 6 + "|",
            f"| {tools.size // MIB} MiB | {cells(results)} | {verdict(results, 'qemu-img', 2)} | {verdict(results, 'fio', 0.9)} |"]


def first(tools):
    """A 1 TiB disk; each of 64 layers has a cluster in every second gigabyte, so that all have their L2 tables."""
    size, layers, data = 1 << 40, 64, os.urandom(65536)

    def write(handle, layer):
        for offset in range(0, size, 2 << 30):
            handle.pwrite(data, offset + layer * 65536)

    jobs = tools.back_up("first", size, layers, write)
    image = tools.image("first")

    def by_varve():
        tools.hub.stop()
        tools.hub.start()
        tools.put_cache(image, cold=True)
        handle = nbd.NBD()
        begun = time.monotonic()
        handle.connect_uri(tools.uri(f"first/disk-0@{jobs[-1]}"))
        assert handle.pread(65536, 63 * 65536) == data
        seconds = time.monotonic() - begun
        handle.shutdown()
        return {"ms": seconds * 1000}

    def by_qemu():
        socket = tools.directory / "first.sock"
        socket.unlink(missing_ok=True)
        tools.put_cache(image, cold=True)
        begun = time.monotonic()
        process = subprocess.Popen(["qemu-nbd", "-r", "-t", "-f", "qcow2", "--cache=none", "--aio=io_uring", "-k", socket, image])
        try:
            handle = nbd.NBD()
            while not socket.exists():
                time.sleep(0.001)
            handle.connect_uri(f"nbd+unix:///?socket={socket}")
            assert handle.pread(65536, 63 * 65536) == data
            return {"ms": (time.monotonic() - begun) * 1000}
        finally:
            scratch.end_process(process)

    results = tools.interleaved({"varve": by_varve, "qemu-nbd": by_qemu})
    mine = report.median(results["varve"], "ms")
    return ["| first byte, 64 layers of a 1 TiB disk, cold, ms | varve (opening the point) | qemu-nbd (its start) | of qemu-nbd | "
            "varve, ms |", "|---" * 5 + "|", f"| 2 GiB over all L2 tables of each layer | {cells(results, 'ms')} | "
            f"{verdict(results, 'qemu-nbd', 1, 'ms', False)} | {report.verdict(mine, 100, False)} |"]


def whole_status(tools, name, context):
    command = [tools.load, "--unix", tools.socket, "--export", name, "--status", context]
    done = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def status(tools):
    """A sparse disk of 16 TiB, and a disk of 2 TiB whose 250 layers have 64 clusters each."""
    def sparse(handle, _):
        for number in range(64):
            handle.pwrite(b"s" * 65536, number << 38)

    def scattered(handle, layer):
        for number in range(64):
            handle.pwrite(b"d" * 65536, (number * 250 + layer) * (128 << 20) % (2 << 40))

    [point] = tools.back_up("sparse", 16 << 40, 1, sparse)
    jobs = tools.back_up("long", 2 << 40, 250, scattered)
    asked = [(f"sparse/disk-0@{point}", "base:allocation", "BLOCK_STATUS of a sparse disk of 16 TiB", 50),
             (f"long/disk-0@{jobs[-1]}", f"qemu:dirty-bitmap:since-{jobs[0]}", "changes over 250 points of 2 TiB", 1000),
             (f"long/disk-0@{jobs[-1]}", f"qemu:dirty-bitmap:since-{jobs[-2]}", "changes between the last two of them", 1000)]
    lines = ["| | first answer, ms | whole, ms | runs |", "|---" * 4 + "|"]
    for name, context, title, whole_goal in asked:
        found = [whole_status(tools, name, context) for _ in range(tools.rounds)]
        first_ms, whole_ms = (report.median(found, member) for member in ("first_ms", "whole_ms"))
        lines.append(f"| {title} | {report.verdict(first_ms, 50, False)} | "
                     f"{report.verdict(whole_ms, whole_goal, False)} | {found[0]['runs']} |")
        print(lines[-1], flush=True)
    return lines


def beside(tools):
    """The same increment into a VM, alone and while four nbdcopy read another VM's point."""
    name, _ = tools.chain(1)
    tools.back_up("written", tools.size, 1, lambda *_: None)

    def backup():
        job = tools.start("written", "incremental")
        target = job["disk_results"][0]
        load = [tools.load, "--tcp", f"127.0.0.1:{target['nbd_port']}", "--export", target["nbd_export_name"],
                "--block", "256K", "--bytes", tools.size]
        begun = time.monotonic()
        timed(load)
        tools.complete(job, "n")
        seconds = time.monotonic() - begun
        assert tools.hub.api("DELETE", f"/backups/{job['backup_id']}").status == 200
        return {"mib_s": tools.size / seconds / MIB}

    def with_readers():
        command = f"while :; do nbdcopy '{tools.uri(name)}' null: ; done"
        readers = [subprocess.Popen(["sh", "-c", command], start_new_session=True, stderr=subprocess.DEVNULL)
                   for _ in range(4)]
        try:
            time.sleep(1)
            return backup()
        finally:
            for reader in readers:
                os.killpg(reader.pid, 15)
                reader.wait()

    results = tools.interleaved({"beside": with_readers, "alone": backup})
    return ["| an increment through `varve serve`, MiB/s | beside four nbdcopy | alone | beside ÷ alone |", "|---" * 4 + "|",
            f"| {tools.size // MIB} MiB | {cells(results)} | "
            f"{report.verdict(ratio(results, 'alone', of='beside'), 0.8, True)} |"]


def delay(tools):
    name, _ = tools.chain(1)
    proxy = subprocess.Popen([sys.executable, HERE / "slow_line.py", "--to", str(tools.hub.nbd_port), "--delay-ms", "25",
                              "--mbit", "1000"], stdout=subprocess.PIPE, text=True)
    try:
        port = int(proxy.stdout.readline())
        out = tools.directory / "far.raw"

        def by_nbdcopy():
            return {"mib_s": tools.size / timed(["nbdcopy", f"nbd://127.0.0.1:{port}/{name}", "null:"]) / MIB}

        def by_varve():
            out.unlink(missing_ok=True)
            url = f"http://127.0.0.1:{answers.port}"
            return {"mib_s": tools.size / timed([tools.varve, "restore", "depth1", "--to", out, "--server", url, "--json"]) / MIB}

        with Answers(tools.hub.url, tools.hub.nbd_port, port) as answers:
            results = tools.interleaved({"varve": by_varve, "nbdcopy": by_nbdcopy})
    finally:
        proxy.terminate()
        proxy.wait()
    mine = report.median(results["varve"], "mib_s")
    return ["| 1 Gbit/s and 50 ms of round-trip delay, MiB/s | `varve restore` | nbdcopy | of the line |", "|---" * 4 + "|",
            f"| {tools.size // MIB} MiB | {cells(results)} | {report.verdict(mine / (1e9 / 8 / MIB), 0.8, True)} |"]


WORKLOADS = {"sequential": sequential, "random": random_reads, "nbdcopy": nbdcopy, "compared": compared, "copy": copy, "first": first,
             "status": status, "beside": beside, "delay": delay}


if __name__ == "__main__":
    tables.main("restores", "restore.json", WORKLOADS, __doc__)
