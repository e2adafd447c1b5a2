#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Deletion and lists."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import qemu, run  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402


class Deletion(HubCase):
    def delete(self, job_id, query=""):
        return self.hub.api("DELETE", f"/backups/{job_id}{query}")

    def test_a_job_with_dependents_needs_cascade(self):
        """A30 cascade"""
        self.register("vm", [MIB])
        jobs = self.points(3)
        files = self.images("vm")
        problem = self.assert_problem(self.delete(jobs[0]), 409, "backup has dependents")
        self.assertIn(jobs[1], problem["details"])
        self.assertIn("cascade", problem["hint"])
        answer = self.delete(jobs[0], "?cascade=true")
        self.assertEqual(answer.status, 200, answer)
        self.assertEqual(answer.body["deleted"], jobs[::-1])
        self.assertGreater(answer.body["freed_bytes"], 0)
        for path in files:
            self.assertFalse(path.exists() or Path(f"{path}.json").exists())
        self.assertEqual(self.chain("vm")["backups"], [])
        self.assert_problem(self.delete(jobs[0]), 404, "backup not found")

    def test_deleting_the_newest_makes_its_parent_the_latest(self):
        """A30 the chain after it"""
        self.register("vm", [MIB])
        jobs = self.points(2)
        first_id = self.chain("vm")["backups"][0]["change_id"]
        answer = self.delete(jobs[1])
        self.assertEqual((answer.status, answer.body["message"]), (200, "backup deleted successfully"))
        self.assertEqual(self.chain("vm")["latest_backup_id"], jobs[0])
        self.assertEqual(self.hub.get("/backups/changeid", vm_name="vm").body["change_id"], first_id)
        self.assertEqual((self.hub.repository / "vm-disk-2000" / "latest.qcow2").resolve(), self.images("vm")[0].resolve())
        self.quick_backup("vm", ["u/77"], "incremental")
        qemu.check(self.images("vm")[-1])

    def test_running_jobs_are_not_deleted_and_failed_ones_lose_their_row(self):
        """A30 2.9"""
        self.register("vm", [MIB])
        job = self.start("vm")
        self.assert_problem(self.delete(job["backup_id"]), 409, "backup is running")
        self.hub.api("POST", f"/backups/{job['backup_id']}/cancel")
        self.assertEqual(self.delete(job["backup_id"]).status, 200)
        self.assertEqual(self.hub.get(f"/backups/{job['backup_id']}").status, 404)

    def test_an_immutable_repository_keeps_its_backups(self):
        """A30 immutability is not overridden by cascade"""
        path = self.dir / "vault"
        path.mkdir()
        body = {
            "id": "vault", "name": "vault", "type": "local", "enabled": True, "is_immutable": True,
            "min_retention_days": 7, "config": {"path": str(path)},
        }  # fmt: skip
        self.assertEqual(self.hub.api("POST", "/repositories", body).status, 201)
        self.register("vm", [MIB])
        job = self.quick_backup("vm", ["u/1"], repository_id="vault")
        for query in ("", "?cascade=true"):
            self.assert_problem(self.delete(job["backup_id"], query), 409, "backup is immutable")


class Lists(HubCase):
    def ids(self, **query):
        answer = self.hub.get("/backups", **query)
        self.assertEqual(answer.status, 200, answer)
        self.assertEqual(answer.body["total"], max(answer.body["total"], len(answer.body["backups"])))
        return [job["backup_id"] for job in answer.body["backups"]]

    def test_filters_combine(self):
        """A31 filter matrix; a VM called web-disk2 is listed"""
        self.register("web-disk2", [MIB])
        self.register("db", [MIB])
        web = self.points(2, vm_name="web-disk2")
        db = self.points(1, vm_name="db")
        cancelled = self.start("db")["backup_id"]
        self.hub.api("POST", f"/backups/{cancelled}/cancel")
        context = self.job(web[0])["vm_context_id"]
        matrix = [
            ({}, {*web, *db, cancelled}),
            ({"vm_name": "web-disk2"}, {*web}),
            ({"vm_context_id": context}, {*web}),
            ({"vm_name": "web-disk2", "backup_type": "full"}, {web[0]}),
            ({"vm_name": "db", "status": "cancelled"}, {cancelled}),
            ({"status": "completed", "backup_type": "full"}, {web[0], *db}),
            ({"repository_id": "1", "status": "completed"}, {*web, *db}),
            ({"repository_id": "2"}, set()),
            ({"vm_name": "db", "status": "running"}, set()),
        ]
        for query, wanted in matrix:
            with self.subTest(query=query):
                self.assertEqual(set(self.ids(**query)), wanted)

    def test_the_newest_comes_first_and_pages_count_all_matches(self):
        """A31 order, limit, offset, total"""
        self.register("vm", [MIB])
        jobs = []
        for number in range(3):
            jobs += self.points(1, first="incremental" if number else "full")
            time.sleep(1.05)  # created_at has whole seconds
        self.assertEqual(self.ids(vm_name="vm"), jobs[::-1])
        page = self.hub.get("/backups", vm_name="vm", limit=1, offset=1).body
        self.assertEqual(([job["backup_id"] for job in page["backups"]], page["total"]), ([jobs[1]], 3))

    def test_wrong_filters_are_refused(self):
        """A31 2.5"""
        self.assert_problem(self.hub.get("/backups", vm_name="nobody"), 404, "VM not found")
        self.assert_problem(self.hub.get("/backups", status="sleeping"), 400, "invalid status", "invalid_query")
        for name, value in (("limit", "x"), ("offset", "-1"), ("backup_type", "weekly")):
            problem = self.hub.get("/backups", **{name: value})
            self.assert_problem(problem, 400, f"invalid {name}", "invalid_query")



if __name__ == "__main__":
    run.main()
