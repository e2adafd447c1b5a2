#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""varve serve is killed while a point is copied out: the target is whole or absent, a second try works."""

import random
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run, scratch  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.daemon import binary  # noqa: E402
from test_recoveries import Recoveries  # noqa: E402
from test_restore import Restores  # noqa: E402

SIZE = 128 * MIB


class KilledInTheMidst(HubCase):
    def setUp(self):
        super().setUp()
        self.content = random.Random(3).randbytes(SIZE)
        self.register("vm", [SIZE])
        writes = [(at, self.content[at : at + 16 * MIB]) for at in range(0, SIZE, 16 * MIB)]
        self.point = self.quick_backup("vm", ["u/1"], writes=writes)
        self.target = self.dir / "out.raw"

    def kill_in_the_midst(self):
        partial = Path(f"{self.target}.partial")
        scratch.wait_until(lambda: partial.exists() and scratch.allocated_bytes(partial) > MIB, 20, "it is copied")
        self.hub.kill()
        self.assertFalse(self.target.exists(), "the kill came too late")

    def assert_whole(self):
        self.assertTrue(self.target.read_bytes() == self.content)
        self.assertEqual(list(self.dir.glob("out.raw.*")), [])


class Copied(KilledInTheMidst, Restores):
    def interrupt(self):
        copies = subprocess.Popen([binary(), "restore", "vm", "--to", str(self.target), "--server", self.hub.url],
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
        self.addCleanup(copies.stdout.close)
        self.addCleanup(scratch.end_process, copies)
        self.kill_in_the_midst()
        said, _ = copies.communicate(timeout=60)
        self.assertEqual(copies.returncode, 1, said)
        self.assertFalse(self.target.exists())
        self.hub.restart()

    def test_a_copy_that_lost_its_server_leaves_no_target_and_is_continued(self):
        self.interrupt()
        self.restore("vm", "--to", self.target, status=11)  # neither begun anew nor lost without a word
        start, *_ = self.events("vm", "--to", self.target, "--resume")
        self.assertEqual(start["event"], "start")
        self.assert_whole()

    def test_a_copy_that_lost_its_server_is_begun_anew_when_that_is_said(self):
        self.interrupt()
        self.restore("vm", "--to", self.target, "--force")
        self.assert_whole()


class PromotedThen(KilledInTheMidst, Recoveries):
    def test_a_promotion_that_was_killed_has_failed_left_nothing_and_works_the_second_time(self):
        made = self.restore(self.point["backup_id"], disk_id=0)
        path = f"/restores/{made['restore_id']}"
        self.assertEqual(self.hub.api("POST", f"{path}/promote", {"path": str(self.target)}).status, 202)
        self.kill_in_the_midst()
        self.hub.restart()
        self.assertEqual(self.hub.get(path).body["promotion"]["state"], "failed")
        self.assertEqual(list(self.dir.glob("out.raw*")), [])
        ended = self.promoted(made["restore_id"], self.target)
        self.assertEqual(ended["state"], "completed", ended)
        self.assert_whole()


if __name__ == "__main__":
    run.main()
