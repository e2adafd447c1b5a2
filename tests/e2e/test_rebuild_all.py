#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A catalogue that is rebuilt from files answers every GET as the lost one did, proofs included."""

import os
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run, scratch  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.daemon import binary  # noqa: E402
from harness.qcow2_bytes import Qcow2Bytes  # noqa: E402

CLUSTER = 65536
LEFT_OUT = 3
SIZES = (5, 3, 20) if os.environ.get("VARVE_LONG") else (3, 2, 6)  # VMs, disks, points
# Of the process, not of its memory; the number of a row, which nothing refers to; and when a job left its first state,
# which is in no file: a rebuild says when it was made.
OF_THE_PROCESS = {"qemu_nbd_pid", "uris", "nbd_uri", "storage_info", "id", "started_at"}


def told(answer):
    """An answer without what a restart changes as well. Credentials are in no file."""
    if isinstance(answer, list):
        return [told(one) for one in answer]
    if isinstance(answer, dict):
        return {name: told(value) for name, value in answer.items() if name not in OF_THE_PROCESS | {"credentials"}}
    return answer


class RebuildCase(HubCase):
    def make(self, vms, disks, points):
        """Two generations of each disk."""
        for vm_name in [f"vm{number}" for number in range(vms)]:
            self.register(vm_name, [MIB] * disks)
            for number in range(points):
                ids = [f"{vm_name}-{disk}/{number}" for disk in range(disks)]
                kind = "full" if number in (0, points // 2) else "incremental"
                self.quick_backup(vm_name, ids, kind, [(number % 16 * CLUSTER, bytes([number + 1]) * 4096)])

    def verify(self, **body):
        answer = self.hub.api("POST", "/verifications", body)
        self.assertEqual(answer.status, 202, answer)
        path = f"/verifications/{answer.body['verification_id']}"

        def ended():
            task = self.hub.get(path).body
            return task if task["state"] != "running" else None

        return scratch.wait_until(ended, 60, "it has ended")

    def everything(self):
        """Every GET that tells of VMs, backups, chains, points and changes. A repository's name is in no file."""
        answers = {}

        def get(path, **query):
            answer = self.hub.get(path, **query)
            self.assertEqual(answer.status, 200, (path, answer))
            answers[f"{path}?{urllib.parse.urlencode(query)}"] = told(answer.body)
            return answer.body

        for vm in get("/vm-contexts")["vm_contexts"]:
            name = vm["vm_name"]
            get(f"/vm-contexts/{name}")
            get(f"/vm-contexts/by-id/{vm['context_id']}")
            for disk in get(f"/vm-contexts/{name}/disks")["disks"]:
                get("/replications/changeid", vm_path=vm["vm_path"], disk_id=disk["disk_id"])
            points = get("/points", vm_name=name)["points"]
            get("/backups/stats", vm_name=name, repository_id="1")
            for disk in {point["disk_id"] for point in points}:
                get("/points", vm_name=name, disk_id=disk, point="latest")
                for generation in {point["generation"] for point in points}:
                    get("/backups/chain", vm_name=name, disk_id=disk, generation=generation)
                get(f"/backups/{name}/chain", disk_id=disk)
                get("/backups/changeid", vm_name=name, disk_id=disk)
                of_disk = [point["backup_id"] for point in points if point["disk_id"] == disk]  # newest first
                for newer, older in zip(of_disk, of_disk[1:]):
                    get(f"/backups/{newer}/changes", since=older, disk_id=disk)
        for backup in get("/backups", limit=1000)["backups"]:
            get(f"/backups/{backup['backup_id']}")
            get(f"/backups/{backup['backup_id']}/disks")
        get("/points", limit=10000)
        return answers

    def lose_catalogue(self):
        self.hub.stop()
        for path in self.hub.catalogue.parent.glob(self.hub.catalogue.name + "*"):
            path.unlink()

    def rebuild(self, status=0):
        """What it says on stderr."""
        command = [binary(), "rebuild", "--repository", self.hub.repository, "--catalogue", self.hub.catalogue]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(done.returncode, status, done)
        return done.stderr

    def point(self, path):
        return next(point for point in self.hub.get("/points", limit=10000).body["points"] if point["file_path"] == str(path))


class EveryAnswer(RebuildCase):
    def test_is_that_of_the_lost_catalogue_also_of_what_was_proven(self):
        vms, disks, points = SIZES
        self.make(vms, disks, points)
        image = self.images("vm1", disk=1)[1]
        content = Qcow2Bytes(image)
        cluster = points // 2 + 1  # of the newest generation, whose full is the first of images()
        content.write(content.host(cluster) + 7, b"\xff")
        for name in ("vm0", "vm1"):
            self.verify(vm_name=name)
        proven = self.point(image)
        self.assertEqual(proven["verification"], "damaged")
        before = self.everything()
        self.assertGreater(len(before), vms * points * 2)
        time.sleep(1.1)  # so that a time which is made up is another one
        self.lose_catalogue()
        begun = time.monotonic()
        self.assertEqual(self.rebuild(), "")
        self.assertLess(time.monotonic() - begun, 30)
        self.hub.start()
        after = self.everything()
        for path, answer in before.items():
            self.assertEqual(after[path], answer, path)
        self.assertEqual(after.keys(), before.keys())
        self.assertEqual(self.point(image)["verified_at"], proven["verified_at"])


class Proofs(RebuildCase):
    def setUp(self):
        super().setUp()
        self.make(1, 2, 4)
        self.assertEqual(self.verify()["state"], "completed")
        self.paths = [self.images("vm0", disk, generation=1)[0] for disk in (0, 1)]

    def proof(self, disk):
        return Path(f"{self.paths[disk]}.verified")

    def results(self):
        return [self.point(path).get("verification") for path in self.paths]

    def test_that_are_damaged_or_of_another_image_are_named_and_not_believed(self):
        for change in (lambda: self.proof(0).write_bytes(self.proof(0).read_bytes().replace(b"sound", b"Sound")),
                       lambda: self.proof(0).write_bytes(self.proof(1).read_bytes()),
                       lambda: self.proof(0).write_bytes(b"\0" * 300)):  # fmt: skip
            with self.subTest():
                change()
                self.lose_catalogue()
                [line] = self.rebuild(status=LEFT_OUT).splitlines()
                self.assertRegex(line, f"^left out: the last proof, {self.proof(0)}: .*; the image counts as unproven$")
                self.hub.start()
                self.assertEqual(self.results(), [None, "sound"])

    def test_stand_beside_their_images_and_go_with_them(self):
        self.assertEqual(len(list(self.hub.repository.rglob("*.verified"))), 8)
        newest = self.hub.get("/points", vm_name="vm0", point="latest").body["points"][0]["backup_id"]
        self.assertEqual(self.hub.api("DELETE", f"/backups/{newest}").status, 200)
        self.assertEqual(len(list(self.hub.repository.rglob("*.verified"))), 6)
        stray = self.proof(0).with_name("backup-vm0-disk0-19700101-000000.qcow2.verified")
        stray.write_bytes(self.proof(0).read_bytes())
        away = self.dir / "image"
        self.paths[1].rename(away)
        self.hub.stop()
        self.hub.start()
        self.assertFalse(stray.exists(), "it belongs to no image")
        self.assertTrue(self.proof(1).exists(), "its image may come back")

    def test_that_cannot_be_written_cost_a_warning_and_no_verification(self):
        self.proof(0).unlink()
        self.proof(0).mkdir()
        task = self.verify()
        self.assertEqual((task["state"], task["damaged_backups"]), ("completed", []))
        self.assertIn(f"the proof of {self.paths[0]} is in the catalogue only", self.hub.log)
        self.proof(0).rmdir()


if __name__ == "__main__":
    run.main()
