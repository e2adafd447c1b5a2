#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""VM contexts and repositories."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run  # noqa: E402
from harness.case import MIB, TIME, HubCase  # noqa: E402


class VmContexts(HubCase):
    def test_a_vm_is_created_once_and_replaced_afterwards(self):
        """A26 A32 2.15"""
        first = self.hub.register("vm", [MIB, 2 * MIB])
        self.assertEqual(first.status, 201, first)
        second = self.hub.register("vm", [MIB, 4 * MIB])
        self.assertEqual(second.status, 200, second)
        context = self.hub.get("/vm-contexts/vm").body["context"]
        self.assertEqual(context["context_id"], first.body["context"]["context_id"])
        self.assertEqual((context["vm_path"], context["vcenter_host"]), ("/DC1/vm/vm", "vc1.example"))
        self.assertEqual(context["current_status"], "discovered")
        self.assertEqual(context["credentials"]["kind"], "inline")
        disks = self.hub.get(f"/vm-contexts/{context['context_id']}/disks").body
        self.assertEqual(disks, self.hub.get("/vm-contexts/vm/disks").body)
        self.assertEqual(
            disks["disks"][1],
            {"disk_id": "disk-2001", "size_gb": 1, "disk_index": 1, "vmware_disk_key": 2001, "capacity_bytes": 4 * MIB},
        )

    def test_indexes_belong_to_keys_for_ever(self):
        """A26 disk index"""
        self.register("vm", [MIB, MIB], keys=[2001, 2000])
        self.hub.register("vm", [MIB, MIB], keys=[1999, 2001])
        disks = self.hub.get("/vm-contexts/vm").body["disks"]
        found = {disk["vmware_disk_key"]: (disk["disk_index"], disk["removed"]) for disk in disks}
        self.assertEqual(found, {2000: (0, True), 2001: (1, False), 1999: (2, False)})
        job = self.start("vm")
        self.assertEqual([disk["disk_id"] for disk in job["disk_results"]], [1, 2])

    def test_passwords_are_never_shown_or_logged_and_lie_in_a_private_file(self):
        """A26 secrets"""
        self.register("vm", [MIB])
        self.start("vm")
        for path in ("/vm-contexts", "/vm-contexts/vm", "/backups"):
            self.assertNotIn("s3cret-pw", self.hub.get(path).text)
        self.assertNotIn("s3cret-pw", self.hub.log)
        for path in self.hub.directory.rglob("*"):
            if path.is_file() and b"s3cret-pw" in path.read_bytes():
                self.assertEqual(path.stat().st_mode & 0o777, 0o600, path)
                self.assertNotEqual(path, self.hub.catalogue)

    def test_bad_registrations_name_the_member(self):
        """A26 refusals"""
        good = {"vm_path": "/a/b", "vcenter_host": "h", "disks": [{"disk_id": "disk-1", "capacity_bytes": 512}]}
        bad = [
            ("vm_path", "a/b"), ("vm_path", ""), ("vcenter_host", ""), ("disks", []),
            ("disk_id", [{"disk_id": "scsi0", "capacity_bytes": 512}]),
            ("capacity_bytes", [{"disk_id": "disk-1", "capacity_bytes": 513}]),
            ("capacity_bytes", [{"disk_id": "disk-1", "capacity_bytes": 0}]),
            ("disk_id", [{"disk_id": "disk-1", "capacity_bytes": 512}] * 2),
        ]  # fmt: skip
        for member, value in bad:
            with self.subTest(member=member, value=value):
                body = {**good, ("disks" if isinstance(value, list) else member): value}
                problem = self.assert_problem(self.hub.api("PUT", "/vm-contexts/x", body), 400, "invalid vm context")
                self.assertIn(member, problem["details"])
        self.assert_problem(self.hub.api("PUT", "/vm-contexts/x", raw=b"{"), 400, "invalid request body")

    def test_another_vcenter_needs_move_and_a_running_job_keeps_its_disks(self):
        """A26 409 rows"""
        self.register("vm", [MIB])
        elsewhere = self.hub.register("vm", [MIB], vcenter_host="vc2")
        self.assert_problem(elsewhere, 409, "VM name already registered for another vCenter")
        self.start("vm")
        self.assert_problem(self.hub.register("vm", [MIB, MIB]), 409, "VM has a running backup")
        self.assert_problem(self.hub.api("DELETE", "/vm-contexts/vm"), 409, "VM has backups")

    def test_one_inventory_name_in_two_vcenters_is_ambiguous(self):
        """A26 409 vm_ambiguous; the registered names still work"""
        for name, host in (("a", "vc1"), ("b", "vc2")):
            self.register(name, [MIB], vm_path="/DC/vm/twin", vcenter_host=host)
        problem = self.assert_problem(self.post("twin"), 409, "VM name is ambiguous", "vm_ambiguous")
        self.assertIn("ctx-a-", problem["details"])
        self.start("a")

    def test_a_vm_is_found_by_its_inventory_name(self):
        """A26 vm_name"""
        self.register("prod/web", [MIB], vm_path="/DC/vm/folder/web01")
        self.assertEqual(self.start("web01")["vm_name"], "prod/web")

    def test_contexts_are_listed_read_and_deleted(self):
        """A32 VM contexts"""
        self.register("vm", [MIB])
        self.register("other", [MIB])
        listing = self.hub.get("/vm-contexts").body
        self.assertEqual((listing["count"], {vm["vm_name"] for vm in listing["vm_contexts"]}), (2, {"vm", "other"}))
        self.assertEqual([(vm["groups"], vm["group_count"]) for vm in listing["vm_contexts"]], [([], 0)] * 2)
        context_id = self.hub.get("/vm-contexts/vm").body["context"]["context_id"]
        by_id = self.hub.get(f"/vm-contexts/by-id/{context_id}").body
        self.assertEqual(by_id["context"]["vm_name"], "vm")
        self.assertEqual(by_id["cbt_history"], [])
        answer = self.hub.api("DELETE", "/vm-contexts/vm")
        self.assertEqual(answer.body, {"message": "VM context deleted", "context_id": context_id})
        self.assert_problem(self.hub.get("/vm-contexts/vm"), 404, "VM context not found for: vm")
        gone = self.hub.get(f"/vm-contexts/by-id/{context_id}")
        self.assert_problem(gone, 404, f"VM context not found for context_id: {context_id}")

    def test_counters_follow_the_jobs(self):
        """A32 counters"""
        self.register("vm", [MIB])
        done = self.quick_backup("vm", ["u/1"])
        failed = self.start("vm")
        self.assertEqual(self.hub.get("/vm-contexts/vm").body["context"]["current_job_id"], failed["backup_id"])
        self.hub.api("POST", f"/telemetry/backup/{failed['backup_id']}", {"status": "failed"})
        self.wait_for_status(failed["backup_id"], "failed")
        body = self.hub.get("/vm-contexts/vm").body
        context = body["context"]
        counted = [context[name] for name in ("total_jobs_run", "successful_jobs", "failed_jobs")]
        self.assertEqual((counted, context["current_job_id"]), ([2, 1, 1], None))
        self.assertEqual(context["last_successful_job_id"], done["backup_id"])
        self.assertEqual(context["current_status"], "failed")
        self.assertEqual(len(body["job_history"]), 2)
        self.assertEqual(body["disks"][0]["disk_change_id"], "u/1")


class Repositories(HubCase):
    def local(self, name, **more):
        path = self.dir / name
        path.mkdir(exist_ok=True)
        return {"name": name, "type": "local", "enabled": True, "config": {"path": str(path)}, **more}

    def test_repository_one_exists_without_configuration(self):
        """A13 2.14"""
        one = self.hub.get("/repositories/1").body
        self.assertEqual((one["success"], one["repository"]["id"], one["repository"]["type"]), (True, "1", "local"))
        listing = self.hub.get("/repositories").body
        self.assertEqual([entry["id"] for entry in listing["repositories"]], ["1"])

    def test_a_repository_is_added_measured_tested_and_deleted(self):
        """A32 2.14"""
        added = self.hub.api("POST", "/repositories", self.local("second", id="two"))
        self.assertEqual((added.status, added.body["success"], added.body["repository"]["id"]), (201, True, "two"))
        storage = self.hub.get("/repositories/two/storage").body
        self.assertEqual((storage["repository_id"], storage["backup_count"]), ("two", 0))
        self.assertGreater(storage["total_bytes"], storage["available_bytes"])
        self.assertRegex(storage["last_check_at"], TIME)
        tested = self.hub.api("POST", "/repositories/two/test").body
        self.assertEqual(
            (tested["success"], tested["message"]),
            (True, "Repository configuration is valid and connection test passed"),
        )
        refreshed = self.hub.api("POST", "/repositories/refresh-storage").body
        self.assertEqual((refreshed["refreshed_count"], refreshed["failed_count"]), (2, 0))
        deleted = self.hub.api("DELETE", "/repositories/two").body
        self.assertEqual(deleted, {"success": True, "message": "Repository deleted successfully", "id": "two"})
        self.refused(self.hub.get("/repositories/two"), 404, "Repository not found")

    def refused(self, answer, status, beginning):
        self.assertEqual((answer.status, answer.body["success"]), (status, False), answer)
        self.assertTrue(answer.body["error"].startswith(beginning), answer)

    def test_bad_repositories_are_refused_with_the_old_texts(self):
        """A32 refusals"""
        post = lambda body: self.hub.api("POST", "/repositories", body)  # noqa: E731
        self.refused(self.hub.api("POST", "/repositories", raw=b"{"), 400, "Invalid request body")
        self.refused(post({"type": "local"}), 400, "Repository name is required")
        self.refused(post({"name": "x"}), 400, "Repository type is required")
        self.refused(post({"name": "x", "type": "s3", "config": {}}), 400, "Unsupported repository type: s3")
        relative = {"name": "x", "type": "local", "config": {"path": "not/absolute"}}
        self.refused(post(relative), 400, "Invalid local repository config: ")
        self.assertEqual(post(self.local("twice")).status, 201)
        self.refused(post(self.local("twice")), 409, "Failed to register repository: name already exists")

    def test_a_path_that_does_not_work_fails_the_test_not_the_request(self):
        """A32 /repositories/test"""
        file = self.dir / "a-file"
        file.write_text("no directory can be below this")
        wrong = {"type": "local", "config": {"path": str(file / "deeper")}}
        answer = self.hub.api("POST", "/repositories/test", wrong)
        self.assertEqual((answer.status, answer.body["success"]), (200, False), answer)
        self.assertEqual(answer.body["message"], "Repository test failed")
        self.assertTrue(answer.body["error_details"])

    def test_a_repository_with_backups_stays_and_a_disabled_one_takes_none(self):
        """A32 A2 repository_disabled"""
        self.register("vm", [MIB])
        self.quick_backup("vm", ["u/1"])
        self.refused(self.hub.api("DELETE", "/repositories/1"), 409, "Cannot delete repository with existing backups")
        self.hub.api("POST", "/repositories", self.local("off", id="off", enabled=False))
        self.assert_problem(self.post("vm", repository_id="off"), 409, "repository is disabled", "repository_disabled")


if __name__ == "__main__":
    run.main()
