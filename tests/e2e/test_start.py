#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""POST /backups: what is refused and what is answered."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run  # noqa: E402
from harness.case import MIB, TIME, HubCase  # noqa: E402

# name -> type, for every member that is never left out
BACKUP_OBJECT = {
    "backup_id": str, "vm_context_id": str, "vm_name": str, "disk_results": list, "nbd_targets_string": str,
    "backup_type": str, "type": str, "repository_id": str, "status": str, "state": str, "bytes_transferred": int,
    "total_bytes": int, "disks_count": int, "current_phase": str, "transfer_speed_bps": int,
    "progress_percent": (int, float), "created_at": str,
}  # fmt: skip
DISK_RESULT = {
    "disk_id": int, "nbd_port": int, "nbd_export_name": str, "qcow2_path": str, "qemu_nbd_pid": int, "status": str,
}  # fmt: skip
MAY_BE_LEFT_OUT = ("policy_id", "file_path", "change_id", "error_message", "started_at", "completed_at", "tags")


class Validation(HubCase):
    def test_each_bad_request_gets_its_own_status_text_and_code(self):
        """A2 the checks that need no prepared state"""
        self.register("vm", [MIB])
        good = {"vm_name": "vm", "backup_type": "full", "repository_id": "1"}
        rows = [
            ({**good, "vm_name": ""}, 400, "vm_name is required", "missing_field"),
            ({**good, "repository_id": ""}, 400, "repository_id is required", "missing_field"),
            ({"backup_type": "full", "repository_id": "1"}, 400, "vm_name is required", "missing_field"),
            ({**good, "backup_type": "differential"}, 400, "backup_type must be 'full' or 'incremental'", "invalid_backup_type"),
            ({**good, "backup_type": ""}, 400, "backup_type must be 'full' or 'incremental'", "invalid_backup_type"),
            ({**good, "vm_name": 7}, 400, "invalid request body", "invalid_body"),
            ({**good, "tags": ["a"]}, 400, "invalid request body", "invalid_body"),
            ({**good, "tags": {"a": 1}}, 400, "invalid request body", "invalid_body"),
            ({**good, "vm_name": "nobody"}, 404, "VM not found", "vm_not_found"),
            ({**good, "repository_id": "17"}, 404, "repository not found", "repository_not_found"),
            ({**good, "backup_type": "incremental"}, 400, "no previous backup found", "no_parent"),
        ]  # fmt: skip
        for body, status, error, code in rows:
            with self.subTest(body=body):
                self.assert_problem(self.hub.api("POST", "/backups", body), status, error, code)
        self.assertEqual(self.node.calls, [])
        self.assertEqual(self.hub.get("/backups").body["total"], 0)
        self.assert_nothing_left()

    def test_a_body_that_is_not_json_is_refused(self):
        """A2 invalid_body"""
        for raw in (b"", b"{", b"[]", b'"text"', b"\xff\xfe"):
            with self.subTest(raw=raw):
                answer = self.hub.api("POST", "/backups", raw=raw)
                self.assert_problem(answer, 400, "invalid request body", "invalid_body")

    def test_checks_are_made_in_the_written_order(self):
        """A2 with everything wrong the first check wins"""
        wrong = {"vm_name": "", "backup_type": "x", "repository_id": ""}
        self.assert_problem(self.hub.api("POST", "/backups", wrong), 400, "vm_name is required")
        wrong["vm_name"] = "nobody"
        self.assert_problem(self.hub.api("POST", "/backups", wrong), 400, "repository_id is required")
        wrong["repository_id"] = "17"
        self.assert_problem(
            self.hub.api("POST", "/backups", wrong), 400, "backup_type must be 'full' or 'incremental'"
        )
        wrong["backup_type"] = "incremental"
        self.assert_problem(self.hub.api("POST", "/backups", wrong), 404, "VM not found")

    def test_unknown_members_are_ignored_and_known_ones_are_echoed(self):
        """A2 unknown members; policy_id and tags stored"""
        self.register("vm", [MIB])
        job = self.start("vm", policy_id="p-1", tags={"owner": "ops"}, surprise=[1, 2])
        again = self.job(job["backup_id"])
        for answer in (job, again):
            self.assertEqual((answer["policy_id"], answer["tags"]), ("p-1", {"owner": "ops"}))

    def test_a_vm_without_credentials_is_refused_before_anything_is_created(self):
        """A2 no_credentials"""
        self.register("vm", [MIB], credentials=None)
        self.assert_problem(self.post("vm"), 400, "VM context missing credential_id", "no_credentials")
        self.assert_nothing_left()

    def test_credentials_that_cannot_be_resolved_are_refused(self):
        """A2 credentials_error"""
        self.register("vm", [MIB], credentials={"ref": "nowhere"})
        self.assert_problem(self.post("vm"), 500, "failed to get VMware credentials", "credentials_error")
        self.assert_nothing_left()

    def test_the_operators_two_requests_are_answered_with_200(self):
        """A2 A13 a full and an incremental on a fresh start"""
        self.register("pgtest1", [MIB, MIB])
        self.quick_backup("pgtest1", ["u0/1", "u1/1"])
        second = self.post("pgtest1", "incremental")
        self.assertEqual(second.status, 200, second)


class Answers(HubCase):
    def assert_members(self, value, wanted):
        for name, kind in wanted.items():
            self.assertIsInstance(value.get(name), kind, f"{name} in {value}")

    def test_post_get_and_list_give_the_same_complete_object(self):
        """A5 members and types"""
        self.register("vm", [MIB, 2 * MIB])
        posted = self.start("vm")
        got = self.job(posted["backup_id"])
        listed = self.hub.get("/backups", vm_name="vm").body["backups"][0]
        for answer in (posted, got, listed):
            self.assert_members(answer, BACKUP_OBJECT)
            self.assertEqual(len(answer["disk_results"]), 2)
            for disk in answer["disk_results"]:
                self.assert_members(disk, DISK_RESULT)
            self.assertRegex(answer["created_at"], TIME)
            for name in MAY_BE_LEFT_OUT:
                self.assertNotIn(answer.get(name, "present"), ("", None, {}), name)
            self.assertEqual((answer["disks_count"], answer["total_bytes"]), (2, 3 * MIB))
        self.assertEqual((posted["status"], posted["state"]), ("started", "running"))
        self.assertEqual(got["status"], "running")
        self.assertEqual([disk["status"] for disk in posted["disk_results"]], ["prepared", "prepared"])

    def test_a_completed_job_shows_its_bytes_change_id_and_end(self):
        """A5 the same object after the end"""
        self.register("vm", [MIB])
        job = self.quick_backup("vm", ["u/1"], writes=[(0, b"x" * 4096)])
        done = self.job(job["backup_id"])
        self.assertEqual(done["bytes_transferred"], 4096)
        self.assertEqual((done["change_id"], done["progress_percent"], done["nbd_targets_string"]), ("u/1", 100, ""))
        self.assertRegex(done["completed_at"], TIME)
        self.assertEqual(done["file_path"], done["disk_results"][0]["qcow2_path"])
        self.assertEqual([disk["nbd_port"] for disk in done["disk_results"]], [0])

    def test_disks_come_in_key_order_with_their_exact_sizes(self):
        """A3 three disks, key 2016, a size that is no multiple of 1 GiB"""
        odd = 7 * MIB + 512
        self.register("vm", [2 * MIB, odd, MIB], keys=[2001, 2016, 2000])
        job = self.start("vm")
        self.assertEqual([disk["disk_id"] for disk in job["disk_results"]], [0, 1, 2])
        self.assertEqual([target.key for target in self.targets(job)], [2000, 2001, 2016])
        disks = self.disks(job["backup_id"])
        self.assertEqual([disk["capacity_bytes"] for disk in disks], [MIB, 2 * MIB, odd])
        self.assertEqual([disk["vmware_disk_key"] for disk in disks], [2000, 2001, 2016])
        self.assertEqual([disk["size_gb"] for disk in disks], [1, 1, 1])
        self.assertEqual(self.connect(job, 2).get_size(), odd)
        self.assertEqual(job["file_path"], "/multi-disk-parent")

    def test_the_export_advertises_flags_and_block_sizes(self):
        """A10 flags 0x09ed, block sizes 1, 65536, 33554432; listening before POST answers"""
        self.register("vm", [MIB])
        handle = self.connect(self.start("vm"))
        yes = [
            handle.can_multi_conn(), handle.can_flush(), handle.can_fua(), handle.can_trim(), handle.can_zero(),
            handle.can_fast_zero(), handle.can_df(), not handle.is_read_only(), not handle.can_cache(),
        ]  # fmt: skip
        self.assertTrue(all(yes), yes)
        sizes = [handle.get_block_size(which) for which in range(3)]
        self.assertEqual(sizes, [1, 65536, 33554432])

    def test_twelve_connections_to_one_export_all_work(self):
        """A10 2 + 10 connections"""
        self.register("vm", [MIB])
        job = self.start("vm")
        handles = [self.connect(job) for _ in range(12)]
        for number, handle in enumerate(handles):
            handle.pwrite(bytes([number + 1]) * 512, number * 512)
        self.assertEqual([handles[0].pread(1, n * 512)[0] for n in range(12)], list(range(1, 13)))


if __name__ == "__main__":
    run.main()
