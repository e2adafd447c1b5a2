#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 in every state: a restart is the recovery."""

import random
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import qemu, run, sources  # noqa: E402
from harness.case import MIB, HubCase, rounds  # noqa: E402

RESTARTED = "server restarted during backup"
RANDOM_KILLS = rounds(6, 60)


class Crash(HubCase):
    def kill_and_restart(self):
        self.hub.kill()
        self.hub.restart()
        self.starter.api_url = self.hub.url

    def assert_recovered(self, job_id, points):
        """The job is failed, nothing stray is left, the published points are as before."""
        job = self.job(job_id)
        self.assertEqual((job["status"], job["error_message"]), ("failed", RESTARTED))
        self.assert_nothing_left()
        self.assertEqual(self.hub.root("/readyz").status, 200)
        self.assertEqual(self.chain("vm")["backup_count"], points)
        for image in self.images("vm"):
            qemu.check(image)

    def vm_with_a_full(self):
        self.register("vm", [MIB, MIB])
        self.quick_backup("vm", ["u0/1", "u1/1"], writes=[(0, b"full" * 4096)])

    def test_inside_the_call_to_the_node(self):
        """A4 A35 preparing: after a restart the job is failed, not lost"""
        self.vm_with_a_full()
        self.node.on_start = lambda body: self.hub.kill()
        with self.assertRaises(OSError):
            self.post("vm", "incremental")
        self.node.on_start = None
        self.hub.restart()
        self.assert_recovered(self.node.calls[-1]["job_id"], 1)
        self.quick_backup("vm", ["u0/2", "u1/2"], "incremental")

    def test_before_the_client_connects(self):
        """A35 running, disks pending"""
        self.vm_with_a_full()
        job = self.start("vm", "incremental")
        self.kill_and_restart()
        self.assert_recovered(job["backup_id"], 1)
        self.quick_backup("vm", ["u0/2", "u1/2"], "incremental")

    def test_in_mid_transfer(self):
        """A35 disk transferring"""
        self.vm_with_a_full()
        job = self.start("vm", "incremental")
        handle = self.connect(job)
        handle.pwrite(b"x" * 65536, 1000)
        self.kill_and_restart()
        del handle
        self.assert_recovered(job["backup_id"], 1)
        self.quick_backup("vm", ["u0/2", "u1/2"], "incremental")

    def test_between_the_two_completes(self):
        """A35 A50 one disk sealed: never published in part"""
        self.vm_with_a_full()
        job = self.start("vm", "incremental")
        self.write_and_complete(job, 0, "u0/2")
        self.kill_and_restart()
        self.assert_recovered(job["backup_id"], 1)
        self.assertEqual(self.hub.get("/backups/changeid", vm_name="vm", disk_id=0).body["change_id"], "u0/1")
        self.quick_backup("vm", ["u0/3", "u1/3"], "incremental")
        self.assertEqual(self.chain("vm", 1)["backup_count"], 2)

    def test_right_after_the_last_200(self):
        """A23 everything promised by the answer is on disk"""
        disks = sources.make_sources(self.dir, [48 * MIB, 32 * MIB])
        self.register("vm", [48 * MIB, 32 * MIB])
        for kind in ("full", "incremental", "incremental"):
            job, client = self.launch_client("vm", disks, kind)
            client.wait_for("complete", 2)
            self.kill_and_restart()
            client.wait()
            done = self.job(job["backup_id"])
            self.assertEqual((done["status"], done["change_id"]), ("completed", disks[0].change_id))
            self.assert_points_equal_sources("vm", disks)
            for disk in disks:
                disk.advance(17 + disk.number)

    def test_around_the_last_complete_all_disks_are_published_or_none(self):
        """A50 A35 kill at any moment of seal and publish"""
        self.register("vm", [MIB] * 3)
        self.quick_backup("vm", [f"u{n}/1" for n in range(3)])
        points = 1
        for number in range(2, 10):
            job = self.start("vm", "incremental")
            for index in range(2):
                self.write_and_complete(job, index, f"u{index}/{number}")
            handle = self.connect(job, 2)
            handle.pwrite(b"y" * 4096, 0)
            call = threading.Thread(target=self.complete_unheard, args=(job, f"u2/{number}"))
            call.start()
            time.sleep(number * 0.002)
            self.kill_and_restart()
            call.join()
            del handle
            status = self.job(job["backup_id"])["status"]
            self.assertIn(status, ("completed", "failed"))
            points += status == "completed"
            for index in range(3):
                self.assertEqual(self.chain("vm", index)["backup_count"], points)
                for image in self.images("vm", index):
                    qemu.check(image)
            self.assert_nothing_left()

    def test_a_complete_that_is_asked_again_after_a_kill_has_the_same_answer(self):
        """the client cannot know whether the first answer was lost"""
        self.register("vm", [MIB, MIB])
        for number, kind in enumerate(("full", "incremental"), 1):
            job = self.start("vm", kind)
            answers = [self.write_and_complete(job, index, f"u{index}/{number}") for index in range(2)]
            self.kill_and_restart()
            for index, first in enumerate(answers):
                for _ in range(2):
                    again = self.complete_ok(job, f"u{index}/{number}", index)
                    # What the job has come to since is told as it is now, as the last answer told it.
                    now = {name: answers[-1][name] for name in ("disks_completed", "job_status")}
                    self.assertEqual(again, {**first, **now, "timestamp": again["timestamp"]})
                self.assertEqual(self.complete(job, "u/another", index).status, 409)
                self.assertEqual(self.chain("vm", index)["backup_count"], number)
        self.assert_nothing_left()

    def complete_unheard(self, job, change_id):
        try:
            self.complete(job, change_id, 2)
        except OSError:
            pass  # the answer died with the process

    def test_at_random_moments_of_a_real_copy(self):
        """A35 N random kills; published points stay equal, the next job works"""
        disks = sources.make_sources(self.dir, [96 * MIB])
        self.register("vm", [96 * MIB])
        self.client_backup("vm", disks)
        dice = random.Random(35)
        for _ in range(RANDOM_KILLS):
            disks[0].advance(dice.random())
            job, client = self.launch_client("vm", disks, dice.choice(["full", "incremental"]))
            time.sleep(dice.random() * 0.6)
            self.kill_and_restart()
            client.kill()
            self.assertIn(self.job(job["backup_id"])["status"], ("failed", "completed"))
            self.assert_nothing_left()
            self.assert_points_equal_sources("vm", disks, generation=1)
        self.client_backup("vm", disks, "incremental")
        self.assert_points_equal_sources("vm", disks)

    def test_files_of_other_programs_survive_and_orphans_of_varve_do_not(self):
        """A35 files in the repository"""
        self.vm_with_a_full()
        folder = self.images("vm")[0].parent
        note = folder / "operators-note.txt"
        note.write_text("keep me")
        orphan = folder / "backup-vm-disk0-20200101-000000.qcow2.partial"
        qemu.create(orphan, MIB)
        self.kill_and_restart()
        self.assertTrue(note.exists())
        self.assertFalse(orphan.exists())


if __name__ == "__main__":
    run.main()
