#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A quota that is used up: EDQUOT, while the file system itself has space.

A btrfs of its own on a loop device, whose quota groups need nothing else of the kernel; skipped, with
the reason, where it cannot be made.
"""

import os
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import nbd  # noqa: E402
from harness import qemu, run, scratch  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402

FS_BYTES = 256 * MIB
QUOTA = 24 * MIB


class Quota(HubCase):
    """Repository `limited` is a subvolume that may hold 24 MiB of 256."""

    options = {"space_reserve": "0"}

    def setUp(self):
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest("a loop mount needs root")
        image, self.mount = self.dir / "quota.img", self.dir / "mount"
        self.mount.mkdir()
        with open(image, "wb") as file:
            file.truncate(FS_BYTES)
        self.command("mkfs.btrfs", "-q", image)
        self.command("mount", "-o", "loop", image, self.mount)
        self.addCleanup(subprocess.run, ["umount", self.mount], check=True)
        self.addCleanup(self.hub.close)  # it holds files there
        self.path = self.mount / "limited"
        self.command("btrfs", "quota", "enable", self.mount)
        self.command("btrfs", "subvolume", "create", self.path)
        self.command("btrfs", "qgroup", "limit", QUOTA, self.path)
        body = {"id": "limited", "name": "limited", "type": "local", "enabled": True, "config": {"path": str(self.path)}}
        answer = self.hub.api("POST", "/repositories", body)
        self.assertEqual(answer.status, 201, answer)

    def command(self, *words):
        try:
            done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            self.skipTest(f"{words[0]} is not installed")
        if done.returncode != 0:
            self.skipTest(f"no quota on btrfs here: {' '.join(map(str, words))}: {done.stderr}")

    def write_until_refused(self, handle):
        for offset in range(0, 2 * QUOTA, MIB):
            handle.pwrite(os.urandom(MIB), offset)
            handle.flush()

    def test_a_quota_that_is_used_up_fails_its_job_with_its_cause_and_harms_nothing_else(self):
        self.register("vm", [MIB])
        self.register("big", [64 * MIB])
        self.quick_backup("vm", ["u/1"], writes=[(0, b"published" * 100)], repository_id="limited")
        published = self.images("vm", repository_id="limited")[0]
        before = published.read_bytes()
        job = self.start("big", "full", "limited")
        with self.assertRaises(nbd.Error) as refusal:
            self.write_until_refused(self.connect(job))
        self.assertIn(refusal.exception.errno, ("ENOSPC", "ESHUTDOWN"))
        failed = self.wait_for_status(job["backup_id"], "failed")
        self.assertIn("quota", failed["error_message"].lower())
        self.assertEqual(published.read_bytes(), before)
        qemu.check(published)
        self.assertEqual(list(self.path.rglob("*.partial")), [])
        scratch.wait_until(lambda: self.succeeds("vm"), 30, "the failed job's space can be used again")

    def succeeds(self, vm):
        answer = self.post(vm, "incremental", "limited")
        if answer.status != 200:
            return False
        self.write_and_complete(answer.body, 0, "u/2", [(0, b"next")])
        return self.job(answer.body["backup_id"])["status"] == "completed"


if __name__ == "__main__":
    run.main()
