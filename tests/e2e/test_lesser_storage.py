#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Backups onto a file system that lacks what local ones have: no RENAME_NOREPLACE, no hard links.

A FUSE file system of the tests' own (support/lesser_file_system.cc); skipped, with the reason, where
it cannot be built or mounted.
"""

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import qemu, run, scratch  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.lesser_mount import LesserMount  # noqa: E402


class LesserStorage(LesserMount, HubCase):
    def back_up_and_restart(self):
        self.register("vm", [8 * MIB])
        self.quick_backup("vm", ["u/1"], writes=[(0, b"first" * 1000), (4 * MIB, b"\x5a" * MIB)], repository_id="lesser")
        self.quick_backup("vm", ["u/2"], "incremental", writes=[(MIB, b"second" * 1000)], repository_id="lesser")
        images = self.images("vm", repository_id="lesser")
        self.assertEqual(len(images), 2)
        self.hub.kill()
        self.hub.start()
        self.assertEqual(self.images("vm", repository_id="lesser"), images)
        content = bytearray(8 * MIB)
        content[:5000] = b"first" * 1000
        content[4 * MIB : 5 * MIB] = b"\x5a" * MIB
        self.verify(images[0], content)
        content[MIB : MIB + 6000] = b"second" * 1000
        self.verify(images[1], content)
        self.assertEqual(list(self.files.rglob("*.partial")), [])
        self.assertEqual(list(self.files.rglob("*.new")), [])

    def verify(self, image, content):
        raw = self.dir / "expected.raw"
        raw.write_bytes(content)
        qemu.verify(self.below(image), raw)  # below: qemu cannot do without locks

    def test_a_chain_is_written_where_rename_takes_no_flags(self):
        self.mount("--no-rename-flags")
        self.back_up_and_restart()

    def test_a_chain_is_written_where_there_are_no_hard_links_either(self):
        self.mount("--no-rename-flags", "--no-hard-links", "--no-symlinks")
        self.back_up_and_restart()

    def test_a_chain_is_written_without_direct_access_space_ahead_and_locks(self):
        self.mount("--no-rename-flags", "--no-direct", "--no-allocate", "--no-punch", "--no-locks")
        self.back_up_and_restart()

    def test_what_is_missing_is_reported_and_kept(self):
        self.mount("--no-locks", "--no-punch")
        for method, path in (("POST", "/repositories/lesser/test"), ("GET", "/repositories/lesser")):
            answer = self.hub.api(method, path).body
            found = answer.get("repository", answer)["capabilities"]
            missing = {name for name, ability in found.items() if not ability["supported"]}
            self.assertEqual(missing, {"locks", "punch_holes"}, found)
            self.assertTrue(all(found[name]["consequence"] for name in missing), found)

    def test_one_that_does_not_answer_is_unavailable_and_stops_nothing_else(self):
        self.mount()
        self.register("vm", [MIB])
        self.register("other", [MIB])
        backup = self.quick_backup("vm", ["u/1"], repository_id="lesser")["backup_id"]
        answer = self.hub.api("POST", "/restores", {"backup_id": backup, "disk_id": 0, "mode": "writable"})
        self.assertEqual(answer.status, 201, answer)
        stuck = self.start("vm", repository_id="lesser")
        server = self.server_of_the_mount()
        self.addCleanup(os.kill, server, signal.SIGCONT)
        os.kill(server, signal.SIGSTOP)

        def cause():
            answer = self.hub.get("/repositories/lesser").body
            return answer.get("repository", answer).get("unavailable_reason", "")

        scratch.wait_until(lambda: "does not answer" in cause(), 40, "the silent repository is unavailable")
        self.quick_backup("other", ["o/1"])
        self.assertEqual(self.post("vm", "incremental", "lesser").status, 503)
        self.assertEqual(len(self.hub.get("/restores").body["restores"]), 1, "listed without a look at its overlay")
        os.kill(server, signal.SIGCONT)
        scratch.wait_until(lambda: not cause(), 40, "the repository is available again")
        self.write_and_complete(stuck, 0, "u/2")
        self.assertEqual(self.job(stuck["backup_id"])["status"], "completed")

    def test_a_file_system_that_loses_bytes_is_not_registered(self):
        with self.assertRaisesRegex(AssertionError, "find what was written in"):
            self.mount("--wrong-bytes")


class ScrubOfLesserStorage(LesserMount, HubCase):
    """A read of an image on the FUSE file system does not end, and a scrub waits for it."""

    options = {"scrub_interval": "1s"}
    BOUND = 20  # the end of the scrub is waited for 10 s

    def setUp(self):
        super().setUp()
        self.mount()
        for vm_name in ("vm", "other"):
            self.register(vm_name, [MIB])
        self.other = self.quick_backup("other", ["o/1"])["backup_id"]
        self.read = self.quick_backup("vm", ["u/1"], repository_id="lesser")["backup_id"]
        self.stuck = self.dir / "files.stuck"
        self.stuck.touch()
        self.addCleanup(self.stuck.unlink, missing_ok=True)
        self.scrub = scratch.wait_until(self.stuck_scrub, 30, "a scrub whose read does not end")

    def running(self):
        tasks = self.hub.get("/verifications").body["verifications"]
        return next((task["verification_id"] for task in tasks if task["state"] == "running"), None)

    def stuck_scrub(self):
        before = self.running()
        time.sleep(2)
        return before if before and self.running() == before else None

    def in_time(self, method, path, body=None):
        begun = time.monotonic()
        answer = self.hub.api(method, path, body)
        self.assertLess(time.monotonic() - begun, self.BOUND, answer)
        return answer

    def test_a_deletion_of_another_image_goes_on_and_one_of_this_is_refused_until_the_storage_answers(self):
        self.assertEqual(self.in_time("DELETE", f"/backups/{self.other}").status, 200)
        refused = self.in_time("DELETE", f"/backups/{self.read}")
        self.assertEqual((refused.status, refused.body["code"]), (409, "backup_is_in_use"), refused)
        self.assertIn(f"verification '{self.scrub}' was cancelled and still reads it", refused.body["details"])
        self.stuck.unlink()
        scratch.wait_until(lambda: self.running() != self.scrub, 20, "the read has ended, and the scrub with it")
        self.assertEqual(self.in_time("DELETE", f"/backups/{self.read}").status, 200)

    def test_a_request_is_refused_and_a_cancellation_answers(self):
        refused = self.in_time("POST", "/verifications", {"vm_name": "other"})
        self.assertEqual((refused.status, refused.body["code"]), (409, "verification_is_running"), refused)
        answer = self.in_time("DELETE", f"/verifications/{self.scrub}")
        self.assertEqual((answer.status, answer.body["state"]), (200, "running"), answer)
        self.stuck.unlink()
        scratch.wait_until(lambda: self.running() != self.scrub, 20, "the read has ended, and the scrub with it")
        self.assertEqual(self.hub.get(f"/verifications/{self.scrub}").body["state"], "cancelled")


if __name__ == "__main__":
    run.main()
