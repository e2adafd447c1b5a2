#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`varve pull libvirt:DOMAIN`: all disks of a domain at one instant, and what has changed since the last time."""

import json
import os
import random
import signal
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import libvirt, qemu, run, scratch, sources  # noqa: E402
from harness.case import MIB, HubCase, rounds  # noqa: E402
from harness.daemon import binary  # noqa: E402
from harness.qcow2_bytes import Qcow2Bytes  # noqa: E402

VM = "web01"
CLUSTER = 65536
SIZES = (24 * MIB, 8 * MIB)


@unittest.skipIf(libvirt.why_not(), libvirt.why_not())
class Domains(HubCase):
    def setUp(self):
        super().setUp()
        self.dir.chmod(0o755)
        self.session = libvirt.Session(self.dir / "user")
        self.addCleanup(self.session.close)
        self.dice = random.Random(5)
        # What the disks hold, beside their images: cheap to copy at an instant.
        self.flat = [self.dir / f"flat-{index}.raw" for index in range(len(SIZES))]
        self.images = [self.session.directory / "disks" / f"disk {index}.qcow2" for index in range(len(SIZES))]
        for seed, (flat, image, size) in enumerate(zip(self.flat, self.images, SIZES)):
            sources.make_disk(flat, size, seed)
            subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", flat, image], check=True)
        self.disks = {"vda": (self.images[0], "qcow2"), "vdb": (self.images[1], "qcow2")}

    def define(self, transient=False):
        self.session.define(VM, self.disks, transient)
        if not transient:
            self.session.start(VM)

    def pull(self, *words, status=0):
        """Returns what was said, as JSON."""
        out, _ = self.session.run(binary(), "pull", f"libvirt:{VM}", "--connect", "qemu:///session", "--server",
                                  self.hub.url, "--json", *words, status=status)  # fmt: skip
        return [json.loads(line) for line in out.splitlines()]

    def write(self, count=6):
        """Writes of the guest to both disks, and to the flat copies."""
        for number, (flat, size) in enumerate(zip(self.flat, SIZES)):
            commands = []
            with open(flat, "r+b") as file:
                for _ in range(count):
                    length = self.dice.choice((512, 4096, CLUSTER, 3 * CLUSTER))
                    offset = self.dice.randrange((size - length) // 512) * 512
                    pattern = self.dice.choice((0, self.dice.randrange(1, 256)))
                    commands.append(f"write -P {pattern} {offset} {length}" if pattern else f"write -z -u {offset} {length}")
                    file.seek(offset)
                    file.write(bytes([pattern]) * length)
            commands.append("flush")  # what was not flushed may be lost with QEMU
            self.session.write(VM, number, commands)

    def frozen(self, name):
        copies = []
        for index, flat in enumerate(self.flat):
            copies.append(self.dir / f"{name}-{index}.raw")
            sources.sparse_copy(flat, copies[-1])
        return copies

    def assert_newest_equals(self, copies):
        for index, copy in enumerate(copies):
            qemu.verify(self.chain(VM, index)["backups"][-1]["file_path"], copy)

    def warnings(self, events):
        return [event["message"] for event in events if event["event"] == "warning"]

    def published(self, events):
        self.assertEqual(events[-1]["event"], "published", events)
        return events[-1]


class Pulls(Domains):
    def test_a_full_and_ten_incrementals_equal_the_domain_while_it_writes_on(self):
        self.define()
        copies = []
        for number in range(rounds(11, 40)):
            self.write()
            copies.append(self.frozen(f"at-{number}"))
            if number % 2:
                # Writes of the next round come while this one is read: the instant does not see them.
                began = self.slow_pull()
                self.write()
                events = began()
            else:
                events = self.pull()
            self.assertEqual(self.published(events)["backup_type"], "incremental" if number else "full", events)
            self.assertEqual(self.warnings(events), [])
            self.assertEqual(len(self.session.checkpoints(VM)), 1)
        for index in range(len(SIZES)):
            points = self.chain(VM, index)["backups"]
            self.assertEqual(len(points), len(copies))
            for point, copy in zip(points, copies):
                qemu.verify(point["file_path"], copy[index])
        self.assertEqual([path.name for path in (self.session.directory / "disks").iterdir() if "qcow2." in path.name], [])

    def slow_pull(self):
        """A pull that has begun, and takes a while; call what is returned for its events."""
        command = self.session.command(binary(), "pull", f"libvirt:{VM}", "--connect", "qemu:///session", "--server",
                                       self.hub.url, "--json", "--rate", "2M", "--server-patience", "1s")  # fmt: skip
        puller = subprocess.Popen(command, env=self.session.environment, stdout=subprocess.PIPE, text=True)
        self.addCleanup(scratch.end_process, puller)
        first = json.loads(puller.stdout.readline())
        self.assertEqual(first["event"], "start", first)
        self.puller = puller

        def ended():
            out, _ = puller.communicate(timeout=60)
            self.assertEqual(puller.returncode, 0, out)
            return [first, *map(json.loads, out.splitlines())]

        return ended

    def rot(self, cluster):
        """A flipped bit in the full of the first disk, found by a verification."""
        image = Qcow2Bytes(self.chain(VM)["backups"][0]["file_path"])
        at = image.host(cluster) + 100
        image.write(at, bytes([image.read(at, 1)[0] ^ 1]))
        subprocess.run([binary(), "verify", VM, "--server", self.hub.url], stdout=subprocess.DEVNULL, check=False)

    def wanted(self):
        [disk, other] = self.hub.get(f"/vm-contexts/{VM}/wanted", repository_id=1).body["disks"]
        self.assertEqual(other["bytes"], 0)
        return [(r["offset"], r["length"]) for r in disk["ranges"]]

    def test_a_repair_reads_the_domain_and_leaves_its_checkpoints_to_the_next_pull(self):
        self.define()
        self.pull()
        self.write()
        since = self.published(self.pull())["change_id"]
        image, newer = (Qcow2Bytes(path) for path in self.repository_images())
        data = [c for c in range(SIZES[0] // CLUSTER) if image.host(c) and not newer.entry(c)]
        for is_running in (True, False):
            cluster = data[-1]
            self.rot(cluster)
            self.assertEqual(self.wanted(), [(cluster * CLUSTER, CLUSTER)])
            checkpoints = self.session.checkpoints(VM)
            events = self.pull("--repair")
            [published] = [event for event in events if event["event"] == "published"]
            self.assertEqual((published["change_id"], self.warnings(events)), (since, []))
            self.assertEqual(self.wanted(), [])
            self.assert_newest_equals(self.flat)
            self.assertEqual(self.session.checkpoints(VM), checkpoints)
            if is_running:
                self.assertIn("None", self.session.virsh("domjobinfo", VM))
                self.write()
                events = self.pull()
                self.assertEqual((self.published(events)["backup_type"], self.warnings(events)), ("incremental", []))
                since = events[-1]["change_id"]
                self.assert_newest_equals(self.flat)
                self.session.virsh("destroy", VM, "--graceful")
                data = [c for c in data if c != cluster and not Qcow2Bytes(self.repository_images()[-1]).entry(c)]
        self.session.start(VM)
        self.write()
        self.assertEqual(self.published(self.pull())["backup_type"], "incremental")
        self.assert_newest_equals(self.flat)
        self.assertEqual(len(self.session.checkpoints(VM)), 1)

    def repository_images(self):
        return [point["file_path"] for point in self.chain(VM)["backups"]]

    def test_a_killed_machine_has_lost_its_bitmaps_and_gets_a_full(self):
        self.define()
        self.pull()
        self.write()
        os.kill(self.session.qemu_pid(VM), signal.SIGKILL)
        scratch.wait_until(lambda: VM not in self.session.virsh("list", "--name"), 20, "libvirt has noticed")
        self.session.start(VM)
        self.write()
        events = self.pull()
        self.assertEqual(self.published(events)["backup_type"], "full")
        self.assertEqual(len(self.warnings(events)), 1, events)
        self.assert_newest_equals(self.flat)
        self.write()
        self.assertEqual(self.published(self.pull())["backup_type"], "incremental")
        self.assert_newest_equals(self.flat)

    def test_a_machine_that_was_shut_down_in_good_order_goes_on_incrementally(self):
        self.define()
        self.pull()
        self.write()
        self.session.virsh("destroy", VM, "--graceful")
        off = self.frozen("off")
        events = self.pull()  # read through qemu-nbd
        self.assertEqual(self.published(events)["backup_type"], "incremental", events)
        self.assert_newest_equals(off)
        self.session.start(VM)
        self.write()
        events = self.pull()
        self.assertEqual(self.published(events)["backup_type"], "incremental", events)
        self.assert_newest_equals(self.flat)

    def test_a_transient_domain_forgets_its_checkpoint_and_is_told_of_it_again(self):
        self.define(transient=True)
        self.pull()
        self.write()
        self.session.virsh("destroy", VM, "--graceful")
        self.define(transient=True)
        self.assertEqual(self.session.checkpoints(VM), [])
        self.write()
        events = self.pull()
        self.assertEqual((self.published(events)["backup_type"], self.warnings(events)), ("incremental", []))
        self.assert_newest_equals(self.flat)

    def test_a_raw_disk_is_read_whole_each_time_and_said_so(self):
        raw = self.session.directory / "disks" / "raw.img"
        sources.sparse_copy(self.flat[1], raw)
        self.disks["vdb"] = (raw, "raw")
        self.define()
        self.pull()
        self.write()
        events = self.pull()
        self.assertEqual(self.published(events)["backup_type"], "incremental")
        self.assertIn("disk vdb is raw", self.warnings(events)[0])
        self.assert_newest_equals(self.flat)

    def test_a_disk_that_is_taken_away_keeps_its_index_and_the_others_theirs(self):
        self.define()
        self.pull()
        self.session.virsh("detach-disk", VM, "vda", "--config")
        self.session.virsh("destroy", VM, "--graceful")
        events = self.pull("--full")
        self.assertEqual(self.published(events)["backup_type"], "full")
        qemu.verify(self.chain(VM, 1)["backups"][-1]["file_path"], self.flat[1])
        self.assertEqual(len(self.chain(VM, 1)["backups"]), 1, "a generation of its own")

    def test_a_disk_under_a_new_name_is_whole_in_an_incremental(self):
        self.define()
        self.pull()
        self.session.virsh("destroy", VM, "--graceful")
        self.disks = {"vda": self.disks["vda"], "vdc": self.disks["vdb"]}
        self.session.virsh("undefine", VM, "--checkpoints-metadata")
        self.define()
        events = self.pull()
        for index, flat in ((0, self.flat[0]), (2, self.flat[1])):
            qemu.verify(self.chain(VM, index)["backups"][-1]["file_path"], flat)
        self.assertEqual(self.published(events)["event"], "published")

    def test_a_machine_that_was_shut_down_after_a_snapshot_gets_a_full(self):
        self.define()
        self.pull()
        self.write()
        self.session.virsh("snapshot-create-as", VM, "s1", "--disk-only")
        self.write()
        self.session.virsh("destroy", VM, "--graceful")
        events = self.pull()
        self.assertEqual(self.published(events)["backup_type"], "full")
        self.assertIn("stands on a snapshot", self.warnings(events)[0])
        self.assert_newest_equals(self.flat)

    def test_a_full_of_a_machine_that_is_off_leaves_no_checkpoint_for_ever(self):
        self.define()
        self.pull()
        self.session.virsh("destroy", VM, "--graceful")
        self.pull("--full")
        self.session.start(VM)
        self.assertEqual(self.published(self.pull())["backup_type"], "full")
        [newest] = self.session.checkpoints(VM)
        self.assertEqual(self.chain(VM, 0)["backups"][-1]["change_id"], f"libvirt/{newest}")

    def test_fulls_leave_one_checkpoint(self):
        self.define()
        for _ in range(3):
            self.assertEqual(self.published(self.pull("--full"))["backup_type"], "full")
            self.assertEqual(len(self.session.checkpoints(VM)), 1)

    def test_a_killed_pull_is_tidied_up_by_the_next_one(self):
        self.hub.stop()
        self.hub.options["disconnect_grace"] = "1s"
        self.hub.start()
        self.define()
        self.pull()
        self.write(20)
        self.slow_pull()
        self.puller.kill()
        self.puller.wait()
        scratch.wait_until(lambda: self.hub.get("/backups", status="running").body["total"] == 0, 20, "the hub has given up")
        self.assertEqual(len(self.session.checkpoints(VM)), 2)
        events = self.pull()
        self.assertEqual((self.published(events)["backup_type"], self.warnings(events)), ("incremental", []))
        self.assertEqual(len(self.session.checkpoints(VM)), 1)
        self.assert_newest_equals(self.flat)

    def test_a_killed_pull_of_a_machine_that_is_off_does_not_keep_it_from_starting(self):
        self.define()
        self.session.virsh("destroy", VM, "--graceful")
        self.slow_pull()
        self.puller.kill()
        self.puller.wait()
        scratch.wait_until(lambda: self.starts(), 10, "the machine can be started")

    def starts(self):
        try:
            self.session.start(VM)
        except AssertionError:
            return False
        return True

    def test_a_backup_job_of_somebody_else_is_left_alone(self):
        self.define()
        theirs = self.session.directory / "theirs.xml"
        theirs.write_text(f"""<domainbackup mode='pull'><server transport='unix' socket='{self.session.directory}/theirs.sock'/>
<disks><disk name='vda' type='file'><scratch file='{self.session.directory}/theirs.qcow2'/></disk></disks></domainbackup>""")
        self.session.virsh("backup-begin", VM, theirs)
        events = self.pull(status=11)
        self.assertIn("has a backup job already", events[-1]["message"])
        self.session.virsh("domjobabort", VM)

    def test_a_refused_pull_leaves_the_domain_as_it_was(self):
        self.define()
        self.pull("--repository", "none", status=10)
        self.assertEqual(self.session.checkpoints(VM), [])
        self.assertEqual(self.session.virsh("domjobinfo", VM).split(), ["Job", "type:", "None"])
        self.assertEqual(self.published(self.pull())["backup_type"], "full")

    def test_an_interrupted_pull_leaves_the_domain_and_the_server_as_they_were(self):
        self.define()
        self.pull()
        [before] = self.session.checkpoints(VM)
        self.write(20)
        self.slow_pull()
        self.puller.send_signal(signal.SIGTERM)
        self.assertEqual(self.puller.wait(30), 130)
        self.assertEqual(self.session.checkpoints(VM), [before])
        self.assert_nothing_left()
        self.assertEqual(self.published(self.pull())["backup_type"], "incremental")
        self.assert_newest_equals(self.flat)

    def test_an_unknown_domain_is_named(self):
        [error] = [event for event in self.pull(status=1) if event["event"] == "error"]
        self.assertIn(f"find domain {VM}", error["message"])


if __name__ == "__main__":
    run.main()
