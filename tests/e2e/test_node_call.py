#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The one call to the node, and what happens when it fails."""

import json
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import qemu, run  # noqa: E402
from harness.case import MIB, TIME, HubCase  # noqa: E402


class NodeCall(HubCase):
    def test_one_call_per_job_with_every_field_filled(self):
        """A6 for one, two and three disks"""
        for count in (1, 2, 3):
            with self.subTest(disks=count):
                self.node.calls.clear()
                name = f"vm{count}"
                self.register(name, [MIB] * count)
                job = self.start(name)
                self.assertEqual(len(self.node.calls), 1)
                call = self.node.calls[0]
                expected = {
                    "job_id": job["backup_id"], "vm_name": name, "vm_path": f"/DC1/vm/{name}",
                    "vcenter_host": "vc1.example", "vcenter_user": "backup", "vcenter_password": "s3cret-pw",
                    "nbd_targets": job["nbd_targets_string"], "backup_type": "full",
                    "previous_change_id": "PLACEHOLDER",
                }  # fmt: skip
                self.assertEqual({key: call[key] for key in expected}, expected)
                self.assertTrue(call["nbd_host"])

    def test_the_page_about_the_node_shows_the_members_of_a_real_call(self):
        page = (Path(__file__).resolve().parents[2] / "docs" / "node-api.md").read_text()
        example = json.loads(page.split("```json\n", 1)[1].split("```", 1)[0])
        self.register("vm", [MIB])
        self.start("vm")
        self.assertEqual(sorted(example), sorted(self.node.calls[0]))
        rows = set(re.findall(r"`(\w+)`", "".join(re.findall(r"(?m)^\| (`[^|]*) \|", page))))
        self.assertEqual(set(example) - rows, set(), "members that the table does not explain")

    def test_targets_follow_the_grammar_in_ascending_key_order(self):
        """A6 nbd_targets is one string"""
        self.register("vm", [MIB] * 3, keys=[2016, 2000, 16000])
        job = self.start("vm")
        part = r"\d+:nbd://127\.0\.0\.1:\d+/[A-Za-z0-9._-]{1,64}"
        self.assertRegex(job["nbd_targets_string"], rf"^{part},{part},{part}$")
        self.assertEqual([target.key for target in self.targets(job)], [2000, 2016, 16000])
        ports = [disk["nbd_port"] for disk in job["disk_results"]]
        self.assertEqual([target.port for target in self.targets(job)], ports)

    def test_an_incremental_names_the_previous_change_id(self):
        """A6 previous_change_id"""
        self.register("vm", [MIB, MIB])
        self.quick_backup("vm", ["u0/1", "u1/1"])
        self.start("vm", "incremental")
        self.assertEqual(self.node.calls[-1]["previous_change_id"], "u0/1")
        self.assertEqual(self.node.calls[-1]["backup_type"], "incremental")

    def test_202_is_as_good_as_200(self):
        """A6 accepted answers"""
        self.node.mode = "accepted"
        self.register("vm", [MIB])
        self.start("vm")

    def test_the_job_and_its_exports_exist_while_the_node_is_being_called(self):
        """A4 A10 rows and listeners before the call"""
        seen = {}

        def look(body):
            seen["job"] = self.hub.get(f"/backups/{body['job_id']}").body
            seen["disks"] = self.hub.get(f"/backups/{body['job_id']}/disks").body["count"]
            seen["handle"] = self.connect({"nbd_targets_string": body["nbd_targets"]})

        self.node.on_start = look
        self.register("vm", [MIB])
        self.start("vm")
        self.assertEqual((seen["job"]["state"], seen["disks"]), ("preparing", 1))
        seen["handle"].pwrite(b"early", 0)

    def test_a_client_may_complete_before_the_node_answers(self):
        """A4 such a job stays completed and POST answers 200"""

        def whole_client(body):
            job = {"nbd_targets_string": body["nbd_targets"], "backup_id": body["job_id"]}
            self.connect(job).pwrite(b"fast", 0)
            self.complete_ok(job, "u/1", 0)

        self.node.on_start = whole_client
        self.register("vm", [MIB])
        job = self.start("vm")
        self.assertEqual(self.job(job["backup_id"])["status"], "completed")


class NodeTrouble(HubCase):
    def fails(self, error, code, details):
        begun = time.monotonic()
        problem = self.assert_problem(self.post("vm"), 500, error, code)
        self.assertLess(time.monotonic() - begun, 15)
        self.assertRegex(problem["details"], details)
        self.assertNotIn("s3cret-pw", json.dumps(problem))
        self.assert_nothing_left()
        job = self.job(problem["backup_id"])
        self.assertEqual((job["status"], job["state"]), ("failed", "failed"))
        self.assertTrue(job["error_message"])
        self.assertRegex(job["completed_at"], TIME)
        self.assertFalse(list(self.hub.repository.rglob("*.qcow2*")))

    def after_the_trouble_a_backup_works(self):
        self.node.mode = "ok"
        self.quick_backup("vm", ["u/1"])

    def test_a_closed_port_fails_the_start_and_leaves_nothing(self):
        """A7 A14 node refuses the connection"""
        self.register("vm", [MIB])
        self.node.refuse()
        self.fails("failed to call SNA API", "node_unreachable", re.compile("refused|connect", re.I))
        self.node.listen()
        self.after_the_trouble_a_backup_works()

    def test_a_refusal_is_reported_with_its_text(self):
        """A7 node answers 400 and 500"""
        self.register("vm", [MIB])
        for mode, status in (("bad", 400), ("broken", 500)):
            with self.subTest(mode=mode):
                self.node.mode = mode
                self.fails("SNA API error", "node_refused", f"status: {status}.*told to fail")
        self.after_the_trouble_a_backup_works()

    def test_a_dropped_call_is_not_repeated(self):
        """A7 node closes the connection: a second call could start a second client"""
        self.register("vm", [MIB])
        self.node.mode = "drop"
        self.fails("failed to call SNA API", "node_unreachable", ".")
        self.assertEqual(len(self.node.calls), 1)

    def test_a_hanging_node_fails_the_start_within_15_seconds(self):
        """A7 node never answers; the late client finds no job"""
        self.register("vm", [MIB])
        self.node.mode = "hang"
        self.fails("failed to call SNA API", "node_unreachable", ".")
        self.assertEqual(len(self.node.calls), 1)
        late = self.complete({"backup_id": self.node.calls[0]["job_id"]}, "u/1", 0)
        self.assert_problem(late, 409, "backup is not running", "job_not_running")

    def test_a_failed_start_leaves_the_chain_as_it_was(self):
        """A7 A15 latest unchanged, next job works"""
        self.register("vm", [MIB])
        first = self.quick_backup("vm", ["u/1"], writes=[(0, b"one")])
        self.node.mode = "broken"
        self.assertEqual(self.post("vm", "incremental").status, 500)
        self.assertEqual(self.chain("vm")["latest_backup_id"], first["backup_id"])
        self.node.mode = "ok"
        self.quick_backup("vm", ["u/2"], "incremental")
        self.assertEqual(self.chain("vm")["backup_count"], 2)
        qemu.check(self.images("vm")[-1])



if __name__ == "__main__":
    run.main()
