#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The scripted scenario of tests/acceptance.md, in one command.

    tests/e2e/test_scenario.py [--sizes-mib 5120,1024] [unittest options]
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import qemu, run, side_by_side, sources  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402

SIZES_MIB = [5120, 1024]
LEGACY_DIVISOR = 4  # the repetition with client 1.0.1 proves the sequence, not the size
DATA_FRACTION = 0.06
POINTS = 5
STORED_AT_MOST = 0.10


def step(text):
    print(f"  {time.strftime('%X')}  {text}", flush=True)


class Scenario(HubCase):
    def setUp(self):
        super().setUp()
        self.seed = 100

    # --- verbs ---

    def vm(self, name, sizes):
        folder = self.dir / name
        folder.mkdir()
        disks = sources.make_sources(folder, sizes, data_fraction=DATA_FRACTION)
        self.register(name, sizes)
        return disks

    def change(self, disks):
        for disk in disks:
            self.seed += 1
            disk.advance(self.seed)

    def asked(self, events, key):
        return [event["answer"] for event in events if event["key"] == key]

    def full(self, name, disks, options=()):
        job, done = self.client_backup(name, disks, "full", options)
        for disk in disks:
            self.assertEqual(self.asked(done.events("changeid"), disk.key), [""])
            self.assertGreater(self.sent(done, disk)["zeroed"], 0, "the pattern has zero chunks")
        self.check_newest(name, disks)
        for index, disk in enumerate(disks):
            newest = self.images(name, index)[-1]
            self.assertEqual(qemu.info(newest)["virtual-size"], disk.size)
            self.assertNotIn("backing-filename", qemu.info(newest))
        return job

    def sent(self, done, disk):
        return next(event for event in done.events("copied") if event["key"] == disk.key)

    def incremental(self, name, disks, options=()):
        """Step 3: change, back up, compare; each disk is told its own previous id three times."""
        before = [disk.change_id for disk in disks]
        self.change(disks)
        job, done = self.client_backup(name, disks, "incremental", options)
        for disk, previous in zip(disks, before):
            self.assertEqual(self.asked(done.events("changeid"), disk.key), [previous] * 3)
        self.check_newest(name, disks)
        for index in range(len(disks)):
            chain = self.chain(name, index)["backups"]
            text = qemu.info_text(chain[-1]["file_path"])
            self.assertRegex(text, r"(?m)^backing file: ")
            self.assertRegex(text, r"(?m)^backing file format: qcow2$")
            stored, whole = chain[-1]["allocated_bytes"], chain[0]["allocated_bytes"]
            self.assertLessEqual(stored, STORED_AT_MOST * whole, f"disk {index}: {stored} of {whole}")
        return job

    def check_newest(self, name, disks):
        for index, disk in enumerate(disks):
            point = self.chain(name, index)["backups"][-1]
            self.assertEqual(point["change_id"], disk.change_id)
            qemu.verify(point["file_path"], disk.path)

    def check_chains(self, name, disks, points):
        for index in range(len(disks)):
            files = self.images(name, index)
            self.assertEqual(len(files), points)
            self.assertEqual(qemu.backing_chain(files[-1]), [path.name for path in reversed(files)])

    def crash(self):
        self.hub.kill()
        self.hub.restart()
        self.starter.api_url = self.hub.url

    def crashed_job(self, name, disks, fault_options, event, count):
        """kill -9 of varve when the client has reported `event` `count` times; the job's status."""
        self.change(disks)
        job, running = self.launch_client(name, disks, "incremental", fault_options)
        running.wait_for(event, count)
        self.crash()
        running.kill()
        return self.job(job["backup_id"])["status"]

    # --- the scenario ---

    def test_the_scripted_scenario_holds(self):
        """A36 A37 A19 A23 A29 A35 steps 1 to 6"""
        sizes = [size * MIB for size in SIZES_MIB]
        step(f"1  sources of {SIZES_MIB} MiB")
        disks = self.vm("main", sizes)
        step("2  full")
        self.full("main", disks)
        for number in range(2, POINTS + 1):
            step(f"3  incremental, point {number}")
            self.incremental("main", disks)
        step("4  five points, each against its saved source")
        self.check_chains("main", disks, POINTS)
        self.assert_points_equal_sources("main", disks)
        step("5  second full, incremental on it; the old generation still holds")
        self.change(disks)
        self.full("main", disks)
        self.incremental("main", disks)
        self.check_chains("main", disks, 2)
        for index, disk in enumerate(disks):
            for point in self.chain("main", index, generation=1)["backups"]:
                qemu.compare(disk.content_at(point["change_id"]), point["file_path"])
        step("6  kill -9 in mid-copy, between the completes, after the last 200")
        silent = ["--fault", f"hang:{64 * 1024}"]
        self.assertEqual(self.crashed_job("main", disks, silent, "copy", 1), "failed")
        between = ["--fault", "before-complete:1"]
        self.assertEqual(self.crashed_job("main", disks, between, "complete", 1), "failed")
        self.assertEqual(self.crashed_job("main", disks, [], "complete", 2), "completed")
        self.check_newest("main", disks)
        self.incremental("main", disks)
        self.check_chains("main", disks, 4)
        self.assert_points_equal_sources("main", disks)
        self.assert_nothing_left()

    def test_the_same_with_client_1_0_1_and_through_the_main_port(self):
        """A18 A12 step 7"""
        sizes = [max(256, size // LEGACY_DIVISOR) * MIB for size in SIZES_MIB]
        disks = self.vm("legacy", sizes)
        self.starter.through_port = self.hub.nbd_port
        step("7  full and three incrementals of client 1.0.1 through the main port")
        self.full("legacy", disks, ["--legacy"])
        self.assertEqual({target.port for target in self.starter.last.targets}, {self.hub.nbd_port})
        for _ in range(3):
            self.incremental("legacy", disks, ["--legacy"])
        self.check_chains("legacy", disks, 4)
        self.assert_points_equal_sources("legacy", disks)

    def test_the_clients_pattern_side_by_side_with_qemu_nbd(self):
        """A51 step 8: prints the ratio; test_throughput.py judges it"""
        disk = sources.make_sources(self.dir, [SIZES_MIB[-1] * MIB], data_fraction=0.3)[0]
        step("8  interleaved with qemu-nbd")
        folder = self.dir / "compare"
        folder.mkdir()
        result = side_by_side.compare(folder, disk, 2)
        print(result.text())
        self.assertGreater(result.ratio, 0)


def take_sizes():
    """Takes --sizes-mib out of the arguments; the rest is unittest's."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=False)
    parser.add_argument("--sizes-mib", default=",".join(map(str, SIZES_MIB)))
    known, rest = parser.parse_known_args(sys.argv[1:])
    SIZES_MIB[:] = [int(size) for size in known.sizes_mib.split(",")]
    sys.argv[1:] = rest


if __name__ == "__main__":
    take_sizes()
    run.main()
