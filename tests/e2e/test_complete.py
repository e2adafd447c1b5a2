#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""complete, telemetry and cancel: how a job ends, and what does not end it."""

import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import nbd  # noqa: E402
from harness import qemu, run  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402


class Complete(HubCase):
    def two_disks(self):
        self.register("vm", [MIB, MIB])
        return self.start("vm")

    def test_the_answer_has_the_old_members_and_the_new_ones(self):
        """A24 2.7"""
        job = self.two_disks()
        first = self.write_and_complete(job, 0, "u0/1")
        self.assertEqual(
            {key: first[key] for key in ("status", "backup_id", "change_id", "message")},
            {
                "status": "completed", "backup_id": job["backup_id"], "change_id": "u0/1",
                "message": "Backup completed successfully, change_id recorded",
            },
        )  # fmt: skip
        progress = [(first[k]) for k in ("disk_id", "job_status", "disks_completed", "disks_total")]
        self.assertEqual(progress, [0, "running", 1, 2])
        last = self.write_and_complete(job, 1, "u1/1")
        progress = [(last[k]) for k in ("disk_id", "job_status", "disks_completed", "disks_total")]
        self.assertEqual(progress, [1, "completed", 2, 2])

    def test_repeats_are_answered_with_200_before_and_after_the_jobs_end(self):
        """A24 repeats"""
        job = self.two_disks()
        self.write_and_complete(job, 0, "u0/1")
        self.complete_ok(job, "u0/1", 0)
        self.complete_ok(job, "u0/1")  # 1.0.1: found by its change id
        self.write_and_complete(job, 1, "u1/1")
        for change_id, disk_id in (("u0/1", 0), ("u1/1", 1), ("u0/1", None), ("u1/1", None)):
            self.complete_ok(job, change_id, disk_id)
        self.assertEqual(self.chain("vm")["backup_count"], 1)

    def test_repeats_at_the_same_time_publish_once(self):
        """A24 concurrently"""
        job = self.two_disks()
        self.write_and_complete(job, 0, "u0/1")
        handle = self.connect(job, 1)
        handle.pwrite(b"z" * MIB, 0)
        answers = []
        calls = [
            threading.Thread(target=lambda: answers.append(self.complete(job, "u1/1", 1).status)) for _ in range(6)
        ]
        for call in calls:
            call.start()
        for call in calls:
            call.join()
        self.assertEqual(answers, [200] * 6)
        self.assertEqual(self.chain("vm", 1)["backup_count"], 1)

    def test_another_change_id_for_a_sealed_disk_is_a_conflict(self):
        """A24 change_id_conflict"""
        job = self.two_disks()
        self.write_and_complete(job, 0, "u0/1")
        self.assert_problem(self.complete(job, "u0/2", 0), 409, "disk already completed", "change_id_conflict")
        self.write_and_complete(job, 1, "u1/1")
        self.assert_problem(self.complete(job, "u1/2", 1), 409, "disk already completed", "change_id_conflict")

    def test_unknown_jobs_and_disks_are_not_found(self):
        """A24 job_not_found"""
        job = self.two_disks()
        self.assert_problem(self.complete(job, "u/1", 7), 404, "backup job not found", "job_not_found")
        gone = {"backup_id": "backup-nobody-1"}
        self.assert_problem(self.complete(gone, "u/1", 0), 404, "backup job not found", "job_not_found")

    def test_a_disk_that_was_never_connected_cannot_be_completed(self):
        """A24 disk_never_connected"""
        job = self.two_disks()
        self.assert_problem(self.complete(job, "u0/1", 0), 409, "disk received no data", "disk_never_connected")
        self.assertEqual(self.job(job["backup_id"])["status"], "running")

    def test_bad_bodies_are_refused_and_change_nothing(self):
        """A24 bad bodies"""
        job = self.two_disks()
        path = f"/backups/{job['backup_id']}/complete"
        self.assert_problem(self.hub.api("POST", path, raw=b"no"), 400, "invalid request body")
        for body in ({}, {"change_id": ""}, {"disk_id": 0}):
            problem = self.assert_problem(self.hub.api("POST", path, body), 400, "missing change_id")
            self.assertEqual(problem["details"], "change_id field is required")
        self.assertEqual(self.job(job["backup_id"])["status"], "running")

    def test_without_a_disk_id_the_connected_disk_is_meant(self):
        """A18 client 1.0.1 says no disk"""
        job = self.two_disks()
        handle = self.connect(job, 1)
        self.assertEqual(self.complete_ok(job, "u1/1")["disk_id"], 1)
        del handle
        handle = self.connect(job, 0)
        del handle  # no longer connected, but connected last
        self.assertEqual(self.complete_ok(job, "u0/1")["disk_id"], 0)

    def test_a_sealed_disk_refuses_writes_and_still_reads(self):
        """A24 D7"""
        job = self.two_disks()
        handle = self.connect(job, 0)
        handle.pwrite(b"kept", 0)
        self.complete_ok(job, "u0/1", 0)
        with self.assertRaises(nbd.Error) as refusal:
            handle.pwrite(b"late", 0)
        self.assertEqual(refusal.exception.errno, "EPERM")
        self.assertEqual(bytes(handle.pread(4, 0)), b"kept")

    def test_a_200_does_not_wait_for_connections_to_close(self):
        """A19 A45 the client's first connection is open while complete is posted"""
        self.register("vm", [MIB])
        job = self.start("vm")
        idle, data = self.connect(job), self.connect(job)
        data.pwrite(b"x" * 512, 512)
        self.complete_ok(job, "u/1", 0)
        self.assertEqual(self.job(job["backup_id"])["status"], "completed")
        qemu.check(self.images("vm")[0])
        del idle

    def test_the_next_incremental_starts_while_the_old_client_still_hangs_on(self):
        """A19 A45 a leaked connection of the last job does not lock the new parent"""
        self.register("vm", [MIB])
        job = self.start("vm")
        leaked = self.connect(job)
        leaked.pwrite(b"first", 0)
        self.complete_ok(job, "u/1", 0)
        second = self.start("vm", "incremental")
        self.assertEqual(bytes(self.connect(second).pread(5, 0)), b"first")
        del leaked

    def test_after_the_jobs_end_the_export_is_gone_and_ports_come_back(self):
        """A11 exports and ports of a job that ended"""
        self.register("vm", [MIB])
        job = self.start("vm")
        handle = self.connect(job)
        self.complete_ok(job, "u/1", 0)
        with self.assertRaises(nbd.Error):
            self.connect(job)
        self.assert_nothing_left()
        with self.assertRaises(nbd.Error):
            handle.pwrite(b"x", 0)


class TelemetryIsProgressOnly(HubCase):
    def send(self, job, **values):
        return self.hub.api("POST", f"/telemetry/backup/{job['backup_id']}", values)

    def test_completed_never_ends_a_job(self):
        """A20 only `complete` does"""
        self.register("vm", [MIB, MIB])
        job = self.start("vm")
        answer = self.send(job, status="completed", current_phase="completed", progress_percent=100.0)
        self.assertEqual((answer.status, answer.body["status"]), (200, "success"))
        self.assertEqual(answer.body["message"], "Telemetry received and processed")
        self.write_and_complete(job, 0, "u0/1")
        self.send(job, status="completed", progress_percent=100.0)
        seen = self.job(job["backup_id"])
        self.assertEqual((seen["status"], seen["state"]), ("running", "running"))
        self.assertLess(seen["progress_percent"], 100)
        self.assertEqual(self.chain("vm")["backups"], [])
        self.write_and_complete(job, 1, "u1/1")

    def test_values_are_shown_and_empty_ones_do_not_overwrite(self):
        """A32 2.12"""
        self.register("vm", [MIB])
        job = self.start("vm")
        self.send(job, status="running", current_phase="transferring", total_bytes=5000, transfer_speed_bps=77)
        self.send(job, status="running", current_phase="", total_bytes=0)
        seen = self.job(job["backup_id"])
        self.assertEqual(
            (seen["current_phase"], seen["total_bytes"], seen["transfer_speed_bps"]), ("transferring", 5000, 77)
        )
        self.assertIn("last_telemetry_at", seen)

    def test_a_failure_told_by_the_client_fails_the_job_with_its_message(self):
        """A15 A32 2.12"""
        for body in ({"status": "failed", "error": {"message": "VDDK gone"}}, {"error": {"message": "VDDK gone"}}):
            with self.subTest(body=body):
                name = f"vm{len(self.node.calls)}"
                self.register(name, [MIB])
                job = self.start(name)
                self.assertEqual(self.send(job, **body).status, 200)
                failed = self.wait_for_status(job["backup_id"], "failed")
                self.assertIn("VDDK gone", failed["error_message"])
                self.assert_nothing_left()

    def test_telemetry_after_the_end_is_accepted_and_ignored(self):
        """A32 2.12"""
        self.register("vm", [MIB])
        job = self.quick_backup("vm", ["u/1"])
        before = self.job(job["backup_id"])
        self.assertEqual(self.send(job, status="failed", error={"message": "late"}).status, 200)
        self.assertEqual(self.job(job["backup_id"]), before)

    def test_wrong_telemetry_is_refused(self):
        """A32 2.12"""
        self.register("vm", [MIB])
        job = self.start("vm")
        bad = self.hub.api("POST", f"/telemetry/backup/{job['backup_id']}", raw=b"{")
        self.assert_problem(bad, 400, "Invalid request body")
        self.assert_problem(self.send({"backup_id": "backup-no-1"}, status="running"), 404, "job not found")


class Cancel(HubCase):
    def cancel(self, job_id, body=None):
        return self.hub.api("POST", f"/backups/{job_id}/cancel", body)

    def test_a_running_job_is_cancelled_and_leaves_nothing(self):
        """A48 2.8"""
        self.register("vm", [MIB, MIB])
        job = self.start("vm")
        handle = self.connect(job, 1)
        handle.pwrite(b"x" * 4096, 0)
        self.write_and_complete(job, 0, "u0/1")
        answer = self.cancel(job["backup_id"], {"reason": "maintenance"})
        self.assertEqual(answer.status, 200, answer)
        self.assertEqual((answer.body["status"], answer.body["message"]), ("cancelled", "backup cancelled"))
        seen = self.job(job["backup_id"])
        self.assertEqual((seen["status"], seen["state"]), ("cancelled", "cancelled"))
        self.assertIn("maintenance", seen["error_message"])
        with self.assertRaises(nbd.Error):
            handle.pwrite(b"x", 0)
        self.assert_nothing_left()
        self.assertEqual(self.chain("vm")["backups"], [])
        self.assert_problem(self.complete(job, "u1/1", 1), 409, "backup is not running", "job_not_running")

    def test_a_second_cancel_is_the_same_as_the_first(self):
        """A48 already cancelled"""
        self.register("vm", [MIB])
        job = self.start("vm")
        self.assertEqual([self.cancel(job["backup_id"]).status for _ in range(2)], [200, 200])

    def test_completed_and_unknown_jobs_cannot_be_cancelled(self):
        """A48 404 and 409"""
        self.register("vm", [MIB])
        job = self.quick_backup("vm", ["u/1"])
        self.assert_problem(self.cancel(job["backup_id"]), 409, "backup is not running")
        self.assert_problem(self.cancel("backup-no-1"), 404, "backup not found")

    def test_the_next_job_of_the_vm_works(self):
        """A15 A48"""
        self.register("vm", [MIB])
        self.cancel(self.start("vm")["backup_id"])
        self.quick_backup("vm", ["u/1"])
        self.cancel(self.start("vm", "incremental")["backup_id"])
        self.quick_backup("vm", ["u/2"], "incremental")
        self.assertEqual(self.chain("vm")["backup_count"], 2)


class OneJobPerVm(HubCase):
    def test_a_second_job_of_a_vm_is_refused_and_other_vms_go_on(self):
        """A43 one active job per VM"""
        for number in range(5):
            self.register(f"vm{number}", [MIB])
        jobs = [self.start(f"vm{number}") for number in range(5)]
        problem = self.assert_problem(self.post("vm0"), 409, "backup already running", "backup_running")
        self.assertIn(jobs[0]["backup_id"], problem["details"] + problem.get("backup_id", ""))
        for job in jobs:
            self.write_and_complete(job, 0, "u/1")

    def test_two_starts_at_the_same_moment_give_one_job(self):
        """A43 race"""
        self.register("vm", [MIB])
        answers = []
        posts = [threading.Thread(target=lambda: answers.append(self.post("vm").status)) for _ in range(4)]
        for post in posts:
            post.start()
        for post in posts:
            post.join()
        self.assertEqual(sorted(answers), [200, 409, 409, 409])


if __name__ == "__main__":
    run.main()
