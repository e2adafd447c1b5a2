#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Storage that fills up, and parents that are damaged, missing or locked."""

import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import nbd  # noqa: E402
from harness import qemu, run, scratch  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402

SMALL_FS_BYTES = 64 * MIB


class FullDisk(HubCase):
    def setUp(self):
        if os.geteuid() != 0:
            self.skipTest("a loop mount needs root")
        super().setUp()
        self.mount = self.dir / "small"
        self.mount.mkdir()
        self.mount_small_filesystem()
        body = {
            "id": "small", "name": "small", "type": "local", "enabled": True, "config": {"path": str(self.mount)},
        }  # fmt: skip
        answer = self.hub.api("POST", "/repositories", body)
        self.assertEqual(answer.status, 201, answer)

    def mount_small_filesystem(self):
        image = self.dir / "small.img"
        with open(image, "wb") as file:
            file.truncate(SMALL_FS_BYTES)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-m", "0", image], check=True)
        mounted = subprocess.run(["mount", "-o", "loop", image, self.mount], capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            self.skipTest(f"no loop mount here: {mounted.stderr.strip()}")
        # The daemon holds files there: it has to end before the mount can go.
        self.addCleanup(lambda: (self.hub.close(), subprocess.run(["umount", self.mount], check=True)))

    def test_enospc_reaches_the_client_fails_the_job_and_leaves_others_alone(self):
        """A46 a full file system"""
        self.register("big", [256 * MIB])
        self.register("other", [8 * MIB])
        other = self.start("other")
        steady = self.connect(other)
        job = self.start("big", repository_id="small")
        handle = self.connect(job)
        with self.assertRaises(nbd.Error) as refusal:
            for number in range(32):
                handle.pwrite(os.urandom(8 * MIB), number * 8 * MIB)
            handle.flush()
        self.assertEqual(refusal.exception.errno, "ENOSPC")
        failed = self.wait_for_status(job["backup_id"], "failed")
        self.assertRegex(failed["error_message"].lower(), "space|enospc")
        steady.pwrite(b"still here", 0)
        self.complete_ok(other, "u/1", 0)
        self.assert_nothing_left()
        self.assertFalse(list(self.mount.rglob("*.qcow2*")))
        self.register("tiny", [MIB])
        room = lambda: os.statvfs(self.mount).f_bavail * os.statvfs(self.mount).f_bsize > SMALL_FS_BYTES // 2  # noqa: E731
        scratch.wait_until(room, 10, "the failed job's space is free again")
        self.quick_backup("tiny", ["u/1"], repository_id="small")

    def test_a_repository_without_room_refuses_the_start(self):
        """A2 row no_space"""
        self.register("vm", [MIB])
        free = os.statvfs(self.mount)
        with open(self.mount / "ballast", "wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, free.f_bavail * free.f_bsize - 256 * 1024)
        answer = self.post("vm", repository_id="small")
        problem = self.assert_problem(answer, 507, "insufficient space in repository", "no_space")
        self.assertRegex(problem["details"], r"\d+ bytes free")
        self.assertEqual(self.node.calls, [])
        self.assert_nothing_left()


class DamagedParent(HubCase):
    def setUp(self):
        super().setUp()
        self.register("vm", [MIB])
        self.quick_backup("vm", ["u/1"], writes=[(0, b"parent" * 1000)])
        self.parent = self.images("vm")[0]

    def refused(self, *reasons):
        problem = self.assert_problem(
            self.post("vm", "incremental"), 500, "failed to prepare backup disk", "prepare_failed"
        )
        self.assertIn(self.parent.name, problem["details"])
        self.assertTrue(any(reason in problem["details"].lower() for reason in reasons), problem["details"])
        self.assert_nothing_left()
        self.assertEqual(self.hub.get("/backups", status="failed").body["total"], 1)

    def test_a_flipped_header_byte_is_refused(self):
        """A47"""
        with open(self.parent, "r+b") as image:
            image.write(b"X")
        self.refused("magic", "qcow2", "header")

    def test_an_incompatible_feature_in_the_parent_is_refused(self):
        """A47 corrupt bit"""
        with open(self.parent, "r+b") as image:
            image.seek(79)
            image.write(b"\x02")
        self.refused("corrupt")

    def test_a_missing_parent_is_refused(self):
        """A47"""
        self.parent.rename(self.parent.with_suffix(".away"))
        self.refused("no such file", "missing", "not found")

    def test_a_parent_that_another_program_writes_is_refused(self):
        """A47 foreign lock"""
        socket_path = self.dir / "qemu.sock"
        holder = subprocess.Popen(["qemu-nbd", "-f", "qcow2", "-t", "-k", socket_path, self.parent])
        self.addCleanup(scratch.end_process, holder)
        scratch.wait_until(socket_path.exists, 10, "qemu-nbd holds the image")
        self.refused("lock", "use")

    def test_a_full_backup_still_works_then(self):
        """A47 A15 the way out"""
        self.parent.rename(self.parent.with_suffix(".away"))
        self.quick_backup("vm", ["u/5"])
        qemu.check(self.images("vm")[0])


class Rollback(HubCase):
    """A start fails at its second disk, when the first one is ready."""

    def fails(self, kind="full"):
        problem = self.assert_problem(self.post("vm", kind), 500, "failed to prepare backup disk", "prepare_failed")
        self.assertRegex(problem["details"], "^disk 1 ")
        self.assertEqual(self.job(problem["backup_id"])["status"], "failed")
        self.assert_nothing_left()

    def test_a_directory_that_cannot_be_made_takes_the_first_disk_back(self):
        """A14 image creation of disk 1"""
        self.register("vm", [MIB, MIB])
        context = self.hub.get("/vm-contexts/vm").body["context"]["context_id"]
        blocker = self.hub.repository / context / "disk-1"
        blocker.parent.mkdir(parents=True)
        blocker.write_text("a file where a directory must be")
        self.fails()
        self.assertEqual(self.node.calls, [])
        self.assertFalse(list(self.hub.repository.rglob("*.qcow2*")))
        blocker.unlink()
        self.quick_backup("vm", ["u0/1", "u1/1"])

    def test_a_missing_parent_of_the_second_disk_takes_the_first_overlay_back(self):
        """A14 A47 parent of disk 1"""
        self.register("vm", [MIB, MIB])
        self.quick_backup("vm", ["u0/1", "u1/1"])
        calls = len(self.node.calls)
        parent = self.images("vm", 1)[0]
        away = parent.rename(parent.with_suffix(".away"))
        self.fails("incremental")
        self.assertEqual(len(self.node.calls), calls)
        self.assertEqual(self.chain("vm", 0)["backup_count"], 1)
        away.rename(parent)
        self.quick_backup("vm", ["u0/2", "u1/2"], "incremental")


class Locks(HubCase):
    def test_an_image_being_filled_shows_itself_only_to_unlocked_readers(self):
        """A17 locks"""
        self.register("vm", [MIB])
        job = self.start("vm")
        partial = Path(job["disk_results"][0]["qcow2_path"] + ".partial")
        scratch.wait_until(partial.exists, 5, "the image being filled")
        self.assertEqual(qemu.info(partial, shared=True)["virtual-size"], MIB)
        plain = subprocess.run(["qemu-img", "info", partial], capture_output=True, text=True, check=False)
        self.assertIn("lock", plain.stderr)

    def test_published_points_can_be_read_by_qemu_while_they_are_parents(self):
        """A17 LK2; a parent is never written"""
        self.register("vm", [MIB])
        self.quick_backup("vm", ["u/1"], writes=[(0, b"base" * 512)])
        parent = self.images("vm")[0]
        before = parent.read_bytes()
        job = self.start("vm", "incremental")
        handle = self.connect(job)
        handle.pwrite(b"new", 1)
        qemu.check(parent)
        time.sleep(1.2)  # longer than the commit interval
        self.complete_ok(job, "u/2", 0)
        self.assertEqual(parent.read_bytes(), before)


if __name__ == "__main__":
    run.main()
