# SPDX-License-Identifier: Apache-2.0
"""`varve serve` as a process on loopback, and its HTTP API."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from harness import scratch

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 30
STOP_SECONDS = 30
PORT_COUNT = 8


def binary():
    """The program under test: $VARVE, else the one in build/."""
    chosen = os.environ.get("VARVE")
    candidates = [Path(chosen)] if chosen else [ROOT / "build" / "varve", *ROOT.glob("build/*/varve")]
    for path in candidates:
        if path.is_file() and os.access(path, os.X_OK):
            return str(path.resolve())
    sys.exit(f"no varve binary: set VARVE or build first (looked at {[str(path) for path in candidates]})")


class Answer:
    """Status, headers and parsed body of one HTTP answer."""

    def __init__(self, status, headers, raw):
        self.status = status
        self.headers = headers
        self.text = raw.decode(errors="replace")

    @property
    def body(self):
        return json.loads(self.text)

    def __repr__(self):
        return f"{self.status} {self.text[:2000]}"


def http(method, url, body=None, raw=None, headers=None, timeout=60):
    """One request; error statuses are answers too."""
    data = raw if raw is not None else json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as refusal:
        return Answer(refusal.code, refusal.headers, refusal.read())


class Daemon:
    """One state directory; started, stopped, killed and started again at will."""

    def __init__(self, directory, node_url="", port_count=PORT_COUNT, environment=None, prefix=(), **options):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.repository = Path(options.pop("repository", self.directory / "repository"))
        self.catalogue = Path(options.pop("catalogue", self.directory / "catalogue.db"))
        self.first_port = scratch.free_port_range(port_count) if port_count else 0
        self.last_port = self.first_port + port_count - 1
        self.environment = environment
        self.prefix = list(prefix)
        self.options = {
            "repository": self.repository,
            "catalogue": self.catalogue,
            "http": "127.0.0.1:0",
            "nbd": "127.0.0.1:0",
            "ports": f"{self.first_port}-{self.last_port}" if port_count else "none",
            "node_url": node_url,
            "ready_file": self.directory / "ready.json",
            **options,
        }
        self.process = None
        self.ready = None
        self.starts = 0

    # --- process ---

    def command(self):
        flags = []
        for name, value in self.options.items():
            if value is not None:
                flags += [f"--{name.replace('_', '-')}", str(value)]
        return [*self.prefix, binary(), "serve", *flags]

    @property
    def log_path(self):
        return self.directory / f"varve-{self.starts}.log"

    @property
    def log(self):
        return self.log_path.read_text(errors="replace")

    def launch(self):
        """Starts the process without waiting."""
        self.starts += 1
        self.options["ready_file"].unlink(missing_ok=True)
        self.ready = None
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment
            )

    def start(self):
        self.launch()
        end = time.monotonic() + READY_SECONDS
        while not self.options["ready_file"].exists():
            assert self.process.poll() is None, f"varve ended with {self.process.returncode}:\n{self.log}"
            assert time.monotonic() < end, f"varve is not ready after {READY_SECONDS} s:\n{self.log}"
            time.sleep(0.01)
        self.ready = json.loads(self.options["ready_file"].read_text())
        return self

    def stop(self):
        """SIGTERM; returns the exit status."""
        if self.ready and self.process.poll() is None:
            os.kill(self.ready["pid"], signal.SIGTERM)  # not to a tracer in front of it
        return self.wait(STOP_SECONDS)

    def wait(self, seconds):
        """The exit status; a process that does not end is killed and fails the test."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.kill(self.ready["pid"] if self.ready else self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"varve did not end within {seconds} s:\n{self.log[-3000:]}") from None

    def kill(self):
        """kill -9, as a crash of the process would be."""
        os.kill(self.ready["pid"], signal.SIGKILL)
        self.process.wait()

    def restart(self):
        """Starts again on the same state, with the same options."""
        return self.start()

    def close(self):
        if not self.process or self.process.poll() is not None:
            return
        if self.ready:
            self.stop()
        else:
            scratch.end_process(self.process)

    # --- addresses ---

    @property
    def url(self):
        return f"http://{self.ready['http']}"

    @property
    def nbd_port(self):
        return int(self.ready["nbd"][0].rsplit(":", 1)[1])

    def export_uri(self, name):
        return f"nbd://127.0.0.1:{self.nbd_port}/{urllib.parse.quote(name)}"

    # --- API ---

    def api(self, method, path, body=None, **more):
        """An Answer from below /api/v1."""
        return http(method, self.url + "/api/v1" + path, body, **more)

    def root(self, path):
        return http("GET", self.url + path)

    def get(self, path, **query):
        return self.api("GET", path + ("?" + urllib.parse.urlencode(query) if query else ""))

    def register(self, vm_name, sizes, keys=None, vm_path=None, **more):
        """PUT of a VM with inline credentials; sizes in the order of the keys."""
        keys = keys or [2000 + index for index in range(len(sizes))]
        body = {
            "vm_path": vm_path or f"/DC1/vm/{vm_name}",
            "vcenter_host": "vc1.example",
            "credentials": {"username": "backup", "password": "s3cret-pw"},
            "disks": [{"disk_id": f"disk-{key}", "capacity_bytes": size} for key, size in zip(keys, sizes)],
            **more,
        }
        return self.api("PUT", "/vm-contexts/" + urllib.parse.quote(vm_name, safe=""), body)
