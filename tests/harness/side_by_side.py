# SPDX-License-Identifier: Apache-2.0
"""The client's pattern into varve and into qemu-nbd, each timed until the data is durable."""

import os
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

from harness import client, qemu, scratch
from harness.daemon import Daemon

VM = "throughput"


@dataclass
class Result:
    """Seconds per run; the two are interleaved, so that both meet the same machine."""

    bytes_per_run: int
    varve: list = field(default_factory=list)
    qemu_nbd: list = field(default_factory=list)

    @property
    def ratio(self):
        """varve's speed over qemu-nbd's: above 1 is faster."""
        return statistics.median(self.qemu_nbd) / statistics.median(self.varve)

    def text(self):
        lines = []
        for name, seconds in (("varve", self.varve), ("qemu-nbd", self.qemu_nbd)):
            median = statistics.median(seconds)
            speed = self.bytes_per_run / median / (1 << 20)
            runs = " ".join(f"{value:.2f}" for value in seconds)
            lines.append(f"{name:>9}: median {median:.2f} s, {speed:.0f} MiB/s of disk   (runs: {runs})")
        return "\n".join([*lines, f"    ratio: varve is {self.ratio:.2f} times as fast as qemu-nbd"])


def copy(target, path):
    """A full copy with an idle connection beside it; returns without FLUSH, like the client."""
    idle = client.connect(target)
    options = SimpleNamespace(sampled=False, retry_scale=1.0)
    handle = client.connect(target, base_allocation=True)
    writer = client.DiskCopy(handle, client.SourceReader(path), options, client.Fault(None))
    writer.full()
    return idle, handle


def run_qemu_nbd(directory, source):
    """Seconds from the first connection until SIGTERM has been obeyed and the file is synced."""
    image, port = directory / "qemu.qcow2", scratch.free_port()
    qemu.create(image, source.size)
    command = ["qemu-nbd", "-f", "qcow2", "--shared", "10", "-t", "-b", "127.0.0.1", "-p", str(port), "-x", "x", image]
    server = subprocess.Popen(command)
    target = client.Target(source.key, "127.0.0.1", port, "x")
    scratch.wait_until(lambda: _answers(target), 10, "qemu-nbd listens")
    begun = time.monotonic()
    handles = copy(target, source.path)
    scratch.end_process(server, 120)
    _fsync(image)
    seconds = time.monotonic() - begun
    del handles
    image.unlink()
    return seconds


def _answers(target):
    try:
        client.connect(target)
    except client.nbd.Error:
        return False
    return True


def _fsync(path):
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def run_varve(daemon, source):
    """Seconds from the first connection until the last `complete` has been answered."""
    body = {"vm_name": VM, "backup_type": "full", "repository_id": "1"}
    job = daemon.api("POST", "/backups", body).body
    target = client.parse_targets(job["nbd_targets_string"])[0]
    begun = time.monotonic()
    handles = copy(target, source.path)
    answer = daemon.api("POST", f"/backups/{job['backup_id']}/complete", {"change_id": "u/1", "disk_id": 0}, timeout=300)
    seconds = time.monotonic() - begun
    assert answer.status == 200, answer
    del handles
    qemu.verify(job["disk_results"][0]["qcow2_path"], source.path)
    deleted = daemon.api("DELETE", f"/backups/{job['backup_id']}")
    assert deleted.status == 200, deleted
    return seconds


def compare(directory, source, runs):
    """Interleaved runs; the first of each warms up and does not count."""
    daemon = Daemon(directory / "hub")
    daemon.start()
    try:
        answer = daemon.register(VM, [source.size], keys=[source.key])
        assert answer.status == 201, answer
        result = Result(source.size)
        for number in range(runs + 1):
            pair = run_qemu_nbd(directory, source), run_varve(daemon, source)
            if number:
                result.qemu_nbd.append(pair[0])
                result.varve.append(pair[1])
        return result
    finally:
        daemon.close()
