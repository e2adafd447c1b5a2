# SPDX-License-Identifier: Apache-2.0
"""The servers that are measured, each on a fresh file: start, where it listens, stop, CPU and memory."""
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

GIB = 1 << 30

LABELS = {
    "varve": "varve",
    "before": "varve before the change",
    "qemu-best": "qemu-nbd at its best (cache=none, aio=io_uring)",
    "qemu-hub": "qemu-nbd as the old hub runs it (writeback, threads)",
    "nbdkit": "nbdkit file (raw, no QCOW2)",
    "sink": "the bare sink (raw, no QCOW2)",
    "fio": "fio, no network (raw, O_DIRECT, allocated ahead, huge pages)",
}
QCOW2 = ("varve", "before", "qemu-best", "qemu-hub")


class Running:
    """One server with one disk. `arguments` tell bench/load where it is."""

    def __init__(self, process, arguments, file, socket=None):
        self.process, self.arguments, self.file, self.socket = process, arguments, file, socket

    def stop(self):
        """Ends the server in good order and makes the file durable; returns its CPU seconds."""
        os.kill(self.process.pid, signal.SIGTERM)  # the sink may have ended already: wait4 collects it
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if self.process.returncode not in (0, -signal.SIGTERM):
            raise SystemExit(f"{self.process.args[0]} ended with {self.process.returncode}")
        with open(self.file, "rb") as file:
            os.fsync(file.fileno())
        return usage.ru_utime + usage.ru_stime

    def peak_bytes(self):
        """Of a server that still runs; 0 of one that has ended by itself."""
        return peak_bytes(self.process.pid)


class Servers:
    def __init__(self, build, directory):
        self.varve = {"varve": build / "app" / "varve", "before": os.environ.get("VARVE_BEFORE")}
        self.sink = build / "bench" / "sink"
        self.load = build / "bench" / "load"
        self.directory = directory
        self.next_port = 21809

    def start(self, name, image, size, tcp=False, options=()):
        if name in QCOW2:
            return self.start_qcow2(name, image, tcp, options)
        raw = image.with_suffix(".raw")
        raw.unlink(missing_ok=True)
        socket = self.socket_for(raw)
        if name == "nbdkit":
            with open(raw, "wb") as file:
                file.truncate(size)
            arguments = ["nbdkit", "-f", "-U", socket, "file", f"file={raw}"]
            return self.launch(arguments, raw, socket)
        if name == "sink":
            return self.launch([self.sink, "--socket", socket, "--file", raw, "--size", str(size)],
                               raw, socket)
        raise SystemExit(f"unknown server {name}: {', '.join(LABELS)}")

    def start_qcow2(self, name, image, tcp, options):
        command = [self.varve[name], "nbd", *options] if name in self.varve else [
            "qemu-nbd", "-f", "qcow2", "--shared", "10", "-t"]
        if name == "qemu-best":
            command += ["--cache", "none", "--aio", "io_uring"]
        if not tcp:
            socket = self.socket_for(image)
            return self.launch([*command, "-k", socket, image], image, socket)
        self.next_port += 1
        where = ["-b", "127.0.0.1", "-p", str(self.next_port)]
        return self.launch([*command, *where, image], image, None)

    def socket_for(self, file):
        socket = file.with_suffix(".sock")
        socket.unlink(missing_ok=True)
        return socket

    def launch(self, command, file, socket):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if socket:
            wait_until(socket.exists, f"no server on {socket}")
            return Running(process, ["--unix", str(socket)], file, socket)
        port = self.next_port
        wait_until(lambda: listens(port), f"no server on port {port}")
        return Running(process, ["--tcp", f"127.0.0.1:{port}"], file)

    def parent(self, kind, size):
        """A parent image: empty, or with every fourth 64 KiB cluster holding data."""
        path = self.directory / f"parent-{kind}-{size}.qcow2"
        if path.exists():
            return path
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(size)], check=True)
        if kind == "quarter":
            server = self.start("qemu-hub", path, size)
            subprocess.run([self.load, *server.arguments, "--pattern", "scattered", "--block", "64K",
                            "--bytes", str(size // 4)], check=True, stdout=subprocess.DEVNULL)
            server.stop()
        return path

    def chain(self, size, layers):
        """The top of a chain of `layers` images with a little data in each."""
        parent = self.parent("empty", size)
        for layer in range(1, layers):
            path = self.directory / f"chain-{size}-{layer}.qcow2"
            if not path.exists():
                make_overlay(path, parent, size)
                subprocess.run(["qemu-io", "-c", f"write -P {layer} {layer * 65536} 64k", path],
                               check=True, stdout=subprocess.DEVNULL)
            parent = path
        return parent


def make_overlay(path, parent, size):
    path.unlink(missing_ok=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", parent.name, path,
                    str(size)], check=True)


def peak_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")), 0)


def listens(port):
    with open("/proc/net/tcp", encoding="ascii") as table:
        return any(f":{port:04X} 00000000:0000 0A" in line for line in table)


def wait_until(condition, complaint, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{complaint} after {seconds} s")
        time.sleep(0.005)


class Scratch:
    """A temporary directory on the disk that is measured."""

    def __init__(self, parent):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="varve-bench-", dir=parent))

    def __enter__(self):
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path)
