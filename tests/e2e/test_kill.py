#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at random moments under load, again and again: what was promised is there.

`varve nbd` over one image that lives through all rounds; `varve serve` over jobs of which some
complete. Two disks at once. More rounds with VARVE_LONG.
"""

import contextlib
import random
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import image_server, load, qemu, run, scratch  # noqa: E402
from harness.case import ACTIVE, MIB, HubCase, rounds  # noqa: E402
from harness.versioned_disk import VersionedDisk  # noqa: E402

NBD_ROUNDS = rounds(100, 2000)  # in each of two tests, side by side
SERVE_ROUNDS = rounds(80, 1000)
SEED = 20260101


def check_without_errors(image):
    """Clean, or leaked clusters at most; never anything that needs a repair.

    The kernel gives back the locks of a killed process a moment after its end."""
    end = time.monotonic() + 10
    while True:
        done = subprocess.run(["qemu-img", "check", str(image)], capture_output=True, text=True, timeout=60, check=False)
        if "Failed to get" not in done.stderr or time.monotonic() > end:
            break
        time.sleep(0.01)
    assert done.returncode in (0, 3), f"{image}: {done.stdout}{done.stderr}"


class Life:
    """One image of `varve nbd` through many kills."""

    def __init__(self, directory, name, size, seed, parent=None):
        self.directory, self.seed, self.size = directory, seed, size
        self.image = directory / f"{name}.qcow2"
        done = image_server.create(self.image, size, parent)
        assert done.returncode == 0, done.stderr
        self.disk = VersionedDisk(size)
        self.dice = random.Random(seed)
        self.kills = 0

    @property
    def socket(self):
        return self.directory / f"{self.image.stem}.sock"

    def serve(self):
        return image_server.ImageServer(self.image, socket_path=self.socket).wait()

    def round(self, number):
        server = self.serve()
        try:
            content = load.read_all(server.connect(), self.size)
            self.disk.verify(content)
            self.disk.begin_life(content)
            writers = load.Load(self.disk, server.connect, f"{self.seed}-{number}", flushes=self.dice.choice([0, 0.02, 0.2]))
            time.sleep(self.dice.random() ** 2 * 0.6)
            server.kill()
            writers.join()
            self.kills += 1
        finally:
            server.close()
        check_without_errors(self.image)

    def run(self, count):
        for number in range(count):
            try:
                self.round(number)
            except AssertionError as failure:
                raise AssertionError(f"{self.image.name}, seed {self.seed}, round {number}: {failure}") from failure

    def end(self):
        """A last life in good order: nothing may be lost, nothing leaked."""
        server = self.serve()
        content = load.read_all(server.connect(), self.size)
        self.disk.verify(content)
        self.disk.begin_life(content)
        writers = load.Load(self.disk, server.connect, self.seed)
        time.sleep(0.3)
        writers.stop()
        assert server.stop() == 0, server.log
        qemu.check(self.image)
        raw = self.directory / "expected.raw"
        raw.write_bytes(self.disk.expected())
        qemu.compare(raw, self.image)
        raw.unlink()


class Forgetful:
    """A connection whose FLUSH and FUA are answered and never sent."""

    def __init__(self, handle):
        self.handle = handle

    def flush(self):
        pass

    def pwrite(self, data, offset, _flags):
        self.handle.pwrite(data, offset)

    def zero(self, length, offset, _flags):
        self.handle.zero(length, offset)

    def pread(self, length, offset):
        return self.handle.pread(length, offset)


class ForgetfulServer(image_server.ImageServer):
    def connect(self):
        return Forgetful(super().connect()) if self.answers else super().connect()

    answers = False


class TheJudge(unittest.TestCase):
    """The judge of these tests sees what it is there to see."""

    def test_a_server_that_forgets_flushed_data_is_caught(self):
        with scratch.directory() as directory:
            life = Life(directory, "forgetful", 8 * MIB, SEED)
            life.serve = lambda: self.serve_forgetfully(life)
            with self.assertRaisesRegex(AssertionError, "LOST: sector"):
                life.run(20)

    def serve_forgetfully(self, life):
        server = ForgetfulServer(life.image, socket_path=life.socket, options=["--commit-interval", "1h"]).wait()
        self.addCleanup(server.close)
        server.answers = True
        return server

    def test_old_bytes_and_mixed_bytes_are_told_apart(self):
        disk = VersionedDisk(4096)
        old, new = disk.begin_write(0, 2), disk.begin_write(0, 2)
        disk.acknowledge(old, durable=True)
        disk.acknowledge(new)
        zeroes = bytes(3072)
        disk.verify(old.bytes() + zeroes)  # the new one was not flushed
        self.assertEqual(disk.unflushed_lost, 1024)
        disk.verify(new.bytes()[:512] + old.bytes()[512:] + zeroes)  # sectors are whole
        with self.assertRaisesRegex(AssertionError, "LOST: sector 0"):
            disk.verify(bytes(4096))
        with self.assertRaisesRegex(AssertionError, "TORN: sector 1"):
            disk.verify(new.bytes()[:768] + old.bytes()[768:] + zeroes)
        with self.assertRaisesRegex(AssertionError, "sector 7 changed"):
            disk.verify(new.bytes() + zeroes[:-1] + b"x")


class KilledImageServer(unittest.TestCase):
    def setUp(self):
        self.dir = self.enterContext(scratch.directory())

    def test_two_images_under_load_survive_every_kill(self):
        """A35 of `varve nbd`: a full image and an overlay, side by side"""
        parent = self.dir / "parent.qcow2"
        qemu.create(parent, 8 * MIB)
        lives = [Life(self.dir, "full", 8 * MIB, SEED), Life(self.dir, "overlay", 6 * MIB + 512, SEED + 1, parent)]
        failures = []

        def live(life):
            try:
                life.run(NBD_ROUNDS)
                life.end()
            except BaseException as failure:  # noqa: BLE001  # raised again below
                failures.append(failure)

        threads = [threading.Thread(target=live, args=(life,)) for life in lives]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        kills = sum(life.kills for life in lives)
        lost = sum(life.disk.unflushed_lost for life in lives)
        print(f"{kills} kills; {lost} bytes were lost that were acknowledged and not flushed", flush=True)
        self.assertEqual(kills, 2 * NBD_ROUNDS)


class BoundedLoss(unittest.TestCase):
    """What a kill may cost a client that never sends FLUSH."""

    def setUp(self):
        self.dir = self.enterContext(scratch.directory())
        self.image = self.dir / "disk.qcow2"
        self.assertEqual(image_server.create(self.image, 16 * MIB).returncode, 0)

    def bytes_kept(self, options, seconds, disconnect=False):
        """Of 8 MiB, after so much silence, of which the last MiB came alone."""
        server = image_server.ImageServer(self.image, socket_path=self.dir / "disk.sock", options=options).wait()
        handle = server.connect()
        for number in range(8):
            handle.pwrite(b"\x5a" * MIB, number * MIB)
        if disconnect:
            handle.shutdown()
        time.sleep(seconds)
        server.kill()
        check_without_errors(self.image)
        raw = self.dir / "disk.raw"
        qemu.convert_to_raw(self.image, raw)
        return raw.read_bytes().count(b"\x5a")

    def test_after_the_commit_interval_nothing_is_lost(self):
        self.assertEqual(self.bytes_kept(["--commit-interval", "200ms"], 1), 8 * MIB)

    def test_the_defaults_keep_everything_that_is_older_than_a_second(self):
        self.assertEqual(self.bytes_kept([], 2), 8 * MIB)

    def test_after_so_many_bytes_a_commit_does_not_wait_for_the_interval(self):
        kept = self.bytes_kept(["--commit-interval", "1h", "--commit-bytes", "2M"], 0.5)
        self.assertGreaterEqual(kept, 6 * MIB)

    def test_without_either_there_is_something_to_lose(self):
        """the three tests above see a commit, not luck"""
        self.assertEqual(self.bytes_kept(["--commit-interval", "1h"], 0.5), 0)

    def test_a_disconnect_commits(self):
        self.assertEqual(self.bytes_kept(["--commit-interval", "1h"], 0.5, disconnect=True), 8 * MIB)


class KilledServer(HubCase):
    """`varve serve` with failed images kept, so that what a FLUSH promised can be looked at."""

    options = {"failed_images": "quarantine"}
    sizes = (4 * MIB, 2 * MIB + 512)

    def setUp(self):
        super().setUp()
        self.dice = random.Random(SEED + 2)
        self.register("vm", list(self.sizes))
        self.disks = [VersionedDisk(size) for size in self.sizes]
        self.points = []  # (job id, contents)

    def test_jobs_under_load_survive_every_kill(self):
        """A35 A50 A23 kill -9 at a random moment of copy, complete and publish"""
        fates = {"completed": 0, "failed": 0}
        for number in range(SERVE_ROUNDS):
            with self.subTest(round=number):
                fates[self.round(number)] += 1
        print(f"{SERVE_ROUNDS} kills; jobs after them: {fates}", flush=True)
        self.assertGreater(min(fates.values()), SERVE_ROUNDS // 10)
        for job_id, contents in self.points:
            self.assert_point_reads(job_id, contents)

    def round(self, number):
        kind = "full" if not self.points or self.dice.random() < 0.3 else "incremental"
        base = self.points[-1][1] if kind == "incremental" else [bytes(size) for size in self.sizes]
        for disk, content in zip(self.disks, base):
            disk.begin_life(content)
        job = self.start("vm", kind)
        loads = [
            load.Load(disk, lambda at=index: self.connect(job, at), f"{number}-{index}")
            for index, disk in enumerate(self.disks)
        ]
        moment = self.dice.random()
        time.sleep(self.dice.random() ** 2 * 0.3)
        answered = self.killed_in_complete(job, number, loads) if moment < 0.7 else self.killed_in_copy(loads)
        self.hub.restart()
        return self.judge(job, answered, kind)

    def killed_in_copy(self, loads):
        self.hub.kill()
        for writers in loads:
            writers.join()
        return False

    def killed_in_complete(self, job, number, loads):
        """Kills at a random moment of the two completes; True when the last one was answered."""
        for writers in loads:
            writers.stop()
        answers = []
        idle = [self.connect(job, index) for index in range(len(self.disks))]

        def complete_all():
            with contextlib.suppress(OSError, ValueError):
                for index in range(len(self.disks)):
                    answers.append(self.complete(job, f"u{index}/{number + 1}", index).status)

        calls = threading.Thread(target=complete_all)
        calls.start()
        if self.dice.random() < 0.3:
            calls.join()
        else:
            time.sleep(self.dice.random() * 0.12)
        self.hub.kill()
        calls.join()
        del idle
        return answers == [200] * len(self.disks)

    def judge(self, job, answered, kind):
        row = self.job(job["backup_id"])
        self.assertIn(row["status"], ("completed", "failed"), row)
        if answered:
            self.assertEqual(row["status"], "completed", "complete was answered with 200")
        for status in ACTIVE:
            self.assertEqual(self.hub.get("/backups", status=status).body["total"], 0)
        self.assertEqual((self.allocated_ports(), self.exports()), (0, []))
        self.assertEqual([path for path in self.stray_files() if ".quarantine" not in path.parts], [])
        if row["status"] == "completed":
            self.points.append((job["backup_id"], [disk.expected() for disk in self.disks]))
            self.assert_point_reads(*self.points[-1])
        elif kind == "full":
            self.assert_quarantined_keeps_its_flushes(job)
        if len(self.points) > 1:
            self.assert_point_reads(*self.dice.choice(self.points))
        return row["status"]

    def assert_point_reads(self, job_id, contents):
        for index, disk in enumerate(self.disks_of(job_id)):
            raw = self.dir / "expected.raw"
            raw.write_bytes(contents[index])
            qemu.verify(disk["qcow2_path"], raw)

    def disks_of(self, job_id):
        return sorted(self.job(job_id)["disk_results"], key=lambda disk: disk["disk_id"])

    def assert_quarantined_keeps_its_flushes(self, job):
        """What a FLUSH had answered is in the image of the failed job."""
        folder = self.hub.repository / ".quarantine" / job["backup_id"]
        for index, disk in enumerate(self.disks_of(job["backup_id"])):
            kept = list(folder.glob(Path(disk["qcow2_path"]).name + ".partial"))
            self.assertEqual(len(kept), 1, f"{disk['qcow2_path']} in {folder}")
            check_without_errors(kept[0])
            raw = self.dir / "kept.raw"
            qemu.convert_to_raw(kept[0], raw)
            self.disks[index].verify(raw.read_bytes())


if __name__ == "__main__":
    run.main()
