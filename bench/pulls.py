#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Pulls, side by side: `varve pull`, nbdcopy and virtnbdbackup, interleaved; see docs/benchmark.md.

    scripts/bench pull [WORKLOAD ...] [--rounds N] [--directory DISK] [--mib N]

  full      everything of an incompressible disk, from qemu-nbd into a published point, beside nbdcopy into the same
            varve; and the memory that the puller takes
  libvirt   the same from a libvirt domain, beside virtnbdbackup of the same domain (where libvirt and it are installed)
  dirty     1 GiB in 64 KiB ranges all over a sparse disk of 100 GiB, by a dirty bitmap; beside as much in one piece
  thin      what is stored of 16 MiB of data in 512 MiB, and after a trim of the whole disk
  resend    a disk that is sent whole a second time into its chain, as it was and with 1 % of its clusters changed,
            beside the first time
  delay     a pull through a line of 1 Gbit/s with 50 ms of delay (a proxy: bench/slow_line.py)

Both sides end durable: published, or flushed and the file synchronised. Figures are medians (smallest-largest),
ratios medians of the ratios within each round.
"""
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time

import nbd

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))
import report  # noqa: E402
import tables  # noqa: E402
from restore_tools import MIB, timed  # noqa: E402
from servers import wait_until  # noqa: E402
from tables import cells, ratio, verdict  # noqa: E402
from harness import libvirt, scratch  # noqa: E402
from harness.storage_daemon import StorageDaemon  # noqa: E402

GIB = 1 << 30
RANGE = 64 << 10


class Export:
    """A raw or qcow2 file, served read-only by qemu-nbd at its best."""

    def __init__(self, tools, path, kind="raw"):
        self.socket = tools.directory / "source.sock"
        self.socket.unlink(missing_ok=True)
        self.process = subprocess.Popen(["qemu-nbd", "-r", "-t", "-e", "16", "-f", kind, "--cache=none", "--aio=io_uring",
                                         "-k", self.socket, path], stdout=subprocess.DEVNULL)
        wait_until(self.socket.exists, "qemu-nbd does not listen")
        self.uri = f"nbd+unix:///?socket={self.socket}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        scratch.end_process(self.process)


def run_pull(tools, vm, *words):
    """Seconds, the peak of its memory in bytes, and what it said."""
    command = [tools.varve, "pull", vm, *words, "--server", tools.hub.url, "--json"]
    begun = time.monotonic()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"varve pull ended with {process.returncode}: {said}")
    return seconds, usage.ru_maxrss << 10, [json.loads(line) for line in said.splitlines()]


def delete_points(tools, vm):
    """So that each run has the room of the first."""
    for backup in tools.hub.get("/backups", vm_name=vm).body.get("backups", []):
        answer = tools.hub.api("DELETE", f"/backups/{backup['backup_id']}?cascade=true")
        assert answer.status in (200, 404), answer


def by_nbdcopy(tools, vm, uri, size):
    """nbdcopy into a backup that is started and completed around it."""
    begun = time.monotonic()
    tools.hub.api("PUT", f"/vm-contexts/{vm}", {"disks": [{"disk_id": "disk-0", "capacity_bytes": size}]})
    job = tools.hub.api("POST", "/backups", {"vm_name": vm, "backup_type": "full", "repository_id": "1",
                                             "client": "external"}).body
    target = job["nbd_targets_string"].removeprefix("0:")
    subprocess.run(["nbdcopy", "--flush", uri, target], check=True)
    tools.complete(job, 0)
    return time.monotonic() - begun


def full(tools):
    def pulled():
        delete_points(tools, "pulled")
        seconds, peak, _ = run_pull(tools, "pulled", "--disk", f"0={source.uri}")
        return {"mib_s": tools.size / seconds / MIB, "peak_mib": peak / MIB}

    def copied():
        delete_points(tools, "copied")
        return {"mib_s": tools.size / by_nbdcopy(tools, "copied", source.uri, tools.size) / MIB}

    with Export(tools, tools.raw) as source:
        results = tools.interleaved({"varve": pulled, "nbdcopy": copied})
    peak = report.median(results["varve"], "peak_mib")
    return ["| a full from qemu-nbd, MiB/s | `varve pull` | nbdcopy into the same varve | varve × nbdcopy | puller's memory, MiB |",
            "|---" * 5 + "|",
            f"| {tools.size // MIB} MiB, incompressible | {cells(results)} | {verdict(results, 'nbdcopy', 0.9)} | "
            f"{report.verdict(peak, 96, False)} |"]


def from_libvirt(tools):
    missing = libvirt.why_not() or ("" if shutil.which("virtnbdbackup") else "virtnbdbackup is not installed")
    if missing:
        return [f"Not measured: {missing}."]
    os.chmod(tools.directory, 0o755)
    session = libvirt.Session(tools.directory / "user")
    try:
        image = session.directory / "disks" / "disk.qcow2"
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", tools.raw, image], check=True)
        session.define("bench", {"vda": (image, "qcow2")})
        session.start("bench")

        def pulled():
            delete_points(tools, "bench")
            begun = time.monotonic()
            session.run(tools.varve, "pull", "libvirt:bench", "--full", "--connect", "qemu:///session", "--server",
                        tools.hub.url, seconds=600)
            seconds = time.monotonic() - begun
            return {"mib_s": tools.size / seconds / MIB, "stored": tools.image("bench").stat().st_blocks * 512}

        def virtnbdbackup():
            out = session.directory / "out"
            shutil.rmtree(out, ignore_errors=True)
            begun = time.monotonic()
            session.run("virtnbdbackup", "-U", "qemu:///session", "-d", "bench", "-l", "copy", "-o", out, seconds=600)
            for file in out.iterdir():
                if file.is_file():
                    with open(file, "rb") as written:
                        os.fsync(written.fileno())
            seconds = time.monotonic() - begun
            return {"mib_s": tools.size / seconds / MIB, "stored": sum(f.stat().st_blocks * 512 for f in out.iterdir())}

        results = tools.interleaved({"varve": pulled, "virtnbdbackup": virtnbdbackup})
    finally:
        session.close()
    return ["| a full of a libvirt domain, MiB/s | `varve pull` | virtnbdbackup | varve × virtnbdbackup | stored ÷ theirs |",
            "|---" * 5 + "|",
            f"| {tools.size // MIB} MiB, incompressible | {cells(results)} | {verdict(results, 'virtnbdbackup', 2)} | "
            f"{verdict(results, 'virtnbdbackup', 1, 'stored', False)} |"]


def dirty(tools):
    """A disk that no bytes are behind but the dirty ones, so that the source costs nothing."""
    size, amount = 100 * GIB, GIB
    sparse, image = tools.directory / "sparse.qcow2", tools.directory / "one.raw"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", sparse, str(size)], check=True)
    shutil.copy(tools.raw, image)
    os.truncate(image, amount)
    vm = StorageDaemon(tools.directory, [{"driver": "file", "node-name": "file", "filename": str(sparse)},
                                         {"driver": "qcow2", "node-name": "disk", "file": "file"}])
    socket = tools.directory / "dirty.sock"
    try:
        vm.command("nbd-server-start", addr={"type": "unix", "data": {"path": str(socket)}}, **{"max-connections": 0})
        vm.command("block-dirty-bitmap-add", node="disk", name="dirty")
        vm.command("block-export-add", type="nbd", id="guest", writable=True, **{"node-name": "disk", "name": "guest"})
        guest = nbd.NBD()
        guest.connect_uri(f"nbd+unix:///guest?socket={socket}")
        dice = random.Random(1)
        for number in dice.sample(range(size // RANGE), amount // RANGE):
            guest.pwrite(dice.randbytes(RANGE), number * RANGE)
        guest.flush()
        guest.shutdown()
        vm.command("block-export-del", id="guest")
        scratch.wait_until(lambda: not vm.command("query-block-exports"), 10, "the export is gone")
        vm.command("block-export-add", type="nbd", id="disk", bitmaps=[{"node": "disk", "name": "dirty"}],
                   **{"node-name": "disk", "name": "disk"})
        uri = f"nbd+unix:///disk?socket={socket}"

        def scattered():
            delete_points(tools, "scattered")
            empty = tools.directory / "empty.raw"
            with open(empty, "wb") as file:
                file.truncate(size)
            run_pull(tools, "scattered", "--disk", f"0={empty}", "--checkpoint", "a")
            seconds, _, events = run_pull(tools, "scattered", "--disk", f"0={uri}", "--bitmap", "dirty", "--since", "a",
                                          "--checkpoint", "b")
            [done] = [event for event in events if event["event"] == "done"]
            assert done["data_bytes"] == amount, done
            return {"mib_s": amount / seconds / MIB, "seconds": seconds}

        def in_one_piece():
            delete_points(tools, "piece")
            seconds, _, _ = run_pull(tools, "piece", "--disk", f"0={piece.uri}")
            return {"mib_s": amount / seconds / MIB, "seconds": seconds}

        with Export(tools, image) as piece:
            results = tools.interleaved({"varve": scattered, "in one piece": in_one_piece})
    finally:
        vm.close()
    times = ratio(results, "in one piece", "seconds")
    return ["| 1 GiB of data, s | 64 KiB ranges all over 100 GiB, by a bitmap | in one piece | time of the ranges ÷ time of the piece |",
            "|---" * 4 + "|", f"| `varve pull` | {cells(results, 'seconds', 2)} | {report.verdict(times, 1.2, False)} |"]


def thin(tools):
    size, data = 512 * MIB, 16 * MIB
    source, listed = tools.directory / "thin.raw", tools.directory / "all"
    with open(source, "wb") as file:
        file.write(os.urandom(data))
        file.truncate(size)
    run_pull(tools, "thin", "--disk", f"0={source}", "--checkpoint", "a")
    stored = tools.image("thin").stat().st_blocks * 512
    os.truncate(source, 0)
    os.truncate(source, size)
    listed.write_text(f"0 {size} hole,zero\n")
    run_pull(tools, "thin", "--disk", f"0={source}", "--changed", f"0={listed}", "--since", "a", "--checkpoint", "b")
    trimmed = tools.image("thin").stat().st_blocks * 512
    return ["| stored | bytes | of what |", "|---" * 3 + "|",
            f"| 16 MiB of data in 512 MiB | {stored} | {report.verdict(stored / data, 1.01, False)} of the data |",
            f"| the same disk after a trim of all of it | {trimmed} | {report.verdict(100 * trimmed / size, 0.1, False)} % of the disk |"]


def resend(tools):
    changed = tools.directory / "changed.raw"
    shutil.copy(tools.raw, changed)
    dice = random.Random(2)
    clusters = dice.sample(range(tools.size // RANGE), tools.size // RANGE // 100)
    with open(changed, "r+b") as file:
        for cluster in clusters:
            file.seek(cluster * RANGE + dice.randrange(RANGE - 512))
            file.write(dice.randbytes(512))

    def first():
        delete_points(tools, "resent")
        seconds, _, _ = run_pull(tools, "resent", "--disk", f"0={tools.raw}")
        return {"mib_s": tools.size / seconds / MIB}

    def again(raw):
        first()
        seconds, _, events = run_pull(tools, "resent", "--disk", f"0={raw}", "--into-chain")
        [disk] = tools.hub.get(f"/backups/{events[-1]['backup_id']}/disks").body["disks"]
        return {"mib_s": tools.size / seconds / MIB, "stored": 100 * disk["bytes_stored"] / tools.size}

    results = tools.interleaved({"the same": lambda: again(tools.raw), "1 % changed": lambda: again(changed), "first time": first})
    stored = [report.median(results[name], "stored") for name in ("the same", "1 % changed")]
    return ["| sent whole, MiB/s | a second time, the same | a second time, 1 % of the clusters changed | the first time | the same ÷ first time "
            "| stored of the same, % | stored of 1 % changed, % |", "|---" * 7 + "|",
            f"| {tools.size // MIB} MiB, incompressible | {cells(results)} | {report.verdict(ratio(results, 'first time', of='the same'), 0.8, True)} | "
            f"{stored[0]:.2f} | {report.verdict(stored[1], 1.2, False)} |"]


def delay(tools):
    # The source is far away, and the puller beside varve.
    server = subprocess.Popen(["nbdkit", "-f", "-r", "-i", "127.0.0.1", "--port", str(port := scratch.free_port()),
                               "file", f"file={tools.raw}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    proxy = subprocess.Popen([sys.executable, HERE / "slow_line.py", "--to", str(port), "--delay-ms", "25",
                              "--mbit", "1000"], stdout=subprocess.PIPE, text=True)
    try:
        uri = f"nbd://127.0.0.1:{int(proxy.stdout.readline())}/"

        def pulled():
            delete_points(tools, "far")
            seconds, _, _ = run_pull(tools, "far", "--disk", f"0={uri}")
            return {"mib_s": tools.size / seconds / MIB}

        results = tools.interleaved({"varve": pulled,
                                     "nbdcopy": lambda: {"mib_s": tools.size / timed(["nbdcopy", uri, "null:"]) / MIB}})
    finally:
        for process in (proxy, server):
            scratch.end_process(process)
    mine = report.median(results["varve"], "mib_s")
    return ["| 1 Gbit/s and 50 ms of round-trip delay, MiB/s | `varve pull` | nbdcopy to nowhere | of the line |", "|---" * 4 + "|",
            f"| {tools.size // MIB} MiB | {cells(results)} | {report.verdict(mine / (1e9 / 8 / MIB), 0.8, True)} |"]


WORKLOADS = {"full": full, "libvirt": from_libvirt, "dirty": dirty, "thin": thin, "resend": resend, "delay": delay}


if __name__ == "__main__":
    tables.main("pulls", "pull.json", WORKLOADS, __doc__)
