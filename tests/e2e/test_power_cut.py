#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The power of a real file system is cut: what was acknowledged is there afterwards.

ext4 on a loop device, with repository and catalogue, goes down without writing its journal out;
what only the page cache knew is gone. Skipped, with the reason, where the machine allows no mount.
"""

import fcntl
import os
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import loop_mount, qemu, run  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from test_trouble import GOING_DOWN, GOING_DOWN_NOW  # noqa: E402

SIZE = 8 * MIB


class PowerCut(HubCase):
    def setUp(self):
        reason = loop_mount.why_not()
        if reason:
            self.skipTest(reason)
        super().setUp()
        self.hub.stop()
        self.disk = loop_mount.LoopMount(self.dir, 256 * MIB)
        self.addCleanup(self.disk.unmount)
        self.addCleanup(self.hub.close)  # it holds files there
        self.hub.repository = self.hub.options["repository"] = self.disk.path / "repository"
        self.hub.options["catalogue"] = self.disk.path / "catalogue.db"
        self.hub.restart()
        self.starter.api_url = self.hub.url
        self.register("vm", [SIZE])
        self.content = bytearray(SIZE)
        self.raw = self.dir / "expected.raw"

    def cut_power(self):
        directory = os.open(self.disk.path, os.O_RDONLY)
        fcntl.ioctl(directory, GOING_DOWN, struct.pack("I", GOING_DOWN_NOW))
        os.close(directory)
        self.hub.kill()
        self.disk.remount()
        self.hub.restart()

    def write(self, job):
        handle, data, offset = self.connect(job), os.urandom(MIB + 512), os.urandom(1)[0] * 4096
        handle.pwrite(data, offset)
        return handle, offset, data

    def back_up(self, kind, number):
        job = self.start("vm", kind)
        handle, offset, data = self.write(job)
        self.complete_ok(job, f"u/{number}", 0)
        self.content[offset : offset + len(data)] = data
        del handle
        return job

    def assert_newest_is(self, job, count):
        chain = self.chain("vm")
        self.assertEqual((chain["latest_backup_id"], chain["backup_count"]), (job["backup_id"], count))
        for image in self.images("vm"):
            qemu.check(image)
        self.raw.write_bytes(self.content)
        qemu.compare(self.raw, self.images("vm")[-1])
        self.assertEqual(self.stray_files(), [])

    def test_what_nobody_synced_is_lost_so_this_cut_is_one(self):
        (self.disk.path / "unsynced").write_bytes(b"x" * MIB)
        self.cut_power()
        self.assertFalse((self.disk.path / "unsynced").exists())

    def test_a_complete_that_was_acknowledged_survives_a_cut_right_after_it(self):
        for number in range(1, 5):
            job = self.back_up("incremental" if number > 1 else "full", number)
            self.cut_power()
            self.assertEqual(self.job(job["backup_id"])["status"], "completed")
            self.assert_newest_is(job, number)

    def test_a_cut_amid_a_backup_leaves_the_point_before_it_and_nothing_of_its_own(self):
        published = self.back_up("full", 1)
        for flushed in (False, True):
            cut = self.start("vm", "incremental")
            handle, *_ = self.write(cut)
            if flushed:
                handle.flush()
            self.cut_power()
            self.assertEqual(self.job(cut["backup_id"])["status"], "failed")
            self.assert_newest_is(published, 1)
        self.assert_newest_is(self.back_up("incremental", 2), 2)


if __name__ == "__main__":
    run.main()
