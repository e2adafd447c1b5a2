# SPDX-License-Identifier: Apache-2.0
"""A node API that never existed: it checks every field as the real one does and starts no VMware."""

import http.server
import json
import re
import subprocess
import threading
import time
from pathlib import Path

from harness import client

START_PATH = "/api/v1/backup/start"
REQUIRED_FIRST = ("job_id", "vm_name", "vcenter_host", "vcenter_user", "vcenter_password", "vm_path", "nbd_targets")
FIELDS = (*REQUIRED_FIRST, "backup_type", "previous_change_id", "nbd_host")
CLIENT = Path(__file__).with_name("client.py")


def validation_failure(body):
    """The node's own words for the first thing that is wrong, or None."""
    for name in REQUIRED_FIRST:
        if not body.get(name):
            return f"Validation failed: {name} is required"
    if body.get("backup_type") not in ("full", "incremental"):
        return "Validation failed: backup_type must be 'full' or 'incremental'"
    if body["backup_type"] == "incremental" and not body.get("previous_change_id"):
        return "Validation failed: previous_change_id is required for incremental backups"
    return None


def type_failure(body):
    """The real node decodes into strings: any other JSON type is a bad request."""
    for name in FIELDS:
        if name in body and not isinstance(body[name], str):
            return f"Invalid request: json: cannot unmarshal into field {name} of type string"
    return None


class FakeNode:
    """Listens on loopback, keeps every call, and answers by `mode`.

    ok | accepted (202) | bad (400) | broken (500) | hang (no answer) | drop (closes the connection)
    `refuse()` closes the port and `listen()` opens it again.
    `on_start(body)` runs before the answer of an accepted call: a client may be that fast.
    """

    def __init__(self):
        self.calls = []
        self.complaints = []  # what the checks said about varve's calls; must stay empty
        self.mode = "ok"
        self.on_start = None
        self.released = threading.Event()
        self.server = None
        self.port = 0
        self.listen()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def listen(self):
        node = self

        class Handler(_Handler):
            owner = node

        http.server.ThreadingHTTPServer.allow_reuse_address = True
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def refuse(self):
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def close(self):
        self.released.set()
        self.refuse()

    def judge(self, path, content_type, raw):
        """(status, text) for one request; records it."""
        if path != START_PATH:
            return 404, "404 page not found"
        try:
            body = json.loads(raw)
        except ValueError as error:
            return self._complain(f"Invalid request: {error}")
        self.calls.append(body)
        problem = type_failure(body) or validation_failure(body)
        if problem:
            return self._complain(problem)
        if not content_type.startswith("application/json"):
            self.complaints.append(f"content type {content_type!r}")
        return self._answer(body)

    def _complain(self, problem):
        self.complaints.append(problem)
        return 400, problem

    def _answer(self, body):
        if self.mode == "bad":
            return 400, "Validation failed: told to fail"
        if self.mode == "broken":
            return 500, "Process start failed: told to fail"
        if self.mode == "hang":
            self.released.wait(60)
            return 500, "Process start failed: hung"
        if self.mode == "drop":
            return None, ""
        if self.on_start:
            self.on_start(body)
        started = {"job_id": body["job_id"], "status": "started", "message": f"Backup started for {body['vm_name']}"}
        return (202 if self.mode == "accepted" else 200), json.dumps(started)


class _Handler(http.server.BaseHTTPRequestHandler):
    owner = None

    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, text = self.owner.judge(self.path, self.headers.get("Content-Type", ""), raw)
        self.close_connection = True
        if status is None:
            return
        data = text.encode()
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            pass  # varve had stopped waiting: that is what some tests are about

    def log_message(self, *_):
        """Silent: the test's own output is enough."""


class ClientStarter:
    """What the node does with an accepted call: one client process per job."""

    def __init__(self, directory, api_url):
        self.directory = Path(directory)
        self.api_url = api_url
        self.plan = None
        self.extra = []  # options of client.py for the next run
        self.through_port = None  # sends every target through this one port instead of its own
        self.runs = []

    def plan_for(self, sources):
        """What VMware knows about these disks now."""
        self.plan = {
            "disks": [
                {
                    "key": source.key,
                    "source": str(source.path),
                    "change_id": source.change_id,
                    "bases": {change_id: str(path) for change_id, path in source.snapshots.items()},
                }
                for source in sources
            ]
        }

    def __call__(self, body):
        name = f"client-{len(self.runs)}-{body['job_id']}"
        plan = self.directory / f"{name}.plan"
        plan.write_text(json.dumps(self.plan), encoding="utf-8")
        targets = self._targets(body)
        command = self._command(body, plan, targets)
        self.runs.append(ClientRun(self.directory / name, command, client.parse_targets(targets)))

    def _targets(self, body):
        if self.through_port is None:
            return body["nbd_targets"]
        return re.sub(r":\d+/", f":{self.through_port}/", body["nbd_targets"])

    def _command(self, body, plan, targets):
        return [
            "/usr/bin/python3", str(CLIENT), "--job-id", body["job_id"], "--targets", targets,
            "--vm-path", body["vm_path"], "--api", self.api_url, "--plan", str(plan),
            "--retry-scale", "0.02", *self.extra,
        ]  # fmt: skip

    @property
    def last(self):
        return self.runs[-1]

    def close(self):
        for run in self.runs:
            run.kill()


class ClientRun:
    """A running or ended client process and the events it reported."""

    def __init__(self, stem, command, targets):
        self.targets = targets
        self.report = Path(f"{stem}.events")
        self.log = Path(f"{stem}.log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([*command, "--report", str(self.report)], stdout=log, stderr=log)

    def wait(self, seconds=120):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the client hangs: {self.explain()}") from None

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def events(self, kind=None):
        if not self.report.exists():
            return []
        lines = self.report.read_text(encoding="utf-8").splitlines()
        return [event for event in map(json.loads, lines) if kind in (None, event["event"])]

    def wait_for(self, kind, count=1, seconds=60):
        end = time.monotonic() + seconds
        while len(self.events(kind)) < count:
            assert time.monotonic() < end, f"no {kind} from the client: {self.explain()}"
            time.sleep(0.02)
        return self.events(kind)

    def explain(self):
        return f"{self.log.read_text(errors='replace')[-2000:]} {self.events()[-5:]}"
