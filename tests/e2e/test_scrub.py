#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Verifications on a schedule: every point is proven though nobody asks, and backups come first."""

import random
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run, scratch  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.qcow2_bytes import Qcow2Bytes  # noqa: E402

CLUSTER = 65536
PATIENCE = 20


class ScrubCase(HubCase):
    def back_up(self, vm_name, increments=1):
        """A full of one disk and increments; the ids of the backups."""
        dice = random.Random(7)
        ids = [self.quick_backup(vm_name, ["a/1"], writes=[(0, dice.randbytes(3 * MIB))])["backup_id"]]
        for number in range(increments):
            writes = [(number * CLUSTER, dice.randbytes(CLUSTER))]
            ids.append(self.quick_backup(vm_name, [f"a/{number + 2}"], "incremental", writes)["backup_id"])
        return ids

    def points(self):
        return self.hub.get("/points").body["points"]

    def verifications(self):
        return self.hub.get("/verifications").body["verifications"]

    def metric(self, line):
        return int(re.search(re.escape(line) + r" (\d+)$", self.hub.root("/metrics").text, re.M)[1])

    def scrubbed(self):
        return sum(self.metric(f'varve_verified_images_total{{begun_by="scrub",result="{result}"}}')
                   for result in ("sound", "damaged"))  # fmt: skip

    def wait_until(self, condition, what):
        return scratch.wait_until(condition, PATIENCE, what)


class Scrub(ScrubCase):
    options = {"scrub_interval": "2s"}

    def setUp(self):
        super().setUp()
        for vm_name in ("web01", "db01"):
            self.register(vm_name, [8 * MIB])

    def test_all_points_are_proven_and_proven_again_though_nobody_asks(self):
        for vm_name in ("web01", "db01"):
            self.back_up(vm_name)
        self.wait_until(lambda: all(point["verification"] == "sound" for point in self.points() if "verification" in point)
                        and all(point["verified_at"] for point in self.points()), "every point is proven")  # fmt: skip
        self.assertEqual(len(self.points()), 4)
        self.assertEqual({task["begun_by"] for task in self.verifications()}, {"scrub"})
        self.assertEqual(self.metric('varve_points{verification="sound"}'), 4)
        self.assertEqual(self.metric('varve_points{verification="never"}'), 0)
        first = {point["file_path"]: point["verified_at"] for point in self.points()}
        self.wait_until(lambda: all(point["verified_at"] > first[point["file_path"]] for point in self.points()), "proven again")
        self.assertGreater(self.metric('varve_verified_bytes_total{begun_by="scrub"}'), 6 * MIB)

    def test_the_next_round_finds_what_has_been_damaged_since_and_names_who_reads_it(self):
        ids = self.back_up("web01", increments=2)
        self.back_up("db01")
        self.wait_until(lambda: all(point["verified_at"] for point in self.points()), "every point is proven")
        image = Qcow2Bytes(self.images("web01")[0])
        at = image.host(40) + 99
        image.write(at, bytes([image.read(at, 1)[0] ^ 16]))
        self.wait_until(lambda: self.metric('varve_points{verification="damaged"}') == 1, "the damage is found")
        self.assertEqual(self.metric('varve_points{verification="sound"}'), 4)
        [found] = [point for point in self.points() if point["verification"] == "damaged"]
        self.assertEqual(found["backup_id"], ids[0])
        task = next(task for task in self.verifications() if task["damaged_backups"])
        self.assertEqual((task["begun_by"], task["damaged_backups"]), ("scrub", ids))
        self.assertIn(f"backup {ids[0]} of VM web01: disk 0 is damaged: {CLUSTER} bytes are not what was sent: "
                      f"{40 * CLUSTER}+{CLUSTER}; so are the backups on it: {ids[2]}, {ids[1]}", self.hub.log)  # fmt: skip

    def test_nothing_is_begun_while_a_backup_runs(self):
        self.back_up("web01")
        job = self.start("db01")
        time.sleep(1.2)  # one that was under way has seen it
        before = self.scrubbed()
        time.sleep(4)
        self.assertEqual(self.scrubbed(), before)
        self.write_and_complete(job, 0, "a/9", [(0, b"x" * CLUSTER)])
        self.wait_until(lambda: all(point["verified_at"] for point in self.points()), "every point is proven")

    def test_a_repository_that_is_away_is_left_out_and_proven_when_it_is_back(self):
        self.back_up("web01")
        away = self.dir / "away"
        self.hub.repository.rename(away)
        time.sleep(5)
        self.assertLessEqual(self.hub.log.count(" failed: "), 2, self.hub.log)
        self.assertEqual(self.metric('varve_points{verification="damaged"}'), 0)
        away.rename(self.hub.repository)
        before = self.scrubbed()
        self.wait_until(lambda: self.scrubbed() >= before + 2, "its points are proven again")


class SlowScrub(ScrubCase):
    """At 256 KiB/s an image of 3 MiB takes 12 s."""

    options = {"scrub_interval": "1s", "scrub_rate": "256K"}

    def setUp(self):
        super().setUp()
        for vm_name in ("web01", "db01"):
            self.register(vm_name, [8 * MIB])
        self.ids = self.back_up("web01")
        self.task = self.wait_until(self.running, "a scrub runs")
        self.wait_until(self.read_bytes, "it reads")

    def running(self):
        return next((task for task in self.verifications() if task["state"] == "running"), None)

    def read_bytes(self):
        return self.hub.get(f"/verifications/{self.task['verification_id']}").body["read_bytes"]

    def state(self):
        return self.hub.get(f"/verifications/{self.task['verification_id']}").body["state"]

    def test_one_under_way_waits_for_a_backup_and_goes_on_where_it_was(self):
        job = self.start("db01")
        self.wait_until(lambda: "waits: a backup runs" in self.hub.log, "it waits")
        time.sleep(1)
        before = self.read_bytes()
        time.sleep(2)
        self.assertEqual((self.state(), self.read_bytes()), ("running", before))
        self.write_and_complete(job, 0, "a/9", [(0, b"x" * CLUSTER)])
        self.wait_until(lambda: self.read_bytes() > before, "it goes on")

    def test_a_request_a_deletion_and_the_end_of_varve_do_not_wait_for_it(self):
        asked = self.hub.api("POST", "/verifications", {"vm_name": "web01"})
        self.assertEqual((asked.status, asked.body["begun_by"]), (202, "request"), asked)
        self.assertEqual(self.state(), "cancelled")
        self.hub.api("DELETE", f"/verifications/{asked.body['verification_id']}")
        self.assertEqual(self.wait_until(self.running, "the next scrub")["begun_by"], "scrub")
        self.assertEqual(self.hub.api("DELETE", f"/backups/{self.ids[0]}?cascade=true").status, 200)
        self.back_up("db01", increments=0)
        self.wait_until(self.running, "one more")
        begun = time.monotonic()
        self.assertEqual(self.hub.stop(), 0)
        self.assertLess(time.monotonic() - begun, 5)


class NoScrub(ScrubCase):
    def test_without_an_interval_nothing_is_proven_unasked(self):
        self.register("web01", [8 * MIB])
        self.back_up("web01")
        time.sleep(2.5)
        self.assertEqual(self.verifications(), [])


if __name__ == "__main__":
    run.main()
