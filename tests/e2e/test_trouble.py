#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Storage that fails under running jobs: full, below its reserve, read-only, dead, cut.

Small file systems of their own, mounted on loop devices; skipped, with the reason, where the
machine allows no mount.
"""

import contextlib
import fcntl
import os
import struct
import subprocess
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import nbd  # noqa: E402
from harness import image_server, loop_mount, nbd_wire, qemu, run, scratch  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402

FS_BYTES = 64 * MIB
GOING_DOWN = 0x8004587D  # ioctl of ext4 and xfs: from now on everything is EIO
GOING_DOWN_NOW = 2


class SmallRepository(HubCase):
    """Repository `small` lies on a file system of 64 MiB, repository `1` elsewhere."""

    mount_options = "loop"
    fs_bytes = FS_BYTES

    def setUp(self):
        self.skip_without_mount()
        super().setUp()
        self.small = loop_mount.LoopMount(self.dir, self.fs_bytes, self.mount_options)
        self.addCleanup(self.small.unmount)
        self.addCleanup(self.hub.close)  # it holds files there
        self.mount = self.small.path
        body = {"id": "small", "name": "small", "type": "local", "enabled": True, "config": {"path": str(self.mount)}}
        answer = self.hub.api("POST", "/repositories", body)
        self.assertEqual(answer.status, 201, answer)
        self.register("vm", [MIB])
        self.register("other", [8 * MIB])
        self.quick_backup("vm", ["u/1"], writes=[(0, b"published" * 100)], repository_id="small")
        self.published = self.images("vm")[0]
        self.before = self.published.read_bytes()

    def skip_without_mount(self):
        reason = loop_mount.why_not()
        if reason:
            self.skipTest(reason)

    def free(self):
        status = os.statvfs(self.mount)
        return status.f_bavail * status.f_frsize

    def ballast(self, leave):
        """Fills the file system but for `leave` bytes."""
        with open(self.mount / "ballast", "ab") as file:
            at = file.seek(0, os.SEEK_END)
            os.posix_fallocate(file.fileno(), at, self.free() - leave)

    def start_with_neighbour(self, vm="vm", kind="incremental"):
        """A job on the small repository, and one on the other that must not notice anything."""
        self.neighbour = self.start("other")
        self.steady = self.connect(self.neighbour)
        self.steady.pwrite(b"before", 0)
        return self.start(vm, kind, "small")

    def write_until_refused(self, handle, size=MIB, seconds=20):
        """Writes and flushes until the server says no; returns the error."""
        end = time.monotonic() + seconds
        with self.assertRaises(nbd.Error) as refusal:
            while time.monotonic() < end:
                for offset in range(0, size, MIB):
                    handle.pwrite(os.urandom(min(MIB, size - offset)), offset)
                handle.flush()
                time.sleep(0.05)
        return refusal.exception

    def assert_failed_alone(self, job, pattern, others=0):
        """The job has failed with its cause, everything else is as if nothing had happened.

        `others` disks are still being written."""
        failed = self.wait_for_status(job["backup_id"], "failed")
        self.assertRegex(failed["error_message"], pattern)
        answer = self.complete(job, "u/2", 0)
        self.assertEqual(answer.status, 409, answer)
        self.assertIn(failed["error_message"], answer.text)
        self.steady.pwrite(b"after", 4096)
        self.complete_ok(self.neighbour, "o/1", 0)
        scratch.wait_until(lambda: self.allocated_ports() == others, 15, "the ports are free")
        self.assertEqual(len(self.exports()), others)
        self.assertEqual(self.chain("vm")["backup_count"], 1)
        return failed["error_message"]

    def assert_published_is_whole(self):
        self.assertEqual(self.published.read_bytes(), self.before)
        qemu.check(self.published)


class Full(SmallRepository):
    options = {"space_reserve": "0"}

    def test_a_disk_that_is_full_fails_its_job_with_enospc_at_once(self):
        """A46 a real ENOSPC, no reserve"""
        self.register("big", [256 * MIB])
        job = self.start_with_neighbour("big", "full")
        error = self.write_until_refused(self.connect(job), 256 * MIB)
        self.assertEqual(error.errno, "ENOSPC")  # the cause, never that the job is over because of it
        self.assertIn("o space left", self.assert_failed_alone(job, "^disk 0: .*[Nn]o space left"))
        self.assert_published_is_whole()
        scratch.wait_until(lambda: self.free() > FS_BYTES // 2, 10, "the failed job's space is free again")
        self.quick_backup("vm", ["u/2"], "incremental", repository_id="small")

    def test_no_space_for_the_seal_fails_the_complete_with_its_cause(self):
        """ENOSPC on metadata: nothing of the job is published"""
        self.ballast(leave=3 * MIB)
        self.register("mid", [8 * MIB])
        job = self.start_with_neighbour("mid", "full")
        handle = self.connect(job)
        for offset in range(0, 8 * MIB, MIB):
            try:
                handle.pwrite(os.urandom(MIB), offset)
            except nbd.Error:
                break
        answer = self.complete(job, "m/1", 0)
        self.assertIn(answer.status, (409, 500), answer)
        self.assert_failed_alone(job, "[Nn]o space left")
        self.assertEqual(list(self.mount.rglob("*mid*.qcow2*")), [])
        self.assert_published_is_whole()


class Reserve(SmallRepository):
    options = {"space_reserve": "16M"}

    def test_below_the_reserve_no_job_starts_and_the_answer_says_what_is_missing(self):
        """A2 507 before anything is created"""
        self.ballast(leave=10 * MIB)
        problem = self.assert_problem(
            self.post("vm", "incremental", "small"), 507, "insufficient space in repository", "no_space"
        )
        self.assertRegex(problem["details"], rf"\d+ bytes free, {16 * MIB} bytes in reserve, \d+ bytes missing")
        (self.mount / "ballast").unlink()
        self.quick_backup("vm", ["u/2"], "incremental", repository_id="small")

    def test_what_failed_backups_kept_makes_room_before_a_start_is_refused(self):
        self.register("cut", [16 * MIB])
        cut = self.start("cut", "full", "small", client="external", keep_partial=True)
        handle = self.connect(cut)
        handle.pwrite(os.urandom(16 * MIB), 0)
        handle.shutdown()
        failure = {"status": "failed", "error": {"message": "the snapshot is gone"}}
        self.hub.api("POST", f"/telemetry/vmware/{cut['backup_id']}", failure)
        self.assertTrue(self.wait_for_status(cut["backup_id"], "failed")["resumable"])
        self.ballast(leave=10 * MIB)  # 26 without what is kept
        self.quick_backup("vm", ["u/2"], "incremental", repository_id="small")
        self.assertNotIn("resumable", self.job(cut["backup_id"]))
        self.assertEqual([*self.mount.rglob("*.partial"), *self.mount.rglob("*.arrived")], [])
        answer = self.hub.api("POST", "/backups", {"resume": cut["backup_id"]})
        self.assertEqual((answer.status, answer.body["code"]), (409, "not_resumable"), answer)

    def test_below_the_reserve_the_youngest_job_is_failed_early_and_the_elder_goes_on(self):
        self.register("elder", [4 * MIB])
        elder = self.start("elder", "full", "small")
        handle = self.connect(elder)
        handle.pwrite(b"e" * MIB, 0)
        self.register("young", [8 * MIB])
        job = self.start_with_neighbour("young", "full")
        young = self.connect(job)
        young.pwrite(os.urandom(8 * MIB), 0)
        young.flush()
        self.ballast(leave=12 * MIB)  # 20 without the younger job
        words = self.assert_failed_alone(job, "'small' is down to its space reserve", others=1)
        self.assertRegex(words, rf"\d+ bytes free, {16 * MIB} bytes in reserve, \d+ bytes missing")
        handle.pwrite(b"f" * MIB, MIB)
        self.complete_ok(elder, "e/1", 0)
        self.assert_published_is_whole()


class AllocatedAhead(SmallRepository):
    fs_bytes = 1024 * MIB
    options = {"space_reserve": "512M"}

    def test_space_that_is_allocated_ahead_counts_as_free_for_the_jobs(self):
        self.register("big", [1024 * MIB])
        self.ballast(leave=600 * MIB)  # less than one step of 256 MiB above the reserve
        job = self.start("big", "full", "small")
        handle = self.connect(job)
        for chunk in range(5):
            handle.pwrite(os.urandom(65536), chunk * 65536)
        handle.flush()
        partial = self.mount.rglob("*.partial")
        ahead = next(partial).stat().st_blocks * 512 - 5 * 65536
        self.assertGreater(ahead, 2 * MIB, "nothing is allocated ahead, so this shows nothing")
        self.ballast(leave=512 * MIB - ahead // 2)
        time.sleep(3)  # three looks at the space
        self.assertEqual(self.job(job["backup_id"])["status"], "running")
        self.complete_ok(job, "b/1", 0)
        self.assert_published_is_whole()


class FullCatalogue(SmallRepository):
    def test_readiness_ends_when_the_catalogues_disk_is_full_and_comes_back(self):
        self.hub.stop()
        self.hub.options["catalogue"] = self.mount / "catalogue.db"
        self.hub.restart()
        self.assertEqual(self.hub.root("/readyz").status, 200)
        with open(self.mount / "ballast", "wb") as file:
            with contextlib.suppress(OSError):
                while file.write(bytes(4096)):
                    file.flush()
        ready = lambda: self.hub.root("/readyz").status == 200  # noqa: E731
        scratch.wait_until(lambda: not ready(), 60, "/readyz says that the catalogue is full")
        self.assertEqual(self.hub.root("/readyz").body["checks"]["catalogue_writable"], False)
        (self.mount / "ballast").unlink()
        scratch.wait_until(ready, 30, "/readyz is ready again")


class ReadOnly(SmallRepository):
    mount_options = "loop,errors=remount-ro"

    def test_a_repository_that_turns_read_only_fails_its_job_only(self):
        """the kernel does that itself when it finds the file system damaged"""
        job = self.start_with_neighbour()
        handle = self.connect(job)
        handle.pwrite(b"x" * 65536, 0)
        handle.flush()
        self.small.make_read_only()
        error = self.write_until_refused(handle)
        self.assertIn(error.errno, ("EIO", "ENOSPC", "EPERM"))
        self.assert_failed_alone(job, "(?i)read-only file system")
        self.assert_published_is_whole()
        answer = self.post("vm", "incremental", "small")
        self.assertIn(answer.status, (503, 507), answer)
        self.assertRegex(answer.text.lower(), "read-only")
        unavailable = self.hub.get("/repositories/small").body["repository"]
        self.assertFalse(unavailable["available"])
        self.assertRegex(unavailable["unavailable_reason"].lower(), "read-only")
        self.hub.stop()
        self.hub.restart()  # it starts beside such a repository, and runs the others
        self.starter.api_url = self.hub.url
        self.quick_backup("other", ["o/2"])


    def test_it_is_noticed_without_a_further_request(self):
        """the commit in the background fails, and nobody asks"""
        job = self.start_with_neighbour()
        handle = self.connect(job)
        handle.pwrite(b"x" * 65536, 0)
        self.small.make_read_only()
        self.assert_failed_alone(job, "(?i)read-only file system")


class Dead(SmallRepository):
    def test_a_file_system_that_answers_eio_fails_its_job_only(self):
        """EIO on data, metadata and fsync alike"""
        job = self.start_with_neighbour()
        handle = self.connect(job)
        handle.pwrite(b"x" * 65536, 0)
        handle.flush()
        directory = os.open(self.mount, os.O_RDONLY)
        fcntl.ioctl(directory, GOING_DOWN, struct.pack("I", GOING_DOWN_NOW))
        os.close(directory)
        error = self.write_until_refused(handle)
        self.assertEqual(error.errno, "EIO")
        self.assert_failed_alone(job, "(?i)input/output error")
        self.assertEqual(self.hub.root("/readyz").status, 200)
        self.hub.stop()
        self.small.remount()
        self.assert_published_is_whole()
        self.hub.restart()
        self.assertEqual(self.stray_files(), [])
        self.assertEqual(list(self.mount.rglob("*.partial")), [])
        self.quick_backup("vm", ["u/2"], "incremental", repository_id="small")


class Cut(HubCase):
    """Needs no mount: another program cuts the file that is being filled."""

    def test_a_file_that_is_cut_under_us_fails_its_job_and_is_never_published(self):
        self.register("vm", [8 * MIB])
        self.quick_backup("vm", ["u/1"], writes=[(0, b"base" * 1000)])
        job = self.start("vm", "incremental")
        handle = self.connect(job)
        handle.pwrite(os.urandom(4 * MIB), 0)
        handle.flush()
        partial = Path(job["disk_results"][0]["qcow2_path"] + ".partial")
        os.truncate(partial, MIB)
        with self.assertRaises(nbd.Error) as refusal:
            handle.pwrite(b"y" * 65536, 7 * MIB)
            handle.flush()
        self.assertEqual(refusal.exception.errno, "EIO")
        failed = self.wait_for_status(job["backup_id"], "failed")
        self.assertIn("truncated by another program", failed["error_message"])
        self.assert_nothing_left()
        qemu.check(self.images("vm")[0])
        self.assertEqual(self.chain("vm")["backup_count"], 1)

    def test_a_file_that_is_cut_after_its_last_write_fails_the_complete(self):
        self.register("vm", [8 * MIB])
        job = self.start("vm")
        handle = self.connect(job)
        handle.pwrite(os.urandom(4 * MIB), 0)
        handle.flush()
        os.truncate(job["disk_results"][0]["qcow2_path"] + ".partial", MIB)
        answer = self.complete(job, "u/1", 0)
        self.assertEqual(answer.status, 500, answer)
        self.assertIn("truncated by another program", answer.text)
        self.wait_for_status(job["backup_id"], "failed")
        self.assert_nothing_left()


class FullUnderAnImage(unittest.TestCase):
    def test_failed_varve_nbd_serves_reads_until_it_is_stopped_and_says_that_it_failed(self):
        directory = self.enterContext(scratch.directory())
        image = directory / "disk.qcow2"
        self.assertEqual(image_server.create(image, 64 * MIB).returncode, 0)
        server = image_server.ImageServer(image, socket_path=directory / "disk.sock").wait()
        self.addCleanup(server.close)
        with nbd_wire.Wire(str(server.socket_path)).transmission("") as wire:
            wire.pwrite(0, b"\x11" * MIB)
            self.assertEqual(wire.error(nbd_wire.FLUSH), 0)
            os.truncate(image, 65536)  # what was flushed is lost: no change can be trusted any more
            wire.do(nbd_wire.WRITE, 7 * MIB, payload=b"y" * 65536)
            self.assertEqual(wire.error(nbd_wire.FLUSH), nbd_wire.EIO)
            for wanted in range(2):
                [refusal] = wire.do(nbd_wire.WRITE, 7 * MIB, payload=b"y" * 65536)
                self.assertEqual(refusal.error, nbd_wire.EIO, wanted)
                self.assertIn("truncated by another program", refusal.text)
                time.sleep(2)
        self.assertIsNone(server.process.poll())
        with nbd_wire.Wire(str(server.socket_path)).transmission("") as later:
            [refusal] = later.do(nbd_wire.TRIM, 0, 65536)
            self.assertIn("truncated by another program", refusal.text)
        self.assertNotEqual(server.stop(), 0)
        self.assertIn("truncated by another program", server.log.splitlines()[-1])

    def test_varve_nbd_answers_enospc_writes_again_when_there_is_room_and_keeps_what_was_flushed(self):
        reason = loop_mount.why_not()
        if reason:
            self.skipTest(reason)
        directory = self.enterContext(scratch.directory())
        small = loop_mount.LoopMount(directory, FS_BYTES)
        self.addCleanup(small.unmount)
        ballast = small.path / "ballast"
        ballast.write_bytes(bytes(24 * MIB))
        image = small.path / "disk.qcow2"
        self.assertEqual(image_server.create(image, 256 * MIB).returncode, 0)
        server = image_server.ImageServer(image, socket_path=directory / "disk.sock").wait()
        self.addCleanup(server.close)
        handle = server.connect()
        handle.pwrite(b"\x11" * 8 * MIB, 0)
        handle.flush()
        with self.assertRaises(nbd.Error) as refusal:
            for number in range(1, 32):
                handle.pwrite(os.urandom(8 * MIB), number * 8 * MIB)
                handle.flush()
        self.assertEqual(refusal.exception.errno, "ENOSPC")
        ballast.unlink()
        handle.pwrite(b"\x22" * 8 * MIB, 8 * MIB)  # nothing was lost, so there is room again
        handle.flush()
        server.kill()
        scratch.wait_until(lambda: "Failed to get" not in self.check(image).stderr, 10, "the locks are given back")
        self.assertIn(self.check(image).returncode, (0, 3))
        server = image_server.ImageServer(image, socket_path=directory / "disk.sock").wait()
        self.addCleanup(server.close)
        self.assertEqual(server.connect().pread(16 * MIB, 0), b"\x11" * 8 * MIB + b"\x22" * 8 * MIB)
        self.assertEqual(server.stop(), 0, server.log)
        qemu.check(image)

    def check(self, image):
        return subprocess.run(["qemu-img", "check", image], capture_output=True, text=True, check=False)


if __name__ == "__main__":
    run.main()
