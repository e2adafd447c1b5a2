#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`varve verify`: whatever is not what was sent is found and named, and nothing else."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run, scratch  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.daemon import binary  # noqa: E402
from harness.lesser_mount import LesserMount  # noqa: E402
from harness.qcow2_bytes import Qcow2Bytes  # noqa: E402

VM = "web01"
SIZE = 16 * MIB
CLUSTER = 65536
DAMAGED, NOT_FOUND, REFUSED = 13, 10, 11


class VerifyCase(HubCase):
    def verify(self, *words, status=0):
        """What `varve verify` says: the images, and the end."""
        done = subprocess.run([binary(), "verify", *words, "--server", self.hub.url, "--json"], capture_output=True, text=True,
                              timeout=120, check=False)  # fmt: skip
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        events = [json.loads(line) for line in done.stdout.splitlines()]
        return [event for event in events if event["event"] == "image"], events[-1]

    def damaged(self, images):
        return {(image["backup_id"], image["disk_id"]): image for image in images if image["result"] == "damaged"}


class Verified(VerifyCase):
    def setUp(self):
        super().setUp()
        self.register(VM, [SIZE, 4 * MIB])

    def back_up(self, increments=2, vm_name=VM):
        """A full of two disks and increments; the ids of the backups."""
        dice = random.Random(4)
        ids = [self.quick_backup(vm_name, ["a/1", "b/1"], writes=[(0, dice.randbytes(3 * MIB)), (3 * MIB + 700, b"x" * 9000)])]
        for number in range(increments):
            writes = [(number * CLUSTER, dice.randbytes(CLUSTER)), (2 * MIB + 512, dice.randbytes(2048))]
            ids.append(self.quick_backup(vm_name, [f"a/{number + 2}", f"b/{number + 2}"], "incremental", writes))
        return [job["backup_id"] for job in ids]

    def image(self, number, disk=0):
        return self.images(VM, disk)[number]

    def test_points_that_nobody_has_touched_are_sound_and_the_catalogue_remembers_it(self):
        ids = self.back_up()
        self.assertEqual([point["verified_at"] for point in self.points_of(ids[0])], [None, None])
        images, end = self.verify(VM)
        self.assertEqual([image["result"] for image in images], ["sound"] * 6)
        self.assertEqual((end["state"], end["image_count"], end["damaged_backups"]), ("completed", 6, []))
        # 3 MiB, and 9,000 bytes that lie in one more cluster; then one cluster each, and parts of another.
        self.assertEqual(sum(image["data_bytes"] for image in images), 2 * (49 + 2 + 2) * CLUSTER)
        self.hub.stop()
        self.hub.start()
        for point in self.points_of(ids[0]):
            self.assertEqual(point["verification"], "sound")
            self.assertRegex(point["verified_at"], r"^\d{4}-")
        _, end = self.verify("--all", "--skip-days", "1")
        self.assertEqual((end["image_count"], end["skipped_count"]), (0, 6))

    def points_of(self, backup_id):
        return self.hub.get("/points", vm_name=VM, point=backup_id).body["points"]

    def test_a_point_is_proven_with_all_that_it_stands_on(self):
        ids = self.back_up()
        images, _ = self.verify(f"{VM}@{ids[1]}")
        self.assertEqual({image["backup_id"] for image in images}, set(ids[:2]))

    def test_a_flipped_bit_is_found_and_every_backup_that_reads_it_is_named(self):
        ids = self.back_up()
        image = Qcow2Bytes(self.image(0))
        for cluster in (5, 40):
            at = image.host(cluster) + 12345
            image.write(at, bytes([image.read(at, 1)[0] ^ 4]))
        images, end = self.verify(VM, status=DAMAGED)
        found = self.damaged(images)
        self.assertEqual(list(found), [(ids[0], 0)])
        self.assertEqual([(d["offset"], d["length"], d["what"]) for d in found[ids[0], 0]["damaged"]],
                         [(5 * CLUSTER, CLUSTER, "reads differently"), (40 * CLUSTER, CLUSTER, "reads differently")])  # fmt: skip
        self.assertEqual(found[ids[0], 0]["damaged"][0]["host_offset"], image.host(5))
        self.assertEqual(end["damaged_backups"], ids)
        self.assertEqual({point["verification"] for point in self.points_of(ids[0])}, {"damaged", "sound"})

    def test_an_increment_that_is_damaged_leaves_the_older_points_sound(self):
        ids = self.back_up()
        image = Qcow2Bytes(self.image(1, disk=1))
        image.write(image.host(0) + 1, b"\0")
        images, end = self.verify(VM, status=DAMAGED)
        self.assertEqual((list(self.damaged(images)), end["damaged_backups"]), ([(ids[1], 1)], ids[1:]))

    def test_whatever_else_is_changed_has_a_sentence(self):
        ids = self.back_up(increments=1)
        path, parent = self.image(1), self.image(0)

        def forget_cluster(image):
            image.set_entry(0, 0)

        changes = {
            "is mapped otherwise": lambda: forget_cluster(Qcow2Bytes(path)),
            "its tables have": lambda: Qcow2Bytes(path).set_refcount(Qcow2Bytes(path).host(0), 0),
            "not a QCOW2 image": lambda: Qcow2Bytes(path).write(0, b"XFI\xfb"),
            "bytes long, and was published with": lambda: Qcow2Bytes(path).truncate(path.stat().st_size + CLUSTER),
            "its sidecar is not": lambda: self.edit(f"{path}.json", b'"size_bytes"', b'"size_byteS"'),
            "its manifest is not": lambda: self.edit(f"{path}.sums", b"VARVSUMS", b"VARVSUMs"),
            "is not the image this one was made on": lambda: shutil.copyfile(self.image(0, disk=1), parent),
            "is not the parent that": lambda: self.edit(f"{parent}.json", b'"vm_name"', b'"vm_nam3"'),
        }
        for text, change in changes.items():
            with self.subTest(text), self.restored():
                change()
                images, end = self.verify(VM, status=DAMAGED)
                problems = [image.get("problem") or str(image["damaged"]) for image in self.damaged(images).values()]
                self.assertTrue(any(text in problem for problem in problems), problems)
                self.assertIn(ids[1], end["damaged_backups"])
        self.verify(VM)

    def edit(self, path, old, new):
        content = Path(path).read_bytes()
        self.assertIn(old, content)
        Path(path).write_bytes(content.replace(old, new, 1))

    def restored(self):
        return Restored(self.hub.repository, self.dir / "saved")

    def test_a_missing_manifest_or_sidecar_is_damage(self):
        self.back_up(increments=0)
        for ending in (".sums", ".json"):
            with self.restored():
                Path(f"{self.image(0)}{ending}").unlink()
                images, _ = self.verify(VM, status=DAMAGED)
                [found] = self.damaged(images).values()
                self.assertIn(ending, found["problem"])

    def test_a_point_of_an_earlier_version_has_no_manifest(self):
        [backup] = self.back_up(increments=0)
        for disk in (0, 1):
            self.make_older(self.image(0, disk))
        images, _ = self.verify(VM)
        self.assertEqual([(image["result"], image["data_bytes"]) for image in images], [("without_manifest", 0)] * 2)
        # And an increment on it is made, and proven.
        second = self.quick_backup(VM, ["a/2", "b/2"], "incremental", [(0, b"n" * CLUSTER)])["backup_id"]
        images, _ = self.verify(f"{VM}@{second}")
        self.assertEqual([image["result"] for image in images], ["without_manifest"] * 2 + ["sound"] * 2)

    def make_older(self, path):
        """As varve wrote it before there were manifests: format 1 of the sidecar, whose hash is in the header."""
        sidecar = Path(f"{path}.json")
        content = json.loads(sidecar.read_bytes())
        content["varve"]["format"] = 1
        for name in ("sums_sha256", "parent_root", "bytes_received", "bytes_zeroed", "bytes_elided", "bytes_stored"):
            del content["varve"][name]
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        old = hashlib.sha256(sidecar.read_bytes()).digest()
        image = Qcow2Bytes(path)
        header = image.read(0, CLUSTER)
        self.assertEqual(header.count(old), 1)
        image.write(header.index(old), hashlib.sha256(text).digest())
        sidecar.write_bytes(text)
        Path(f"{path}.sums").unlink()

    def test_one_runs_at_a_time_and_a_signal_cancels_it(self):
        self.back_up()
        slow = subprocess.Popen([binary(), "verify", VM, "--server", self.hub.url, "--rate", "64K"], stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)  # fmt: skip
        self.addCleanup(scratch.end_process, slow)

        def running():
            return [v for v in self.hub.get("/verifications").body["verifications"] if v["state"] == "running"]

        [task] = scratch.wait_until(running, 10, "the verification runs")
        self.verify(VM, status=REFUSED)
        self.assert_problem(self.hub.api("POST", "/verifications"), 409, "a verification is running", "verification_is_running")
        # A backup is made beside it.
        self.quick_backup(VM, ["a/9", "b/9"], "incremental", [(0, b"beside" * 100)])
        slow.send_signal(signal.SIGINT)
        self.assertEqual(slow.wait(20), 130)
        self.assertEqual(self.hub.get(f"/verifications/{task['verification_id']}").body["state"], "cancelled")
        self.verify(VM)

    def test_one_that_is_cancelled_at_the_server_is_no_success(self):
        self.back_up()
        slow = subprocess.Popen([binary(), "verify", VM, "--server", self.hub.url, "--rate", "64K"], stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True)  # fmt: skip
        self.addCleanup(slow.stderr.close)
        self.addCleanup(scratch.end_process, slow)

        def running():
            return [v for v in self.hub.get("/verifications").body["verifications"] if v["state"] == "running"]

        [task] = scratch.wait_until(running, 10, "the verification runs")
        self.assertEqual(self.hub.api("DELETE", f"/verifications/{task['verification_id']}").status, 200)
        self.assertEqual(slow.wait(20), 1)
        self.assertIn("cancelled at the server", slow.stderr.read())

    def test_a_signal_ends_it_also_while_the_server_does_not_answer(self):
        self.back_up()
        slow = subprocess.Popen([binary(), "verify", VM, "--server", self.hub.url, "--rate", "64K"], stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True)  # fmt: skip
        self.addCleanup(slow.stderr.close)
        self.addCleanup(scratch.end_process, slow)
        scratch.wait_until(lambda: self.hub.get("/verifications").body["count"] == 1, 10, "the verification runs")
        os.kill(self.hub.ready["pid"], signal.SIGSTOP)
        self.addCleanup(os.kill, self.hub.ready["pid"], signal.SIGCONT)
        slow.send_signal(signal.SIGTERM)
        self.assertEqual(slow.wait(8), 130)
        self.assertIn("the server does not answer, so the verification may go on", slow.stderr.read())

    def test_what_is_not_there_is_refused(self):
        self.verify("unknown", status=NOT_FOUND)
        self.verify(f"{VM}@latest", status=NOT_FOUND)
        self.assert_problem(self.hub.get("/verifications/none"), 404, "verification not found", "verification_not_found")
        self.assert_problem(self.hub.api("POST", "/backups/none/verify"), 404, "backup not found")
        running = self.start(VM)
        answer = self.hub.api("POST", f"/backups/{running['backup_id']}/verify")
        self.assertEqual((answer.status, answer.body["code"]), (409, "backup_is_not_completed"))

    def test_a_repository_that_is_away_damages_nothing(self):
        ids = self.back_up(increments=0)
        away = self.dir / "away"
        self.hub.repository.rename(away)
        _, end = self.verify(VM, status=1)
        self.assertIn("repository", end["message"])
        away.rename(self.hub.repository)
        self.assertEqual([point["verified_at"] for point in self.points_of(ids[0])], [None, None])
        command = [binary(), "verify", VM, "--server", self.hub.url]
        again = scratch.wait_until(lambda: self.output_of(command), 30, "varve has seen that it is back")
        self.assertIn("completed: 2 images", again)

    def output_of(self, command):
        """What it prints; nothing when it fails."""
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout if done.returncode == 0 else None

    def test_the_manifest_of_an_image_that_is_away_is_kept_for_it(self):
        self.back_up(increments=0)
        image, away = self.image(0), self.dir / "image"
        image.rename(away)
        self.hub.stop()
        self.hub.start()
        away.rename(image)
        self.verify(VM)

    def test_manifests_go_with_their_backups_and_with_jobs_that_fail(self):
        ids = self.back_up(increments=1)
        self.assertEqual(len(list(self.hub.repository.rglob("*.sums"))), 4)
        self.assertEqual(self.hub.api("DELETE", f"/backups/{ids[1]}").status, 200)
        self.assertEqual(len(list(self.hub.repository.rglob("*.sums"))), 2)
        job = self.start(VM, "incremental")
        self.write_and_complete(job, 0, "a/7", [(0, b"z" * CLUSTER)])  # sealed, and its job not yet complete
        self.assertEqual(len(list(self.hub.repository.rglob("*.sums"))), 3)
        self.assertEqual(self.hub.api("POST", f"/backups/{job['backup_id']}/cancel").status, 200)
        self.assertEqual(len(list(self.hub.repository.rglob("*.sums"))), 2)
        job = self.start(VM, "incremental")
        self.write_and_complete(job, 0, "a/8", [(0, b"z" * CLUSTER)])
        self.hub.kill()
        self.hub.start()
        self.assertEqual(len(list(self.hub.repository.rglob("*.sums"))), 2, "what a kill has left is taken away")

    def test_a_rebuilt_catalogue_proves_the_same(self):
        ids = self.back_up()
        self.hub.stop()
        for file in self.hub.catalogue.parent.glob(f"{self.hub.catalogue.name}*"):
            file.unlink()
        subprocess.run([binary(), "rebuild", "--repository", self.hub.repository, "--catalogue", self.hub.catalogue], check=True,
                       capture_output=True)  # fmt: skip
        self.hub.start()
        images, _ = self.verify(VM)
        self.assertEqual({image["backup_id"] for image in images}, set(ids))
        self.assertEqual({image["result"] for image in images}, {"sound"})


class VerifiedBelowThePageCache(LesserMount, VerifyCase):
    def test_what_memory_remembers_does_not_hide_what_the_disk_has_lost(self):
        self.mount("--no-direct", "-o", "kernel_cache")  # pages stay when a file is opened again
        self.register(VM, [SIZE])
        content = random.Random(4).randbytes(3 * MIB)
        self.quick_backup(VM, ["a/1"], writes=[(0, content)], repository_id="lesser")
        [image] = self.images(VM, repository_id="lesser")
        below = self.below(image)
        remembered, times = image.read_bytes(), below.stat()
        disk = Qcow2Bytes(below)
        at = disk.host(5) + 12345
        disk.write(at, bytes([disk.read(at, 1)[0] ^ 4]))
        os.utime(below, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a disk that says nothing
        self.assertEqual(image.read_bytes(), remembered, "memory hides it")
        images, _ = self.verify(VM, "--reader", "varve", status=DAMAGED)
        [found] = self.damaged(images).values()
        self.assertEqual([(d["offset"], d["length"]) for d in found["damaged"]], [(5 * CLUSTER, CLUSTER)])


class Restored:
    """The files of a repository are at the end what they were at the beginning."""

    def __init__(self, repository, saved):
        self.repository, self.saved = repository, saved

    def __enter__(self):
        shutil.copytree(self.repository, self.saved, symlinks=True)

    def __exit__(self, *_):
        for path in self.saved.rglob("*.qcow2*"):
            if not path.is_symlink():
                shutil.copyfile(path, self.repository / path.relative_to(self.saved))
        shutil.rmtree(self.saved)


if __name__ == "__main__":
    run.main()
