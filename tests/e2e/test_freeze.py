#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`varve pull libvirt:DOMAIN` and a real guest agent: file systems stand still at the instant, and only then."""

import json
import random
import subprocess
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import agent_machine, libvirt, machine, qemu, run, scratch  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.daemon import binary  # noqa: E402

VM = "web01"
SIZE = 48 * MIB
BALLAST = 8 * MIB
IN_4_SECONDS, IN_16_SECONDS = ("--rate", "2M"), ("--rate", "512K")  # the ballast is copied
FREEZE_DEADLINE = 10  # of `varve pull`: docs/sources.md
TOO_LATE, FOR_EVER = 20, 600  # libvirt gives up the freeze after 10 s, and each thaw after 5 more


class Freezes(HubCase):
    @classmethod
    def setUpClass(cls):
        if reason := agent_machine.why_not():
            raise unittest.SkipTest(reason)
        cls.shared = cls.enterClassContext(scratch.directory())
        cls.shared.chmod(0o755)
        cls.kernel = machine.Kernel(cls.shared / "kernel")
        cls.initramfs = agent_machine.make_initramfs(cls.kernel)

    def setUp(self):
        super().setUp()
        self.dir.chmod(0o755)
        self.session = libvirt.Session(self.dir / "user")
        self.addCleanup(self.session.close)
        image = self.session.directory / "disks" / "disk.qcow2"
        self.make_disk(image)
        self.guest = agent_machine.AgentMachine(self.session, VM, self.kernel, self.initramfs, image)

    def make_disk(self, image):
        root, raw = self.dir / "root", self.dir / "disk.raw"
        root.mkdir()
        (root / "ballast").write_bytes(random.Random(3).randbytes(BALLAST))
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, raw, f"{SIZE >> 10}k"], check=True, capture_output=True)
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image], check=True)

    def start_pull(self, *words):
        command = self.session.command(binary(), "pull", f"libvirt:{VM}", "--connect", "qemu:///session", "--server",
                                       self.hub.url, "--json", *words)  # fmt: skip
        puller = subprocess.Popen(command, env=self.session.environment, stdout=subprocess.PIPE, text=True)
        self.addCleanup(scratch.end_process, puller)
        return puller

    def finish(self, puller):
        """Its warnings, once it has published."""
        out, _ = puller.communicate(timeout=120)
        events = [json.loads(line) for line in out.splitlines()]
        self.assertEqual((puller.returncode, events[-1]["event"]), (0, "published"), out)
        return [event["message"] for event in events if event["event"] == "warning"]

    def point(self):
        """The newest point as a raw file."""
        raw = self.dir / "point.raw"
        qemu.convert_to_raw(self.images(VM)[-1], raw)
        return raw

    def journal_is_in_use(self, disk):
        header = subprocess.run(["dumpe2fs", "-h", disk], check=True, capture_output=True, text=True).stdout
        self.assertIn("has_journal", header)
        return "needs_recovery" in header

    def count_in(self, disk):
        return int(subprocess.run(["debugfs", "-R", "cat /count", disk], check=True, capture_output=True, text=True).stdout)

    def assert_guest_writes(self, seconds=10):
        before = self.guest.count()
        scratch.wait_until(lambda: self.guest.count() > before + 3, seconds, "the guest writes on")

    def freezes(self):
        """(begin, end) of each, as the guest's agent has them: the file systems stand still in between."""
        said = self.guest.said("freeze|thaw")
        self.assertEqual([word for _, word in said], ["freeze", "thaw"] * (len(said) // 2))
        return [(begin, end) for (begin, _), (end, _) in zip(said[::2], said[1::2])]

    def test_the_point_needs_no_recovery_and_the_guest_writes_on_while_it_is_copied(self):
        before = self.guest.count()
        puller = self.start_pull(*IN_4_SECONDS)
        self.assertEqual(json.loads(puller.stdout.readline())["event"], "start")
        self.assert_guest_writes()
        after = self.guest.count()
        [(begin, end)] = self.freezes()
        self.assertIsNone(puller.poll(), "the copy was to last longer than the freeze")
        self.assertEqual(self.finish(puller), [])
        print(f"frozen for {end - begin:.2f} s at most, {self.guest.count() - after} writes while the copy went on")
        self.assertLess(end - begin, FREEZE_DEADLINE)
        point = self.point()
        self.assertFalse(self.journal_is_in_use(point))
        checked = subprocess.run(["e2fsck", "-fn", point], capture_output=True, text=True, check=False)
        self.assertEqual(checked.returncode, 0, checked.stdout)
        self.assertTrue(before <= self.count_in(point) < after, f"{before} {self.count_in(point)} {after}")
        self.assertEqual(len(self.freezes()), 1)

    def test_without_freezing_the_journal_of_the_point_is_in_use(self):
        self.assertEqual(self.finish(self.start_pull("--no-freeze")), [])
        self.assertTrue(self.journal_is_in_use(self.point()))
        self.assertEqual(self.freezes(), [])

    def test_an_agent_that_does_not_answer_costs_a_warning_and_some_seconds(self):
        self.guest.pause_agent(FOR_EVER)
        began = time.monotonic()
        warnings = self.finish(self.start_pull())
        seconds = time.monotonic() - began
        print(f"published after {seconds:.1f} s")
        self.assertIn("the guest's file systems were not frozen", warnings[0])
        self.assertIn(f"'virsh domfsthaw {VM}'", warnings[1])
        self.assertLess(seconds, 3 * FREEZE_DEADLINE)
        self.assertTrue(self.journal_is_in_use(self.point()))
        self.assert_guest_writes()

    def test_an_agent_that_freezes_too_late_is_told_to_thaw(self):
        self.guest.pause_agent(TOO_LATE)
        warnings = self.finish(self.start_pull(*IN_16_SECONDS))
        self.assertIn("the guest's file systems were not frozen", warnings[0])
        scratch.wait_until(lambda: self.guest.said("freeze"), TOO_LATE, "the agent freezes")
        self.assert_guest_writes()

    def test_file_systems_that_were_left_frozen_are_thawed(self):
        self.session.virsh("domfsfreeze", VM)
        [warning] = self.finish(self.start_pull())
        self.assertIn("the guest's file systems were not frozen", warning)
        self.assert_guest_writes()
        self.assertEqual(len(self.freezes()), 1)


if __name__ == "__main__":
    run.main()
