#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The domain, the hub or the pull dies during a `varve pull libvirt:DOMAIN`: see test_pull_deaths.py."""

import os
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import test_libvirt  # noqa: E402
from harness import run, scratch  # noqa: E402
from harness.daemon import binary  # noqa: E402
from harness.pull_ends import BeforeTheHub  # noqa: E402
from test_libvirt import VM  # noqa: E402


class Deaths(test_libvirt.Domains):
    slow_pull = test_libvirt.Pulls.slow_pull

    def begin_incremental(self):
        self.define()
        self.pull()
        [self.before] = self.session.checkpoints(VM)
        self.write(20)

    def assert_nothing_has_come(self):
        self.assertEqual(self.puller.wait(60), 1)
        self.assert_nothing_left()
        for index in range(2):
            self.assertEqual(self.chain(VM, index)["backup_count"], 1)
        self.assertEqual(self.session.checkpoints(VM), [self.before])

    def assert_next(self, kind, warning=""):
        self.write()
        events = self.pull()
        self.assertEqual(self.published(events)["backup_type"], kind, events)
        self.assertEqual(len(self.warnings(events)), 1 if warning else 0, events)
        self.assertIn(warning, "".join(self.warnings(events)))
        self.assert_newest_equals(self.flat)
        self.assertEqual(len(self.session.checkpoints(VM)), 1)

    def test_a_machine_that_dies_while_it_is_read_has_no_point_and_then_a_full_one(self):
        self.begin_incremental()
        self.slow_pull()
        os.kill(self.session.qemu_pid(VM), signal.SIGKILL)
        self.assert_nothing_has_come()
        self.session.start(VM)
        self.assert_next("full", "a full backup is made")

    def test_a_server_of_a_machine_that_is_off_dies(self):
        self.begin_incremental()
        self.session.virsh("destroy", VM, "--graceful")
        self.slow_pull()
        [server, *_] = Path(f"/proc/{self.puller.pid}/task/{self.puller.pid}/children").read_text().split()
        words = Path(f"/proc/{server}/cmdline").read_text().split("\0")
        directory = Path(words[words.index("--socket") + 1]).parent
        os.kill(int(server), signal.SIGKILL)
        self.assert_nothing_has_come()
        self.assertFalse(directory.exists())
        self.session.start(VM)
        self.assert_next("incremental")

    def test_a_hub_that_dies_while_it_is_written_to_has_no_point_and_then_an_incremental(self):
        self.begin_incremental()
        self.slow_pull()
        self.hub.kill()
        self.puller.wait(60)
        self.hub.start()
        self.assert_nothing_has_come()
        self.assert_next("incremental")

    def pull_with_a_strike_at_its_end(self, strike):
        """Comes when the backup is published, before the pull is told so. Returns the exit status."""
        front = BeforeTheHub(self.hub)
        self.addCleanup(front.close)
        self.begin_incremental()
        front.strike_at(len(self.images), "answer", strike, of="/complete")
        command = self.session.command(binary(), "pull", f"libvirt:{VM}", "--connect", "qemu:///session",
                                       "--server", front.url, "--server-patience", "10s")  # fmt: skip
        self.puller = subprocess.Popen(command, env=self.session.environment, stderr=subprocess.DEVNULL)
        self.addCleanup(scratch.end_process, self.puller)
        status = self.puller.wait(60)
        if self.hub.process.poll() is not None:
            self.hub.start()
        self.assert_nothing_left()
        self.assert_newest_equals(self.flat)
        self.assertEqual(self.chain(VM)["backup_count"], 2)
        return status

    def test_a_pull_that_dies_before_it_is_told_of_its_point(self):
        self.assertEqual(self.pull_with_a_strike_at_its_end(lambda: self.puller.kill()), -signal.SIGKILL)
        self.assert_next("incremental")

    def test_a_hub_that_comes_back_confirms_the_point(self):
        self.assertEqual(self.pull_with_a_strike_at_its_end(lambda: (self.hub.kill(), self.hub.start(), False)[2]), 0)
        self.assert_next("incremental")

    def test_a_hub_that_stays_away_has_a_point_that_the_pull_does_not_know(self):
        self.assertEqual(self.pull_with_a_strike_at_its_end(lambda: self.hub.kill()), 1)
        self.assert_next("full", "a full backup is made")


if __name__ == "__main__":
    run.main()
