# SPDX-License-Identifier: Apache-2.0
"""The base of every test against a running varve; it speaks the operator's verbs."""

import os
import re
import unittest
from pathlib import Path

from harness import client, qemu, scratch
from harness.daemon import Daemon
from harness.node import ClientStarter, FakeNode

MIB = 1 << 20
GIB = 1 << 30
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
ACTIVE = ("pending", "running")


def rounds(usual, long):
    """How often a test that draws lots does so; scripts/test --long asks for more."""
    return long if os.environ.get("VARVE_LONG") else usual


class HubCase(unittest.TestCase):
    """A fresh varve with a fake node for every test."""

    options = {}  # more options of `varve serve`, by their TOML names
    maxDiff = None

    def setUp(self):
        self.dir = self.enterContext(scratch.directory())
        self.node = FakeNode()
        self.addCleanup(self.node.close)
        self.hub = Daemon(self.dir / "hub", node_url=self.node.url, **self.options)
        self.addCleanup(self.hub.close)
        self.hub.start()
        self.starter = ClientStarter(self.dir, self.hub.url)
        self.addCleanup(self.starter.close)

    def tearDown(self):
        # The real node would have refused the call: no test may pass with one of these.
        self.assertEqual(self.node.complaints, [], "the node's own checks failed")

    # --- asking for backups ---

    def register(self, vm_name, sizes, **more):
        answer = self.hub.register(vm_name, sizes, **more)
        self.assertEqual(answer.status, 201, answer)

    def post(self, vm_name, backup_type="full", repository_id="1", **more):
        body = {"vm_name": vm_name, "backup_type": backup_type, "repository_id": repository_id, **more}
        return self.hub.api("POST", "/backups", body)

    def start(self, vm_name, backup_type="full", repository_id="1", **more):
        """Starts a job whose client is this test; returns POST's object."""
        answer = self.post(vm_name, backup_type, repository_id, **more)
        self.assertEqual(answer.status, 200, answer)
        return answer.body

    def job(self, job_id):
        answer = self.hub.get(f"/backups/{job_id}")
        self.assertEqual(answer.status, 200, answer)
        return answer.body

    def disks(self, job_id):
        answer = self.hub.get(f"/backups/{job_id}/disks")
        self.assertEqual(answer.status, 200, answer)
        return answer.body["disks"]

    def wait_for_status(self, job_id, status, seconds=30):
        def reached():
            job = self.job(job_id)
            self.assertIn(job["status"], (*ACTIVE, status), job)
            return job if job["status"] == status else None

        return scratch.wait_until(reached, seconds, f"{job_id} is {status}")

    # --- being the client ---

    def targets(self, job):
        return client.parse_targets(job["nbd_targets_string"])

    def connect(self, job, index=0):
        """A data connection to the disk's own target."""
        return client.connect(self.targets(job)[index])

    def complete(self, job, change_id, disk_id=None):
        body = {"change_id": change_id, "bytes_transferred": 0}
        if disk_id is not None:
            body["disk_id"] = disk_id
        return self.hub.api("POST", f"/backups/{job['backup_id']}/complete", body)

    def complete_ok(self, job, change_id, disk_id=None):
        answer = self.complete(job, change_id, disk_id)
        self.assertEqual(answer.status, 200, answer)
        return answer.body

    def write_and_complete(self, job, index, change_id, writes=()):
        """One disk: connects, writes (offset, bytes) pairs, completes with the connection open."""
        handle = self.connect(job, index)
        for offset, data in writes:
            handle.pwrite(data, offset)
        return self.complete_ok(job, change_id, job["disk_results"][index]["disk_id"])

    def quick_backup(self, vm_name, change_ids, backup_type="full", writes=(), **more):
        """A whole job with one change id per disk; `writes` go to every disk."""
        job = self.start(vm_name, backup_type, **more)
        for index, change_id in enumerate(change_ids):
            self.write_and_complete(job, index, change_id, writes)
        self.assertEqual(self.job(job["backup_id"])["status"], "completed")
        return job

    def points(self, count, disks=1, vm_name="vm", first="full"):
        """`count` jobs: a full (unless told otherwise) and incrementals; returns their ids."""
        jobs = []
        for number in range(count):
            kind = first if number == 0 else "incremental"
            ids = [f"u{disk}/{len(self.node.calls) + 1}" for disk in range(disks)]
            jobs.append(self.quick_backup(vm_name, ids, kind, [(number * 65536, b"p" * 65536)])["backup_id"])
        return jobs

    def launch_client(self, vm_name, sources, backup_type="full", options=(), repository_id="1"):
        """Starts a job and the client process for it; returns (job, run)."""
        self.starter.plan_for(sources)
        self.starter.extra = list(options)
        self.node.on_start = self.starter
        job = self.start(vm_name, backup_type, repository_id)
        return job, self.starter.last

    def client_backup(self, vm_name, sources, backup_type="full", options=(), repository_id="1"):
        """The existing client does the whole job; returns the completed job and the run."""
        job, run = self.launch_client(vm_name, sources, backup_type, options, repository_id)
        self.assertEqual(run.wait(), 0, f"client: {run.explain()}\nvarve: {self.hub.log[-3000:]}")
        return self.wait_for_status(job["backup_id"], "completed"), run

    # --- what must be true afterwards ---

    def chain(self, vm_name, disk=0, **query):
        answer = self.hub.get("/backups/chain", vm_name=vm_name, disk_id=disk, **query)
        self.assertEqual(answer.status, 200, answer)
        return answer.body

    def images(self, vm_name, disk=0, **query):
        return [Path(point["file_path"]) for point in self.chain(vm_name, disk, **query)["backups"]]

    def assert_points_equal_sources(self, vm_name, sources, **query):
        """Every point of the chain is clean and equals the source of its change id."""
        for index, source in enumerate(sources):
            points = self.chain(vm_name, index, **query)["backups"]
            self.assertTrue(points, f"no point of {vm_name} disk {index}")
            for point in points:
                qemu.verify(point["file_path"], source.content_at(point["change_id"]))

    def assert_problem(self, answer, status, error, code=None):
        """A complete error object with the exact legacy text."""
        self.assertEqual((answer.status, answer.body.get("error")), (status, error), answer)
        problem = answer.body
        self.assertEqual(answer.headers.get_content_type(), "application/problem+json")
        self.assertEqual((problem["status"], problem["title"]), (status, error))
        self.assertEqual(problem["details"], problem["detail"])
        self.assertEqual(problem["type"], "urn:varve:error:" + problem["code"].replace("_", "-"))
        self.assertIsInstance(problem["hint"], str)
        self.assertRegex(problem["timestamp"], TIME)
        self.assertTrue(problem["instance"].startswith("/"), problem)
        if code:
            self.assertEqual(problem["code"], code)
        return problem

    def allocated_ports(self):
        return self.hub.get("/nbd/ports/status").body["allocated"]

    def exports(self):
        return self.hub.get("/nbd/exports").body["exports"]

    def kept_files(self):
        """The images of failed backups that can be resumed, as far as a running varve says so."""
        if self.hub.process.poll() is not None:
            return set()
        backups = self.hub.get("/backups", status="failed").body["backups"]
        disks = [disk for backup in backups if backup.get("resumable") for disk in backup["disk_results"]]
        return {Path(disk["qcow2_path"] + ending) for disk in disks for ending in (".partial", ".arrived")}

    def stray_files(self):
        """Files of unpublished images that nobody can resume, and directories without any point."""
        root, kept = self.hub.repository, self.kept_files()
        partial = [path for ending in ("*.partial*", "*.arrived*") for path in root.rglob(ending) if path not in kept]
        empty = [path for path in root.rglob("disk-*") if path.is_dir() and not list(path.iterdir())]
        return partial + empty

    def assert_nothing_left(self, seconds=15):
        """No port, export, stray file or active job (ports may wait for their last connection)."""
        scratch.wait_until(lambda: self.allocated_ports() == 0, seconds, "all ports are free")
        scratch.wait_until(lambda: not self.exports(), seconds, "no export is open")
        self.assertEqual(self.stray_files(), [])
        for status in ACTIVE:
            self.assertEqual(self.hub.get("/backups", status=status).body["total"], 0)
