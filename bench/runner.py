# SPDX-License-Identifier: Apache-2.0
"""Runs one workload on one server and measures it; interleaves the servers round by round."""
import json
import os
import shutil
import subprocess
import time

from servers import GIB, QCOW2, make_overlay, peak_bytes
from harness.client import parse_targets
from harness.daemon import Daemon

MIB = 1 << 20
TICK = os.sysconf("SC_CLK_TCK")
VM = "bench"


class Runner:
    def __init__(self, servers, directory, rounds):
        self.servers, self.directory, self.rounds = servers, directory, rounds

    def interleaved(self, runs):
        """`runs`: name -> function that makes one measurement. The first round only warms up memory,
        file system and page cache."""
        results = {name: [] for name in runs}
        for number in range(self.rounds + 1):
            for name, run in runs.items():
                result = run()
                if number > 0:
                    results[name].append(result)
        return results

    def workload(self, workload, names):
        runs = {}
        hubs = []
        for name in names:
            if name == "fio":
                runs[name] = lambda: self.fio(workload)
            elif name in self.servers.varve and workload.disks > 1:
                hubs.append(Hub(self, workload, name))
                runs[name] = hubs[-1].run
            else:
                runs[name] = lambda name=name: self.one(name, workload)
        try:
            return self.interleaved(runs)
        finally:
            for hub in hubs:
                hub.close()

    def load(self, where, arguments, size, seed):
        command = [self.servers.load, *where, "--bytes", size, "--seed", str(seed + 1), *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def one(self, name, workload):
        """A server a disk; the time ends when the server has ended and its file is durable."""
        running = []
        for disk in range(workload.disks):
            image = self.directory / f"run-{disk}.qcow2"
            if name in QCOW2:
                parent = (self.servers.chain(workload.size, workload.layers) if workload.layers > 1
                          else self.servers.parent(workload.parent, workload.size))
                make_overlay(image, parent, workload.size)
            tcp = workload.tcp or workload.disks > 1
            running.append(self.servers.start(name, image, workload.size, tcp, workload.options))
        os.sync()
        share = str(workload.bytes // workload.disks)
        loads = [self.load(server.arguments, workload.load, share, disk)
                 for disk, server in enumerate(running)]
        answers = finish(loads)
        peak = max(server.peak_bytes() for server in running)
        begun = time.monotonic()
        cpu = sum(server.stop() for server in running)
        seconds = max(answer["seconds"] for answer in answers) + time.monotonic() - begun
        for server in running:
            if name in QCOW2:
                subprocess.run(["qemu-img", "check", "-q", server.file], check=True)
            server.file.unlink()
        return measurement(workload, seconds, cpu, peak, answers)

    def fio(self, workload):
        """The limit: the same blocks and depth with O_DIRECT into a file a disk, allocated beforehand."""
        files = self.directory / "fio"
        files.mkdir()
        block, depth = workload.load[1], workload.load[3]
        command = ["fio", "--name=limit", f"--directory={files}", f"--numjobs={workload.disks}",
                   "--ioengine=io_uring", "--direct=1", "--rw=write", f"--bs={block.lower()}",
                   f"--iodepth={depth}", "--fallocate=posix", f"--size={workload.bytes // workload.disks}",
                   "--end_fsync=1", "--output-format=json"]
        # Buffers in huge pages, as varve's are: a write of 256 KiB is one segment then, not 64.
        tunables = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:glibc.malloc.top_pad=8388608"
        environment = {**os.environ, "GLIBC_TUNABLES": tunables}
        report = json.loads(subprocess.run(command, check=True, env=environment,
                                           stdout=subprocess.PIPE).stdout)
        shutil.rmtree(files)
        jobs = report["jobs"]
        seconds = max(job["job_runtime"] for job in jobs) / 1000
        cpu = sum(job["job_runtime"] / 1000 * (job["usr_cpu"] + job["sys_cpu"]) / 100 for job in jobs)
        return {"mib_s": workload.bytes / seconds / MIB, "cpu_gib": cpu / (workload.bytes / GIB)}


class Hub:
    """`varve serve` with one job of all disks: one process, as it is deployed."""

    def __init__(self, runner, workload, name):
        self.runner, self.workload = runner, workload
        os.environ["VARVE"] = str(runner.servers.varve[name])
        self.daemon = Daemon(runner.directory / f"hub-{name}", port_count=workload.disks + 1).start()
        self.daemon.register(VM, [workload.size] * workload.disks)
        job = self.start("full")
        finish(self.loads(job, ["--block", "64K"], "64K"))
        self.complete(job)

    def start(self, backup_type):
        body = {"vm_name": VM, "backup_type": backup_type, "repository_id": "1"}
        if backup_type == "incremental":
            body["previous_change_id"] = "u/1"
        answer = self.daemon.api("POST", "/backups", body)
        assert answer.status in (200, 201), answer
        return answer.body

    def complete(self, job):
        for disk in range(self.workload.disks):
            answer = self.daemon.api("POST", f"/backups/{job['backup_id']}/complete",
                                     {"change_id": "u/1", "disk_id": disk}, timeout=120)
            assert answer.status == 200, answer

    def loads(self, job, arguments, size):
        return [self.runner.load(["--tcp", f"{target.host}:{target.port}", "--export", target.export],
                                 arguments, size, disk)
                for disk, target in enumerate(parse_targets(job["nbd_targets_string"]))]

    def run(self):
        job = self.start("incremental")
        cpu = self.cpu_seconds()
        share = self.workload.bytes // self.workload.disks
        answers = finish(self.loads(job, self.workload.load, str(share)))
        begun = time.monotonic()
        self.complete(job)
        seconds = max(answer["seconds"] for answer in answers) + time.monotonic() - begun
        result = measurement(self.workload, seconds, self.cpu_seconds() - cpu, peak_bytes(self.daemon.ready["pid"]), answers)
        answer = self.daemon.api("DELETE", f"/backups/{job['backup_id']}")
        assert answer.status == 200, answer
        return result

    def cpu_seconds(self):
        with open(f"/proc/{self.daemon.ready['pid']}/stat", encoding="ascii") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def close(self):
        self.daemon.close()


def finish(loads):
    answers = []
    for load in loads:
        output, _ = load.communicate(timeout=600)
        if load.returncode != 0:
            raise SystemExit(f"bench/load ended with {load.returncode}")
        answers.append(json.loads(output))
    return answers


def measurement(workload, seconds, cpu, peak_bytes, answers):
    latency = max(answers, key=lambda answer: answer["p99_us"])
    return {
        "mib_s": workload.bytes / seconds / MIB,
        "cpu_gib": cpu / (workload.bytes / GIB),
        "peak_mib": peak_bytes / MIB,
        **{name: latency[name] for name in ("p50_us", "p99_us", "p999_us")},
    }
