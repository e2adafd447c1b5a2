#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Who is told which change id: the rows of docs/jobs.md, "Change ids"."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402

SPACED = "52 66 8c 2d a7 c5 c5 68-c5 d2 8d 04 79 f5 fd 7d/5531"


class ChangeIds(HubCase):
    def by_index(self, vm_name="vm", disk_id=None, **more):
        """The answer to the client with telemetry; every value must be a string."""
        query = {"vm_name": vm_name, **more, **({} if disk_id is None else {"disk_id": disk_id})}
        return self.strings("/backups/changeid", query)

    def by_key(self, key, vm_path="/DC1/vm/vm"):
        return self.strings("/replications/changeid", {"vm_path": vm_path, "disk_id": f"disk-{key}"})

    def strings(self, path, query):
        answer = self.hub.get(path, **query)
        self.assertEqual(answer.status, 200, answer)
        for name, value in answer.body.items():
            self.assertIsInstance(value, str, name)
        return answer.body["change_id"]

    def two_disks_with_a_full(self):
        self.register("vm", [MIB, MIB])
        return self.quick_backup("vm", ["u0/1", "u1/1"])

    def test_a_running_full_hands_out_nothing(self):
        """A21 A42 row 1"""
        self.two_disks_with_a_full()
        self.start("vm", "full")
        self.assertEqual([self.by_index(disk_id=n) for n in (0, 1, None)], ["", "", ""])
        self.assertEqual([self.by_key(key) for key in (2000, 2001)], ["", ""])

    def test_a_key_gets_exactly_its_own_disks_id(self):
        """A21 row 2"""
        self.two_disks_with_a_full()
        self.start("vm", "incremental")
        self.assertEqual([self.by_key(key) for key in (2000, 2001, 2002)], ["u0/1", "u1/1", ""])

    def test_an_index_from_one_up_gets_its_own_disks_id(self):
        """A21 row 3"""
        self.two_disks_with_a_full()
        self.start("vm", "incremental")
        self.assertEqual([self.by_index(disk_id=n) for n in (1, 2)], ["u1/1", ""])

    def test_disk_zero_means_the_connected_disk(self):
        """A21 row 4: disk 0 if it is connected, else the one that connected last"""
        self.two_disks_with_a_full()
        job = self.start("vm", "incremental")
        second = self.connect(job, 1)
        self.assertEqual(self.by_index(disk_id=0), "u1/1")
        first = self.connect(job, 0)
        self.assertEqual(self.by_index(disk_id=0), "u0/1")
        self.assertEqual(self.by_index(), "u0/1")
        del first, second

    def test_disk_zero_means_the_next_incomplete_disk(self):
        """A21 rows 5 and 6"""
        self.two_disks_with_a_full()
        job = self.start("vm", "incremental")
        self.assertEqual(self.by_index(disk_id=0), "u0/1")
        self.write_and_complete(job, 0, "u0/2")
        self.assertEqual(self.by_index(disk_id=0), "u1/1")
        self.assertEqual(self.by_index(disk_id=1), "u1/1")

    def test_answers_do_not_change_while_the_job_runs(self):
        """A21 the three GETs per disk agree"""
        self.two_disks_with_a_full()
        job = self.start("vm", "incremental")
        before = [self.by_index(disk_id=0) for _ in range(2)]
        handle = self.connect(job, 0)
        after = self.by_index(disk_id=0)
        self.assertEqual([*before, after], ["u0/1"] * 3)
        del handle
        self.complete_ok(job, "u0/2", 0)
        self.assertEqual([self.by_key(2000), self.by_key(2001)], ["u0/1", "u1/1"])

    def test_a_disk_without_a_parent_in_an_incremental_gets_nothing(self):
        """A21 row 7: disk added since the full"""
        self.two_disks_with_a_full()
        answer = self.hub.register("vm", [MIB] * 3)
        self.assertEqual(answer.status, 200, answer)
        job = self.start("vm", "incremental")
        self.assertEqual([self.by_index(disk_id=n) for n in (1, 2)], ["u1/1", ""])
        self.assertEqual(self.by_key(2002), "")
        kinds = [disk["backup_type"] for disk in self.disks(job["backup_id"])]
        self.assertEqual(kinds, ["incremental", "incremental", "full"])

    def test_an_unusable_id_is_stored_flagged_and_never_handed_out(self):
        """A21 row 7: not exactly one slash"""
        self.register("vm", [MIB])
        job = self.start("vm")
        self.assertEqual(self.by_index(disk_id=0), "", "it asks, as the existing client does")
        self.write_and_complete(job, 0, "no-slash")
        done = self.job(job["backup_id"])
        self.assertEqual(done["change_id"], "no-slash")
        self.assertIn("change_id_unusable", [warning["code"] for warning in done["warnings"]])
        self.assertEqual(self.by_index(disk_id=0), "")
        self.start("vm", "incremental")
        self.assertEqual((self.by_index(disk_id=0), self.by_key(2000)), ("", ""))

    def test_without_a_job_the_newest_completed_id_of_the_disk_is_given(self):
        """A21 rows 8 and 9"""
        self.two_disks_with_a_full()
        self.quick_backup("vm", ["u0/2", "u1/2"], "incremental")
        self.assertEqual([self.by_index(disk_id=n) for n in (0, 1, 2)], ["u0/2", "u1/2", ""])
        self.assertEqual([self.by_key(2000), self.by_key(2001)], ["u0/2", "u1/2"])
        self.assertEqual(self.by_index("nobody", 0), "")
        self.assertEqual(self.by_key(2000, "/DC9/vm/nobody"), "")

    def test_a_failed_job_changes_no_answer(self):
        """A21 row 8: only completed points count"""
        self.two_disks_with_a_full()
        job = self.start("vm", "incremental")
        self.write_and_complete(job, 0, "u0/2")
        self.assertEqual(self.hub.api("POST", f"/backups/{job['backup_id']}/cancel").status, 200)
        self.assertEqual(self.by_index(disk_id=0), "u0/1")

    def test_repositories_do_not_mix(self):
        """A8 A21 row 8 with repository_id"""
        self.two_disks_with_a_full()
        self.add_repository("second")
        self.assert_problem(self.post("vm", "incremental", "second"), 400, "no previous backup found", "no_parent")
        self.quick_backup("vm", ["u0/7", "u1/7"], repository_id="second")
        self.assertEqual(self.by_index(disk_id=0, repository_id="1"), "u0/1")
        self.assertEqual(self.by_index(disk_id=0, repository_id="second"), "u0/7")
        self.assertEqual(self.by_index(disk_id=0), "u0/7")
        self.start("vm", "incremental", "1")
        self.assertEqual(self.by_index(disk_id=0), "u0/1")

    def add_repository(self, repository_id):
        path = self.dir / repository_id
        path.mkdir()
        body = {"id": repository_id, "name": repository_id, "type": "local", "enabled": True, "config": {"path": str(path)}}
        answer = self.hub.api("POST", "/repositories", body)
        self.assertEqual(answer.status, 201, answer)

    def test_an_ambiguous_name_gets_the_vm_with_the_active_job(self):
        """A21 row 10, A26: two vCenters, one inventory name"""
        for name, host, change_id in (("a", "vc1", "ua/1"), ("b", "vc2", "ub/1")):
            self.register(name, [MIB], vm_path="/DC1/vm/twin", vcenter_host=host)
            self.quick_backup(name, [change_id])
        answer = self.hub.get("/backups/changeid", vm_name="twin", disk_id=0)
        self.assertEqual((answer.status, answer.body["change_id"]), (200, ""))
        self.assertEqual(answer.body["message"], "VM name is ambiguous")
        self.start("b", "incremental")
        self.assertEqual(self.by_index("twin", 0), "ub/1")

    def test_wrong_questions_get_the_old_texts(self):
        """A21 texts of refusals"""
        missing = self.hub.get("/backups/changeid")
        self.assertEqual(self.assert_problem(missing, 400, "missing vm_name")["details"], "vm_name query parameter is required")
        wrong = self.hub.get("/backups/changeid", vm_name="vm", disk_id="x")
        self.assertEqual(self.assert_problem(wrong, 400, "invalid disk_id")["details"], "disk_id must be numeric")
        no_path = self.hub.get("/replications/changeid")
        problem = self.assert_problem(no_path, 400, "Missing vm_path parameter")
        self.assertEqual(problem["details"], "vm_path query parameter is required")

    def test_the_whole_answer_has_the_old_members(self):
        """A21 word for word"""
        self.register("vm", [MIB])
        nothing = self.hub.get("/backups/changeid", vm_name="vm", disk_id=0).body
        self.assertEqual(
            nothing, {"vm_name": "vm", "disk_id": "0", "change_id": "", "message": "No previous backup found"}
        )
        legacy = self.hub.get("/replications/changeid", vm_path="/DC1/vm/vm", disk_id="disk-2000").body
        self.assertEqual(legacy["message"], "No previous successful migration found")
        job = self.quick_backup("vm", [SPACED])
        found = self.hub.get("/backups/changeid", vm_name="vm", disk_id=0).body
        self.assertEqual(found["message"], "Previous change_id found")
        self.assertEqual((found["backup_job_id"], found["change_id"]), (job["backup_id"], SPACED))
        legacy = self.hub.get("/replications/changeid", vm_path="/DC1/vm/vm", disk_id="disk-2000").body
        self.assertEqual(
            legacy,
            {"vm_path": "/DC1/vm/vm", "disk_id": "disk-2000", "change_id": SPACED, "message": "Previous change ID found"},
        )

    def test_an_id_with_spaces_survives_byte_for_byte_and_is_replaced_by_the_next(self):
        """A25"""
        self.register("vm", [MIB])
        first = self.quick_backup("vm", [SPACED])
        self.assertEqual(self.by_index(disk_id=0), SPACED)
        self.assertEqual(self.job(first["backup_id"])["change_id"], SPACED)
        self.quick_backup("vm", [SPACED[:-1] + "2"], "incremental")
        self.assertEqual(self.by_index(disk_id=0), SPACED[:-1] + "2")
        self.assertEqual([point["change_id"] for point in self.chain("vm")["backups"]], [SPACED, SPACED[:-1] + "2"])


if __name__ == "__main__":
    run.main()
