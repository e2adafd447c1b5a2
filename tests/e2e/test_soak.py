#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Readers, backups, deletions, writable restores that expire, and kills, all beside each other; no byte is wrong."""

import os
import random
import sys
import threading
import time
import urllib.error
from pathlib import Path

import nbd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import qemu, run, scratch  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402

SIZE = 6 * MIB
SECONDS = 600 if os.environ.get("VARVE_LONG") else 30
KILL_EVERY = 7
GENERATION = 5  # points
# What a kill looks like to a client; while varve is down the harness does not know where it listens.
INTERRUPTIONS = (nbd.Error, urllib.error.URLError, OSError, TypeError, AssertionError)


class WrongBytes(Exception):
    pass


class World:
    """What the clients know: which points there are, and what is in them."""

    def __init__(self):
        self.lock = threading.Lock()
        self.contents = {}  # backup id -> bytes
        self.doomed = set()  # somebody has asked for their deletion
        self.kills, self.down = 0, False
        self.failures = []
        self.counts = dict.fromkeys(("backups", "reads", "restores", "deletions", "interruptions"), 0)

    def count(self, what):
        with self.lock:
            self.counts[what] += 1

    def some_point(self, dice):
        with self.lock:
            known = [point for point in self.contents if point not in self.doomed]
            return dice.choice(known) if known else None


class Soak(HubCase):
    options = {"point_idle": "1s"}

    def test_everything_beside_everything_and_no_byte_is_wrong(self):
        self.register("vm", [SIZE])
        self.world, self.end = World(), time.monotonic() + SECONDS
        roles = [self.back_up, self.read, self.read, self.read, self.work_with_restores, self.delete]
        threads = [threading.Thread(target=self.play, args=(role, seed)) for seed, role in enumerate(roles)]
        for thread in threads:
            thread.start()
        while time.monotonic() < self.end - 2:
            time.sleep(KILL_EVERY)
            with self.world.lock:
                self.world.kills, self.world.down = self.world.kills + 1, True
            self.hub.kill()
            self.hub.start()
            self.world.down = False
        for thread in threads:
            thread.join(120)
            self.assertFalse(thread.is_alive(), "a client waits for ever")
        self.assertEqual(self.world.failures, [])
        print(self.world.counts, f"{self.world.kills} kills")
        for what, least in {"backups": 5, "reads": 100, "restores": 5, "deletions": 1}.items():
            self.assertGreaterEqual(self.world.counts[what], least, what)
        self.expect_all_as_known()

    def play(self, role, seed):
        """One client until the end; what a kill interrupts is begun anew. A kill makes any answer possible, but for
        wrong bytes."""
        dice = random.Random(seed)
        while time.monotonic() < self.end and not self.world.failures:
            if self.world.down:
                time.sleep(0.05)
                continue
            kills = self.world.kills
            try:
                role(dice)
            except WrongBytes as error:
                self.world.failures.append(f"{role.__name__}: {error}")
            except INTERRUPTIONS as error:
                if self.world.kills == kills:
                    self.world.failures.append(f"{role.__name__}: {error!r}")
                self.world.count("interruptions")

    # --- the clients ---

    def back_up(self, dice):
        chain = self.hub.get("/backups/chain", vm_name="vm", disk_id=0)
        points = [point["backup_id"] for point in chain.body["backups"]] if chain.status == 200 else []
        full = not points or points[-1] not in self.world.contents or len(points) >= GENERATION
        answer = self.post("vm", "full") if full else self.post("vm", "incremental", base=points[-1])
        if answer.status in (400, 409) and not full and points[-1] in self.world.doomed:
            return  # its base has just been deleted
        self.assertEqual(answer.status, 200, answer)
        job = answer.body
        content = bytearray(SIZE if full else self.world.contents[points[-1]])
        handle = self.connect(job)
        for _ in range(dice.randrange(1, 8)):
            offset = dice.randrange(0, SIZE - 300_000) // 512 * 512
            data = dice.randbytes(dice.randrange(1, 500) * 512)
            handle.pwrite(data, offset)
            content[offset:offset + len(data)] = data
        try:
            done = self.complete(job, f"u/{time.monotonic_ns()}").status == 200
        except INTERRUPTIONS:
            done = None
        if not done:
            done = self.what_became_of(job["backup_id"]) == "completed"
        if done:
            with self.world.lock:
                self.world.contents[job["backup_id"]] = bytes(content)
            self.world.count("backups")

    def what_became_of(self, job_id):
        def ended():
            try:
                status = self.hub.get(f"/backups/{job_id}").body["status"]
            except INTERRUPTIONS:
                return None
            return status if status not in ("pending", "running") else None
        return scratch.wait_until(ended, 30, f"the end of {job_id}")

    def read(self, dice):
        point = self.world.some_point(dice)
        if point is None:
            return time.sleep(0.1)
        handle = nbd.NBD()
        try:
            handle.connect_uri(self.hub.export_uri(f"vm/disk-0@{point}"))
        except nbd.Error:
            if point in self.world.doomed:
                return None
            raise
        for _ in range(dice.randrange(1, 12)):
            offset, length = dice.randrange(SIZE - 1), dice.randrange(1, 400_000)
            length = min(length, SIZE - offset)
            self.expect(handle.pread(length, offset), self.world.contents[point][offset:offset + length], point)
            self.world.count("reads")
        handle.shutdown()
        return None

    def work_with_restores(self, dice):
        point = self.world.some_point(dice)
        if point is None:
            return time.sleep(0.1)
        body = {"backup_id": point, "disk_id": 0, "mode": "writable", "expires_in_seconds": dice.randrange(2, 5)}
        answer = self.hub.api("POST", "/restores", body)
        if answer.status in (404, 409) and point in self.world.doomed:
            return None
        self.assertEqual(answer.status, 201, answer)
        content = bytearray(self.world.contents[point])
        handle = nbd.NBD()
        handle.connect_uri(answer.body["nbd_uri"])
        for _ in range(8):
            offset, data = dice.randrange(SIZE - 70_000), dice.randbytes(dice.randrange(1, 70_000))
            handle.pwrite(data, offset)
            content[offset:offset + len(data)] = data
            offset = dice.randrange(SIZE - 200_000)
            self.expect(handle.pread(200_000, offset), content[offset:offset + 200_000], answer.body["restore_id"])
        handle.flush()
        handle.shutdown()
        self.world.count("restores")
        if dice.randrange(2):
            self.assertIn(self.hub.api("DELETE", f"/restores/{answer.body['restore_id']}").status, (200, 404))
        return None

    def delete(self, dice):
        time.sleep(dice.random())
        with self.world.lock:
            if len(self.world.contents) < GENERATION:
                return
            chain = [p["backup_id"] for p in self.hub.get("/backups/chain", vm_name="vm", disk_id=0).body["backups"]]
            old = [point for point in self.world.contents if point not in chain]
            doomed = old or chain[dice.randrange(len(chain)):]
            self.world.doomed.update(doomed)
        # Nobody begins to read it now; who still does, or works with a restore of it, comes to an end.
        for _ in range(40):
            answer = self.hub.api("DELETE", f"/backups/{doomed[0]}?cascade=true")
            self.assertIn(answer.status, (200, 404, 409), answer)
            if answer.status != 409:
                break
            time.sleep(0.2)
        if answer.status == 200:
            self.world.count("deletions")

    # --- what must be ---

    def expect(self, got, wanted, where):
        if bytes(got) != bytes(wanted):
            raise WrongBytes(where)

    def expect_all_as_known(self):
        scratch.wait_until(lambda: self.hub.get("/restores").body["count"] == 0, 30, "the restores have expired")
        self.assertEqual(list(self.hub.repository.rglob("*.overlay")), [])
        self.assertEqual(self.stray_files(), [])
        there = {point["backup_id"] for point in self.hub.get("/points", vm_name="vm", limit=1000).body["points"]}
        lost = [point for point in self.world.contents if point not in there and point not in self.world.doomed]
        self.assertEqual(lost, [])
        for point in there & set(self.world.contents):
            handle = nbd.NBD()
            handle.connect_uri(self.hub.export_uri(f"vm/disk-0@{point}"))
            self.expect(handle.pread(SIZE, 0), self.world.contents[point], point)
            handle.shutdown()
        for image in self.hub.repository.rglob("*.qcow2"):
            if not image.is_symlink():
                qemu.check(image)


if __name__ == "__main__":
    run.main()
