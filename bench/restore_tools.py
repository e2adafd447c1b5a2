# SPDX-License-Identifier: Apache-2.0
"""What bench/restores.py measures with: points of `varve serve`, the servers beside it, one run of each."""
import json
import os
import pathlib
import subprocess
import time

import nbd

from servers import peak_bytes, wait_until
from harness.daemon import Daemon

MIB = 1 << 20
RUN = 256 << 10  # bytes that one layer holds in a row


class Tools:
    """The disk's bytes as one raw file, and as points of `varve serve`; its files are what the others read."""

    def __init__(self, build, directory, mib, rounds):
        self.varve, self.load = build / "app" / "varve", build / "bench" / "load"
        self.directory, self.size, self.rounds = directory, mib * MIB, rounds
        self.raw, self.socket = directory / "disk.raw", directory / "hub.sock"
        self.points = {}  # by depth: (point, its image)
        os.environ["VARVE"] = str(self.varve)
        with open(self.raw, "wb") as file:
            for _ in range(0, self.size, 64 * MIB):
                file.write(os.urandom(64 * MIB))
            os.fsync(file.fileno())
        self.hub = Daemon(directory / "hub", nbd_socket=self.socket).start()

    def close(self):
        self.hub.close()

    def back_up(self, vm, size, layers, write):
        """A chain; `write(handle, layer)` puts the bytes of a layer there. Returns the backups' ids."""
        assert self.hub.register(vm, [size]).status == 201
        jobs = []
        for layer in range(layers):
            job = self.start(vm, "incremental" if layer else "full")
            target = job["disk_results"][0]
            handle = nbd.NBD()
            handle.connect_uri(f"nbd://127.0.0.1:{target['nbd_port']}/{target['nbd_export_name']}")
            write(handle, layer)
            handle.shutdown()
            self.complete(job, layer)
            jobs.append(job["backup_id"])
        return jobs

    def start(self, vm, backup_type):
        answer = self.hub.api("POST", "/backups", {"vm_name": vm, "backup_type": backup_type, "repository_id": "1"})
        assert answer.status == 200, answer
        return answer.body

    def complete(self, job, number):
        answer = self.hub.api("POST", f"/backups/{job['backup_id']}/complete",
                              {"change_id": f"u/{number}", "disk_id": 0}, timeout=120)
        assert answer.status == 200, answer

    def image(self, vm):
        return pathlib.Path(self.hub.get("/backups/chain", vm_name=vm, disk_id=0).body["backups"][-1]["file_path"])

    def uri(self, name):
        return f"nbd+unix:///{name}?socket={self.socket}"

    def chain(self, depth):
        """A point of that many layers with the bytes of the raw file: (its export's name, its image)."""
        if depth not in self.points:
            def write(handle, layer):
                with open(self.raw, "rb") as source:
                    for offset in range(layer * RUN, self.size, depth * RUN):
                        source.seek(offset)
                        handle.pwrite(source.read(RUN), offset)
            vm = f"depth{depth}"
            jobs = self.back_up(vm, self.size, depth, write)
            self.points[depth] = (f"{vm}/disk-0@{jobs[-1]}", self.image(vm))
        return self.points[depth]

    def put_cache(self, image, cold):
        """Pushes the image's chain and the raw file out of the page cache, or reads them into it."""
        for file in [*image.parent.glob("*.qcow2"), self.raw]:
            with open(file, "rb") as opened:
                if cold:
                    os.fsync(opened.fileno())
                    os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                else:
                    while opened.read(16 * MIB):
                        pass

    def start_load(self, arguments):
        return subprocess.Popen([str(word) for word in [self.load, *arguments]], stdout=subprocess.PIPE, text=True)

    def interleaved(self, runs):
        """name -> function that returns a dictionary of figures; the first round warms up."""
        results = {name: [] for name in runs}
        for turn in range(self.rounds + 1):
            for name, run in runs.items():
                result = run()
                if turn > 0:
                    results[name].append(result)
        return results


class Serving:
    """A server of a chain, begun anew: where it is, and in the end what it took."""

    def __init__(self, tools, server, depth):
        name, image = tools.chain(depth)
        self.tools, self.server, self.export, self.socket = tools, server, "", tools.directory / "bench.sock"
        if server == "varve":
            tools.hub.stop()
            tools.hub.start()
            self.export, self.socket, self.pid = name, tools.socket, tools.hub.ready["pid"]
            self.cpu_before = cpu_seconds(self.pid)
            return
        self.socket.unlink(missing_ok=True)
        qemu = ["qemu-nbd", "-r", "-t", "-e", "8", "-f", "qcow2", "-k", self.socket]
        command = {
            "qemu-nbd": [*qemu, image],
            "qemu-best": [*qemu, "--cache=none", "--aio=io_uring", image],
            "nbdkit": ["nbdkit", "-f", "-r", "-U", self.socket, "file", f"file={tools.raw}"],
        }[server]
        self.process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.pid = self.process.pid
        wait_until(self.socket.exists, f"no server on {self.socket}")

    @property
    def uri(self):
        return f"nbd+unix:///{self.export}?socket={self.socket}"

    def end(self):
        """Its CPU seconds."""
        if self.server == "varve":
            return cpu_seconds(self.pid) - self.cpu_before
        self.process.terminate()
        _, status, usage = os.wait4(self.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_utime + usage.ru_stime


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def served(tools, server, depth, cold, command, amount):
    """Rate and CPU of the server while `command(serving)` reads `amount` bytes; the command prints JSON with
    "seconds", or is timed."""
    tools.put_cache(tools.chain(depth)[1], cold)
    serving = Serving(tools, server, depth)
    try:
        begun = time.monotonic()
        done = subprocess.run([str(word) for word in command(serving)], check=True, stdout=subprocess.PIPE, text=True)
        seconds = json.loads(done.stdout)["seconds"] if done.stdout.startswith("{") else time.monotonic() - begun
        peak = peak_bytes(serving.pid)
    finally:
        cpu = serving.end()
    return {"mib_s": amount / seconds / MIB, "cpu_gib": cpu / (amount / (1 << 30)), "peak_mib": peak / MIB}


def fio_reads(tools, block, depth, pattern):
    command = ["fio", "--name=limit", f"--filename={tools.raw}", "--ioengine=io_uring", "--direct=1",
               f"--rw={pattern}", f"--bs={block}", f"--iodepth={depth}", f"--size={tools.size}",
               f"--io_size={tools.size}", "--output-format=json", "--readonly"]
    tunables = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:glibc.malloc.top_pad=8388608"
    done = subprocess.run(command, check=True, env={**os.environ, "GLIBC_TUNABLES": tunables}, stdout=subprocess.PIPE)
    [job] = json.loads(done.stdout)["jobs"]
    seconds = job["job_runtime"] / 1000
    cpu = seconds * (job["usr_cpu"] + job["sys_cpu"]) / 100
    return {"mib_s": tools.size / seconds / MIB, "cpu_gib": cpu / (tools.size / (1 << 30))}


def timed(command):
    begun = time.monotonic()
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begun
