#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Whatever dies during a `varve pull`, and whenever: a whole point is left or nothing, and the next pull works.

The source, the hub and the pull itself are killed at moments spread over the time that a pull takes, at each request to
the hub, and after so many bytes of the source. More moments with VARVE_LONG.
"""

import collections
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import daemon, qemu, run, scratch  # noqa: E402
from harness.case import HubCase, rounds  # noqa: E402
from harness.pull_ends import SIZES, BeforeTheHub, BeforeTheSource, Machine  # noqa: E402

MOMENTS = rounds(5, 60)
RATE = "5M"  # a first pull takes 1 s, an incremental 0.5 s


class Deaths(HubCase):
    options = {"disconnect_grace": "1s", "first_connect": "2s"}

    def setUp(self):
        super().setUp()
        self.machine = Machine(self.dir)
        self.addCleanup(lambda: self.machine.vm.close())
        self.socket, self.url = self.machine.socket, self.hub.url
        self.pulls, self.since = 0, ""
        self.points = {}  # of the VM: checkpoint -> copies of the disks

    def begin(self, since, *words):
        """A pull of the machine as it is now, under a checkpoint of its own."""
        self.pulls += 1
        self.checkpoint = f"cp{self.pulls}"
        self.machine.write()
        self.machine.begin(self.checkpoint, since)
        self.copies = self.machine.copies(self.checkpoint)
        return self.launch(self.checkpoint, since, *words)

    def launch(self, checkpoint, since, *words):
        command = [daemon.binary(), "pull", self.vm_name, "--server", self.url, "--json", "--checkpoint", checkpoint]
        for index in range(len(SIZES)):
            command += ["--disk", f"{index}=nbd+unix:///disk{index}?socket={self.socket}"]
        command += ["--since", since, "--bitmap", since] if since else []
        self.launched_at = time.monotonic()
        puller = subprocess.Popen([*command, *words], stdout=subprocess.PIPE, text=True)
        self.addCleanup(puller.stdout.close)
        self.addCleanup(scratch.end_process, puller)
        return puller

    def ended(self, puller):
        """Its exit status, and what it has said."""
        out, _ = puller.communicate(timeout=60)
        return puller.returncode, [json.loads(line) for line in out.splitlines() if line.endswith("}")]

    def pull(self, since):
        status, events = self.ended(self.begin(since))
        self.assertEqual((status, events[-1].get("backup_type")), (0, "incremental" if since else "full"), events)
        self.assertTrue(self.judge())
        for points, copies in self.newest:  # and the one before it: what was struck, or what it was to stand on
            for point, copy in zip(points, copies):
                qemu.verify(point["file_path"], copy)
        self.machine.end(self.checkpoint)
        self.since = self.checkpoint

    def judge(self):
        """Nothing is under way, and there are the points from before, or these and one whole one: True for the latter."""
        self.assert_nothing_left()
        answer = self.hub.get("/points", vm_name=self.vm_name)
        found = [[], []]
        for point in reversed(answer.body["points"] if answer.status == 200 else []):
            found[point["disk_id"]].append(point)
        ids = [[point["change_id"].removeprefix("pull/") for point in points] for points in found]
        self.assertIn(ids, ([list(self.points)] * 2, [[*self.points, self.checkpoint]] * 2))
        is_published = len(ids[0]) > len(self.points)
        if is_published:
            self.points[self.checkpoint] = self.copies
        self.newest = list(zip(zip(*found), self.points.values()))[-2:]
        return is_published

    def undergo(self, is_first, strike, *words):
        """A pull during which `strike` comes: the first of a new VM, or an incremental. Returns what it has said."""
        if is_first:
            self.vm_name, self.points, self.since = f"web {self.pulls}", {}, ""
        self.struck, self.puller = "", None
        self.puller = self.begin(self.since, *words)
        strike()
        status, events = self.ended(self.puller)
        self.took = time.monotonic() - self.launched_at
        if status == -signal.SIGKILL:
            # Its last request may still be under way, and a job that nobody writes to any more ends by itself.
            scratch.wait_until(lambda: not self.stray_files(), 20, "what was under way has ended")
        is_published = self.judge()
        self.assert_the_next_pull_works(is_published)
        if status != -signal.SIGKILL:
            end = "published" if is_published else "error"
            self.assertEqual((status, events[-1]["event"]), (0 if is_published else 1, end), (self.struck, events))
        return [event["event"] for event in events]

    def assert_the_next_pull_works(self, is_published):
        if self.struck == "source":
            self.machine.start()
            self.assert_lost_bitmaps_are_named()
            self.since = ""
        else:
            if is_published and self.since:  # what a pull would say that has not heard of it
                status, events = self.ended(self.launch("stale", self.since))
                self.assertEqual(status, 11, events)
                self.assertIn("base is not the parent", events[-1]["message"])
            self.since = self.checkpoint if is_published else self.since
            self.machine.end(self.since)
        self.pull(self.since)

    def assert_lost_bitmaps_are_named(self):
        newest = list(self.points)[-1:]
        if newest:
            self.machine.begin("unused", "")
            status, events = self.ended(self.launch("unused", newest[0]))
            self.assertEqual(status, 1, events)
            self.assertIn(f"has no context qemu:dirty-bitmap:{newest[0]}", events[-1]["message"])
            self.assertFalse(self.judge())
            self.machine.end("")

    # --- what strikes: each returns whether a message that is under way still arrives ---

    def kill_source(self):
        self.struck = "source"
        self.machine.kill()
        return True

    def kill_hub(self):
        self.struck = "hub"
        self.hub.kill()
        self.hub.start()
        return False

    def kill_pull(self):
        self.struck = "pull"
        scratch.wait_until(lambda: self.puller, 10, "the pull is known")
        self.puller.kill()
        self.puller.wait()
        return False


class AtAnyMoment(Deaths):
    def setUp(self):
        self.options = {**self.options, "http": f"127.0.0.1:{scratch.free_port_range(1)}"}  # the same after a restart
        super().setUp()

    def sweep(self, kill):
        takes = {}
        for is_first in (True, False, False):
            self.undergo(is_first, lambda: None, "--rate", RATE)
            takes[is_first] = self.took
        stages = collections.Counter()

        def strike(is_first, share):
            moment = takes[is_first] * share
            with self.subTest(is_first=is_first, moment=moment):
                events = self.undergo(is_first, lambda: (time.sleep(moment), kill()), "--rate", RATE)
                stages[" ".join(event for event in events if event not in ("progress", "error"))] += 1

        def in_the_middle():
            return stages["start"] + stages["start done start"]

        for number in range(MOMENTS):
            for is_first in (True, False) if rounds(False, True) else (number % 2 == 0,):
                strike(is_first, (number + 0.5) / (MOMENTS - 1))  # the last one: as it ends
        # A machine that does other things as well is now faster, now slower than it was.
        dice = random.Random(5)
        for number in range(2 * MOMENTS):
            if in_the_middle() <= MOMENTS // 3:
                strike(number % 2 == 0, dice.uniform(0.2, 0.8))
        print(f"ended after: {dict(stages)}", flush=True)
        self.assertGreater(in_the_middle(), MOMENTS // 3)

    def test_the_source_dies(self):
        self.sweep(self.kill_source)

    def test_the_hub_dies(self):
        self.sweep(self.kill_hub)

    def test_the_pull_dies(self):
        self.sweep(self.kill_pull)


class AtEachRequest(Deaths):
    """A request to the hub never gets there, or its answer never comes back: the last one publishes."""

    def setUp(self):
        super().setUp()
        self.front = BeforeTheHub(self.hub)
        self.addCleanup(self.front.close)
        self.url = self.front.url

    def strike_at_each(self, kill):
        both = ("answer", "request")
        for is_first, moments in ((True, rounds(both[1:], both)), (False, both)):
            self.front.strike_at(0, "", None)
            self.undergo(is_first, lambda: None)
            count = next(at for at, one in enumerate(self.front.requests, 1) if one.endswith("/complete")) + 1
            kinds = self.front.requests
            for number in range(1, count + 1):
                for moment in moments if number == count or rounds(False, True) else moments[:1]:
                    with self.subTest(is_first=is_first, of=kinds[number - 1], moment=moment):
                        self.front.strike_at(number, moment, kill)
                        self.undergo(is_first, lambda: None)
                        self.assertTrue(self.struck)

    def test_the_source_dies(self):
        self.strike_at_each(self.kill_source)

    def test_the_hub_dies(self):
        self.strike_at_each(self.kill_hub)

    def test_the_pull_dies(self):
        self.strike_at_each(self.kill_pull)


class AfterSoManyBytes(Deaths):
    def test_the_source_dies(self):
        self.socket = self.dir / "front.sock"
        front = BeforeTheSource(self.socket, self.machine.socket)
        self.addCleanup(front.close)
        places, totals = rounds(6, 40), []
        for is_first in (True, False):
            front.strike_after(0, None)
            self.undergo(is_first, lambda: (self.puller.wait(), totals.append(front.passed)))
            for number in range(places):
                count = round((totals[-1] / 2) ** (number / (places - 1)))  # no two pulls have the same bytes
                with self.subTest(is_first=is_first, bytes=count, of=totals[-1]):
                    front.strike_after(count, self.kill_source)
                    self.undergo(is_first, lambda: (self.puller.wait(), front.strike_after(0, None)))
                    self.assertEqual(self.struck, "source")


if __name__ == "__main__":
    run.main()
