#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at counted system calls: the daemon dies between any two steps of start, complete,
publish and delete.

strace kills it at the N-th fdatasync, io_uring_enter, … of one of its threads: SQLite makes calls of
its own, and everything that the engine does to files is submitted by io_uring_enter. Each place once
with VARVE_LONG, a spread of them otherwise.
"""

import collections
import contextlib
import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import nbd  # noqa: E402
from harness import qemu, run  # noqa: E402
from harness.case import ACTIVE, MIB, HubCase, rounds  # noqa: E402

CALLS = ("io_uring_enter", "pwrite64", "fdatasync", "fsync", "ftruncate", "rename", "unlink", "rmdir", "mkdir")
PLACES_PER_CALL = rounds(18, 100000)
TRACE = ["strace", "-f", "-qq", "-e", "trace=" + ",".join("?" + call for call in CALLS)]
LINE = re.compile(r"^(\d+) +(\w+)\(")


class Answers:
    """What the scenario was told before the kill."""

    def __init__(self):
        self.job = None
        self.completed = 0
        self.delete_sent = self.deleted = False


class KilledAtACall(HubCase):
    def setUp(self):
        if shutil.which("strace") is None:
            self.skipTest("no strace here")
        super().setUp()
        self.register("vm", [MIB, MIB])
        self.quick_backup("vm", ["u0/1", "u1/1"], writes=[(0, b"full" * 4096)])
        self.hub.stop()
        self.state = self.dir / "state"
        shutil.copytree(self.hub.directory, self.state, symlinks=True)

    def put_state_back(self):
        shutil.rmtree(self.hub.directory)
        shutil.copytree(self.state, self.hub.directory, symlinks=True)

    def scenario(self):
        """Start, write, complete twice, delete; ends early when the daemon dies."""
        answers = Answers()
        with contextlib.suppress(OSError, nbd.Error, AssertionError, ValueError):
            self.hub.start()
            answers.job = self.start("vm", "incremental")
            for index in range(2):
                handle = self.connect(answers.job, index)
                handle.pwrite(b"new" * 1000, 65530)
                answers.completed += self.complete(answers.job, f"u{index}/2", index).status == 200
            answers.delete_sent = True
            path = f"/backups/{answers.job['backup_id']}"
            answers.deleted = self.hub.api("DELETE", path).status == 200
        return answers

    def trace_once(self):
        """How often each call is made by the thread that makes it most often."""
        log = self.dir / "trace.log"
        self.hub.prefix = [*TRACE, "-o", str(log)]
        answers = self.scenario()
        self.assertTrue(answers.deleted, self.hub.log)
        self.hub.stop()
        counts = collections.Counter(match.groups() for match in map(LINE.match, log.read_text().splitlines()) if match)
        most = collections.Counter()
        for (_, call), count in counts.items():
            most[call] = max(most[call], count)
        return most

    def test_nothing_promised_is_lost_and_nothing_is_left_half_done(self):
        """A35 A50 A30"""
        counts = self.trace_once()
        self.assertGreater(counts["fdatasync"] + counts["fsync"], 8, counts)
        killed = tried = 0
        for call, most in sorted(counts.items()):
            for number in range(1, most + 1, max(1, most // PLACES_PER_CALL)):
                with self.subTest(call=call, number=number):
                    tried += 1
                    killed += self.kill_at(call, number)
        print(f"{killed} kills at {tried} of {sum(counts.values())} places: {dict(counts)}", flush=True)
        self.assertGreater(killed, tried * 2 // 3)

    def kill_at(self, call, number):
        """True when the daemon was killed there."""
        self.put_state_back()
        self.hub.prefix = [*TRACE, "-e", f"inject={call}:signal=KILL:when={number}", "-o", str(self.dir / "kill.log")]
        answers = self.scenario()
        killed = not answers.deleted
        if killed:
            self.hub.process.wait(10)
        else:  # another thread made the calls this time
            self.hub.kill()
        self.hub.prefix = []
        self.hub.start()
        self.judge(answers)
        self.hub.stop()
        return killed

    def judge(self, answers):
        for status in ACTIVE:
            self.assertEqual(self.hub.get("/backups", status=status).body["total"], 0)
        self.assertEqual((self.allocated_ports(), self.exports(), self.stray_files()), (0, [], []))
        points = [self.chain("vm", index)["backup_count"] for index in range(2)]
        self.assertIn(points, ([1, 1], [2, 2]), "all disks of a job or none")
        if answers.completed == 2 and not answers.delete_sent:
            self.assertEqual(points, [2, 2], "complete was answered with 200")
        if answers.deleted:
            self.assertEqual(points, [1, 1], "the deletion was answered with 200")
        if answers.completed == 2:
            self.assertEqual(self.hub.get(f"/backups/{answers.job['backup_id']}").status, 200 if points == [2, 2] else 404)
        for index in range(2):
            for image in self.images("vm", index):
                qemu.check(image)
                self.assertTrue(Path(f"{image}.json").exists())
        self.assert_only_named_files()
        self.quick_backup("vm", ["u0/3", "u1/3"], "incremental")
        self.assertEqual([self.chain("vm", index)["backup_count"] for index in range(2)], [n + 1 for n in points])

    def assert_only_named_files(self):
        """The repository's files are exactly those of the points in the catalogue."""
        root = self.hub.repository
        wanted = {root / ".varve-repository", root / ".varve.lock"}
        for image in (image for index in range(2) for image in self.images("vm", index)):
            wanted |= {Path(f"{image}{ending}") for ending in ("", ".json", ".sums")}
            wanted |= {image.parent / "chain.json", image.parent / "latest.qcow2", image.parent.parent / "vm.json"}
        self.assertEqual({path for path in root.rglob("*") if not path.is_dir()}, wanted)


if __name__ == "__main__":
    run.main()
