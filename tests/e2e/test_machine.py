#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A real virtual machine as witness: backed up over 20 increments, it runs from its backup."""

import hashlib
import random
import subprocess
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import machine, qemu, run, scratch, sources  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402

SIZE = 96 * MIB
INCREMENTS = 20


class Witness(HubCase):
    options = {"point_idle": "1s"}

    @classmethod
    def setUpClass(cls):
        if reason := machine.why_not():
            raise unittest.SkipTest(reason)
        cls.shared = cls.enterClassContext(scratch.directory())
        cls.kernel = machine.Kernel(cls.shared / "kernel")

    def back_up_machine(self, increments):
        """Returns the disk as a source; each increment brings a file, replaces one and tells the number."""
        path = self.dir / "machine.raw"
        machine.make_disk(path, SIZE, self.dir)
        disk = sources.Source(path, SIZE, 2000, sources.vmware_uuid(7))
        self.register("machine", [SIZE])
        dice, files = random.Random(3), {}
        for number in range(increments + 1):
            if number:
                saved = self.dir / f"machine-{disk.number}.raw"
                sources.sparse_copy(path, saved)
                disk.snapshots[disk.change_id] = saved
                disk.number += 1
            files[f"file-{number}"] = dice.randbytes(200_000)
            files["file-0"] = dice.randbytes(300_000)
            sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()))
            changed = {f"/data/{name}": files[name] for name in {f"file-{number}", "file-0"}}
            machine.put_files(path, changed | {"/etc/sums": sums.encode(), "/etc/increment": f"{number}\n".encode()}, self.dir)
            self.client_backup("machine", [disk], "incremental" if number else "full")
        return disk

    def recovery(self, point):
        answer = self.hub.api("POST", "/restores", {"backup_id": point["backup_id"], "disk_id": 0, "mode": "writable"})
        self.assertEqual(answer.status, 201, answer)
        return answer.body

    def boot(self, uri, **more):
        booted = machine.Machine(self.kernel, uri, self.dir, **more)
        self.addCleanup(booted.close)
        return booted

    def test_it_boots_from_its_newest_point_and_from_an_old_one(self):
        disk = self.back_up_machine(INCREMENTS)
        points = self.chain("machine")["backups"]
        self.assertEqual(len(points), INCREMENTS + 1)
        for point, number in ((points[-1], INCREMENTS), (points[7], 7)):
            made = self.recovery(point)
            begun = time.monotonic()
            booted = self.boot(made["nbd_uri"], stay=True)
            said = booted.wait_for_prompt()
            seconds = time.monotonic() - begun
            self.assertEqual(said, f"witness: increment {number}, {number + 1} files intact")
            [export] = [e for e in self.exports() if e["name"] == made["export_name"]]
            print(f"increment {number}: the prompt after {seconds:.1f} s and {export['bytes_read'] / MIB:.1f} MiB of {SIZE // MIB}")
            self.assertLess(export["bytes_read"], SIZE // 2)
            self.assertGreater(self.hub.get(f"/restores/{made['restore_id']}").body["written_bytes"], MIB // 4)
            booted.ask(("quit", {}))
            booted.wait_until_off()
            self.assertEqual(self.hub.api("DELETE", f"/restores/{made['restore_id']}").status, 200)
        # Nothing of what the machine wrote is in the points.
        qemu.verify(self.images("machine")[-1], disk.content_at(points[-1]["change_id"]))

    def test_it_moves_to_its_new_home_while_it_runs(self):
        """The recipe of docs/restore.md: blockdev-mirror, then the restore is dropped"""
        self.back_up_machine(1)
        made = self.recovery(self.chain("machine")["backups"][-1])
        booted = self.boot(made["nbd_uri"], stay=True)
        booted.wait_for_prompt()
        home = self.dir / "home.qcow2"
        qemu.create(home, SIZE)
        booted.ask(
            ("blockdev-add", {"driver": "qcow2", "node-name": "home", "file": {"driver": "file", "filename": str(home)}}),
            ("blockdev-mirror", {"job-id": "move", "device": "disk", "target": "home", "sync": "full"}),
        )

        def ready():
            [[job]] = booted.ask(("query-block-jobs", {}))
            return job["ready"]
        scratch.wait_until(ready, 60, "the mirror is in step")
        booted.ask(("block-job-complete", {"device": "move"}))
        scratch.wait_until(lambda: booted.ask(("query-block-jobs", {})) == [[]], 30, "the move is done")
        booted.ask(("blockdev-del", {"node-name": "disk"}))
        scratch.wait_until(lambda: not any(e["connections"] for e in self.exports()), 10, "the machine has left")
        self.assertEqual(self.hub.api("DELETE", f"/restores/{made['restore_id']}").status, 200)
        time.sleep(1)  # the machine writes on, into its new home
        self.assertIsNone(booted.process.poll())
        booted.ask(("quit", {}))
        booted.wait_until_off()
        qemu.check(home)
        again = self.boot(self.served(home))
        self.assertEqual(again.wait_for_prompt(), "witness: increment 1, 2 files intact")

    def served(self, image):
        """An NBD server of somebody else's on an image."""
        at = self.dir / "home.sock"
        server = subprocess.Popen(["qemu-nbd", "-t", "-f", "qcow2", "-k", at, image])
        self.addCleanup(scratch.end_process, server)
        scratch.wait_until(at.exists, 10, "qemu-nbd listens")
        return f"nbd+unix:///?socket={at}"


if __name__ == "__main__":
    run.main()
