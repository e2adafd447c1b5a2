#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`varve pull`: backups of disks that are read from files, devices and NBD servers."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import loop_mount, qemu, run, scratch, sources  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.daemon import binary  # noqa: E402
from harness.storage_daemon import StorageDaemon  # noqa: E402

VM = "web 01"
CLUSTER = 65536
GIB = 1 << 30


class Pulls(HubCase):
    def tearDown(self):
        self.assertEqual(self.node.calls, [], "a pull calls no node")
        super().tearDown()

    def command(self, *words):
        return [binary(), "pull", VM, *map(str, words), "--server", self.hub.url]

    def pull(self, *words, status=0):
        """Runs the command; returns (stdout, stderr)."""
        command = self.command(*words)
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(done.returncode, status, f"{command}: {done.stdout}{done.stderr}\n{self.hub.log[-2000:]}")
        return done.stdout, done.stderr

    def events(self, *words, status=0):
        out, _ = self.pull(*words, "--json", status=status)
        return [json.loads(line) for line in out.splitlines()]

    def disk(self, name="source.raw", size=16 * MIB, seed=1):
        path = self.dir / name
        sources.make_disk(path, size, seed)
        return path

    def newest(self, disk=0):
        return self.chain(VM, disk)["backups"][-1]

    def stored(self, disk=0):
        return scratch.allocated_bytes(self.newest(disk)["file_path"])

    def assert_newest_equals(self, raw, disk=0):
        qemu.verify(self.newest(disk)["file_path"], raw)

    def assert_no_backup(self):
        scratch.wait_until(lambda: self.hub.get("/backups", status="running").body["total"] == 0, 10, "nothing runs")
        self.assert_nothing_left()


class Files(Pulls):
    def test_a_file_of_a_vm_that_nobody_registered_becomes_a_full_point_that_equals_it(self):
        raw = self.disk()
        start, *_, done, published = self.events("--disk", f"0={raw}", "--checkpoint", "one")
        self.assertEqual((start["event"], done["event"], published["event"]), ("start", "done", "published"))
        self.assertEqual(done["data_bytes"] + done["zero_bytes"], raw.stat().st_size)
        self.assert_newest_equals(raw)
        point = self.newest()
        self.assertEqual((point["backup_id"], point["change_id"]), (published["backup_id"], "pull/one"))
        self.assertEqual(self.job(point["backup_id"])["client"], "external")

    def test_several_disks_are_one_backup(self):
        one, two = self.disk("one.raw", 8 * MIB, 1), self.disk("two.raw", 5 * MIB + 512, 2)
        self.pull("--disk", f"1={two}", "--disk", f"0={one}")
        self.assert_newest_equals(one, 0)
        self.assert_newest_equals(two, 1)
        self.assertEqual(self.newest(0)["backup_id"], self.newest(1)["backup_id"])

    def test_listed_changes_become_an_incremental_that_is_refused_on_any_other_base(self):
        raw, listed = self.disk(), self.dir / "areas"
        self.pull("--disk", f"0={raw}", "--checkpoint", "one")
        before = self.dir / "before.raw"
        sources.sparse_copy(raw, before)
        with open(raw, "r+b") as file:
            file.seek(3 * CLUSTER + 100)
            file.write(b"changed")
            file.seek(MIB)
            file.write(bytes(CLUSTER))
        listed.write_text(f"# offset length type\n{3 * CLUSTER} 1K\n{hex(MIB)} 64K hole,zero\n")
        words = ("--disk", f"0={raw}", "--changed", f"0={listed}", "--checkpoint", "two")
        _, text = self.pull(*words, "--since", "zero", status=11)
        self.assertIn("base is not the parent", text)
        self.assert_no_backup()
        *_, done, published = self.events(*words, "--since", "one")
        self.assertEqual((done["data_bytes"], done["zero_bytes"]), (1024, CLUSTER))
        self.assertEqual(published["backup_type"], "incremental")
        self.assert_newest_equals(raw)
        qemu.verify(self.chain(VM)["backups"][0]["file_path"], before)
        self.assertLess(self.stored(), MIB)

    def test_full_takes_everything_whatever_since_says(self):
        raw, listed = self.disk(), self.dir / "areas"
        listed.write_text("0 512\n")
        words = ("--disk", f"0={raw}", "--changed", f"0={listed}", "--since", "lost")
        self.pull(*words, status=11)  # there is no point yet
        *_, published = self.events(*words, "--full")
        self.assertEqual(published["backup_type"], "full")
        self.assert_newest_equals(raw)

    def test_a_disk_that_grew_is_registered_anew_and_pulled_incrementally(self):
        raw, listed = self.disk(size=4 * MIB), self.dir / "areas"
        self.pull("--disk", f"0={raw}", "--checkpoint", "one")
        with open(raw, "r+b") as file:
            file.seek(6 * MIB)
            file.write(b"e" * CLUSTER)
        listed.write_text(f"{4 * MIB} {2 * MIB + CLUSTER}\n")
        self.pull("--disk", f"0={raw}", "--changed", f"0={listed}", "--since", "one", "--checkpoint", "two")
        self.assert_newest_equals(raw)

    def test_a_disk_that_is_new_is_whole_in_an_incremental(self):
        one, two, listed = self.disk("one.raw", 4 * MIB), self.disk("two.raw", 4 * MIB, 2), self.dir / "areas"
        self.pull("--disk", f"0={one}", "--checkpoint", "a")
        listed.write_text("")
        self.pull("--disk", f"0={one}", "--disk", f"1={two}", "--changed", f"0={listed}", "--changed", f"1={listed}",
                  "--since", "a", "--checkpoint", "b")  # fmt: skip
        self.assert_newest_equals(one, 0)
        self.assert_newest_equals(two, 1)

    def test_a_disk_of_the_vm_without_a_source_is_asked_for_by_name(self):
        one, two = self.disk("one.raw", MIB), self.disk("two.raw", MIB, 2)
        self.pull("--disk", f"0={one}", "--disk", f"1={two}")
        _, text = self.pull("--disk", f"0={one}", status=11)
        self.assertIn("there is no --disk 1=SOURCE", text)
        _, text = self.pull("--disk", f"0={one}", "--disk", f"1={two}", "--disk", f"3={two}", status=11)
        self.assertIn("the next new one is 2", text)

    def test_the_bytes_of_an_image_file_are_not_taken_for_a_disk(self):
        image = self.dir / "disk.qcow2"
        qemu.create(image, MIB)
        _, text = self.pull("--disk", f"0={image}", status=1)
        self.assertIn("is a QCOW2 image", text)
        self.assertEqual(self.hub.get("/backups").body["total"], 0)

    def test_zeroes_that_a_file_holds_as_data_are_not_stored(self):
        raw = self.dir / "thick.raw"
        raw.write_bytes(random.Random(1).randbytes(MIB) + bytes(63 * MIB))
        *_, done, _ = self.events("--disk", f"0={raw}")
        self.assertEqual((done["data_bytes"], done["zero_bytes"]), (MIB, 63 * MIB))
        self.assert_newest_equals(raw)
        self.assertLess(self.stored(), 2 * MIB)

    def test_a_list_that_does_not_fit_is_refused_with_its_line(self):
        raw, listed = self.disk(size=MIB), self.dir / "areas"
        for text, words in (("0 512\nx y\n", "line 2: 'x y'"), (f"{MIB} 512\n", "beyond the disk's"),
                            ('[{"offset":0}]', "'length' must be a number")):
            listed.write_text(text)
            _, said = self.pull("--disk", f"0={raw}", "--changed", f"0={listed}", status=1)
            self.assertIn(words, said)

    def test_a_block_device_is_read_to_its_end_under_any_of_its_names(self):
        if why := loop_mount.why_not():
            self.skipTest(why)
        backing = self.disk(size=8 * MIB)
        device = subprocess.run(["losetup", "-f", "--show", backing], capture_output=True, text=True, check=True).stdout.strip()
        self.addCleanup(subprocess.run, ["losetup", "-d", device], check=False)
        link = self.dir / "link"  # as those of /dev/mapper are
        link.symlink_to(device)
        self.pull("--disk", f"0={link}")
        self.assert_newest_equals(backing)

    def test_what_is_neither_file_nor_device_is_refused_at_once(self):
        fifo = self.dir / "fifo"
        os.mkfifo(fifo)
        _, text = self.pull("--disk", f"0={fifo}", status=1)
        self.assertIn("is neither a file nor a block device", text)

    def test_a_wrong_repository_is_named_and_the_vm_not_registered(self):
        self.pull("--disk", f"0={self.disk()}", "--repository", "none", status=10)
        self.assertEqual(self.hub.get(f"/vm-contexts/{VM.replace(' ', '%20')}").status, 404)

    def test_a_full_of_a_sparse_disk_has_no_warning(self):
        self.pull("--disk", f"0={self.disk()}")
        self.assertNotIn("warnings", self.job(self.newest()["backup_id"]))

    def test_usage_is_said_before_anything_is_opened(self):
        for words, said in ((("--disk", "disk.raw"), "write N=SOURCE"),
                            (("--disk", "0=a", "--disk", "0=b"), "given twice"),
                            (("--disk", "0=a", "--bitmap", "x", "--since", "y"), "--bitmap needs an NBD server"),
                            (("--disk", "0=nbd://h/", "--bitmap", "x"), "--bitmap needs --since"),
                            (("--disk", "0=a", "--since", "x"), "neither --bitmap nor --changed"),
                            (("--disk", "0=a", "--changed", "1=b"), "there is no --disk 1"),
                            (("--disk", "0=a", "--requests", "65"), "1 to 64")):
            _, text = self.pull(*words, status=2)
            self.assertIn(said, text)


class ChangedSizes(Pulls):
    """A source that is not the size that it was is not the disk that it was."""

    def setUp(self):
        super().setUp()
        self.raw = self.dir / "source.raw"
        self.raw.write_bytes(random.Random(5).randbytes(24 * MIB))

    def begin(self, *words):
        puller = subprocess.Popen(self.command(*words, "--rate", "8M"), stderr=subprocess.PIPE, text=True)
        self.addCleanup(scratch.end_process, puller)

        def transferring():
            backups = self.hub.get("/backups", status="running").body["backups"]
            return backups and backups[0]["bytes_transferred"] > 2 * MIB

        scratch.wait_until(transferring, 20, "the pull is under way")
        return puller

    def assert_refused(self, puller):
        _, text = puller.communicate(timeout=40)
        self.assertEqual(puller.returncode, 1, text)
        self.assertIn("when the pull began and has", text)
        self.assertNotIn("--resume", text)
        self.assert_no_backup()
        self.assertEqual(self.kept_files(), set())

    def test_a_file_that_is_cut_off_while_it_is_read_becomes_no_point(self):
        puller = self.begin("--disk", f"0={self.raw}")
        os.truncate(self.raw, 16 * MIB)
        self.assert_refused(puller)

    def test_a_file_that_grows_while_it_is_read_becomes_no_point(self):
        puller = self.begin("--disk", f"0={self.raw}")
        os.truncate(self.raw, 32 * MIB)
        self.assert_refused(puller)

    def test_an_image_that_is_cut_off_while_it_is_read_becomes_no_point(self):
        image = self.dir / "disk.qcow2"
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", self.raw, image], check=True)
        puller = self.begin("--disk", f"0=qcow2:{image}")
        os.truncate(image, 16 * MIB)
        self.assert_refused(puller)


class Qemu(Pulls):
    """A disk of QEMU, with a bitmap that its owner turns over at each backup."""

    def setUp(self):
        super().setUp()
        self.raw = self.disk(size=32 * MIB)
        self.socket = self.dir / "source.sock"
        self.image = self.dir / "live.qcow2"
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", self.raw, self.image], check=True)
        self.vm = StorageDaemon(self.dir, [
            {"driver": "file", "node-name": "file", "filename": str(self.image)},
            {"driver": "qcow2", "node-name": "disk", "file": "file"}])  # fmt: skip
        self.addCleanup(self.vm.close)
        self.vm.command("nbd-server-start", addr={"type": "unix", "data": {"path": str(self.socket)}},
                        **{"max-connections": 0})  # fmt: skip
        self.vm.command("block-export-add", type="nbd", id="guest", writable=True,
                        **{"node-name": "disk", "name": "guest"})  # fmt: skip
        self.dice = random.Random(7)

    def uri(self, name):
        return f"nbd+unix:///{name}?socket={self.socket}"

    def write_as_guest(self, count=20, zeroes=True):
        """Random writes, zeroes and trims, to the disk and to the raw file beside it."""
        commands = []
        with open(self.raw, "r+b") as file:
            for _ in range(count):
                length = self.dice.choice((512, 4096, CLUSTER, 3 * CLUSTER))
                offset = self.dice.randrange((32 * MIB - length) // 512) * 512
                pattern = self.dice.choice((0 if zeroes else 1, self.dice.randrange(1, 256)))
                commands += ["-c", f"write -P {pattern} {offset} {length}" if pattern else f"write -z -u {offset} {length}"]
                file.seek(offset)
                file.write(bytes([pattern]) * length)
        subprocess.run(["qemu-io", "-f", "raw", *commands, self.uri("guest")], check=True, capture_output=True)

    def begin(self, number, since=None):
        """What libvirt does: freezes an instant, starts the next bitmap and exports what the last one says."""
        actions = [{"type": "block-dirty-bitmap-add", "data": {"node": "disk", "name": f"cp{number}"}}]
        name = f"frozen-{number}"
        qemu.create(self.dir / f"{name}.qcow2", 32 * MIB)
        self.vm.command("blockdev-add", driver="qcow2", **{"node-name": name,
                        "file": {"driver": "file", "filename": str(self.dir / f"{name}.qcow2")},
                        "backing": "disk"})  # fmt: skip
        actions.append({"type": "blockdev-backup", "data": {"device": "disk", "target": name, "sync": "none",
                                                            "job-id": f"job-{number}", "auto-dismiss": True}})
        if since:
            actions.append({"type": "block-dirty-bitmap-add", "data": {"node": "disk", "name": f"b{number}",
                                                                       "disabled": True}})
            actions.append({"type": "block-dirty-bitmap-merge", "data": {"node": "disk", "target": f"b{number}",
                                                                         "bitmaps": [f"cp{since}"]}})
            actions.append({"type": "block-dirty-bitmap-disable", "data": {"node": "disk", "name": f"cp{since}"}})
        self.vm.command("transaction", actions=actions)
        export = {"node-name": name, "name": name}
        if since:
            export["bitmaps"] = [{"node": "disk", "name": f"b{number}"}]
        self.vm.command("block-export-add", type="nbd", id=name, **export)
        frozen = self.dir / f"{name}.raw"
        sources.sparse_copy(self.raw, frozen)
        return frozen

    def end(self, number):
        self.vm.command("block-export-del", id=f"frozen-{number}")
        scratch.wait_until(lambda: all(e["id"] != f"frozen-{number}" for e in self.vm.command("query-block-exports")),
                           10, "the export is gone")  # fmt: skip
        self.vm.command("job-cancel", id=f"job-{number}")
        scratch.wait_until(lambda: not self.vm.command("query-jobs"), 10, "the job is gone")

    def test_a_full_and_incrementals_equal_the_instants_they_were_begun_at_while_the_guest_writes_on(self):
        frozen = [self.begin(1)]
        self.write_as_guest()
        self.pull("--disk", f"0={self.uri('frozen-1')}", "--checkpoint", "libvirt/cp1")
        self.end(1)
        for number in range(2, 6):
            frozen.append(self.begin(number, since=number - 1))
            self.write_as_guest()
            *_, done, published = self.events(
                "--disk", f"0={self.uri(f'frozen-{number}')}", "--bitmap", f"b{number}",
                "--since", f"libvirt/cp{number - 1}", "--checkpoint", f"libvirt/cp{number}")  # fmt: skip
            self.assertEqual(published["backup_type"], "incremental")
            self.assertGreater(done["skipped_bytes"], 16 * MIB)
            self.end(number)
        points = self.chain(VM)["backups"]
        self.assertEqual([point["change_id"] for point in points], [f"libvirt/cp{n}" for n in range(1, 6)])
        for point, raw in zip(points, frozen):
            qemu.verify(point["file_path"], raw)

    def test_a_bitmap_that_is_not_exported_is_named(self):
        self.begin(1)
        self.pull("--disk", f"0={self.uri('frozen-1')}", "--checkpoint", "cp1")
        _, text = self.pull("--disk", f"0={self.uri('frozen-1')}", "--bitmap", "none", "--since", "cp1", status=1)
        self.assertIn("has no context qemu:dirty-bitmap:none", text)

    def test_snapshot_access_is_read_although_it_refuses_what_is_not_dirty(self):
        """As Proxmox VE does it: copy-before-write above the disk, a bitmap of what may be read."""
        self.vm.command("block-export-del", id="guest")
        scratch.wait_until(lambda: not self.vm.command("query-block-exports"), 10, "the export is gone")
        self.vm.command("block-dirty-bitmap-add", node="disk", name="dirty")
        self.vm.command("block-export-add", type="nbd", id="guest", writable=True,
                        **{"node-name": "disk", "name": "guest"})  # fmt: skip
        first = self.dir / "first.raw"
        sources.sparse_copy(self.raw, first)
        self.vm.command("block-export-add", type="nbd", id="all", **{"node-name": "disk", "name": "all"})
        self.pull("--disk", f"0={self.uri('all')}", "--checkpoint", "pve/1")
        self.assert_newest_equals(first)
        self.write_as_guest(10)
        for export in ("guest", "all"):
            self.vm.command("block-export-del", id=export)
        scratch.wait_until(lambda: not self.vm.command("query-block-exports"), 10, "the exports are gone")
        self.vm.command("block-dirty-bitmap-disable", node="disk", name="dirty")
        qemu.create(self.dir / "fleece.qcow2", 32 * MIB)
        self.vm.command("blockdev-add", driver="qcow2", **{"node-name": "fleece", "file": {
            "driver": "file", "filename": str(self.dir / "fleece.qcow2")}})  # fmt: skip
        self.vm.command("blockdev-add", driver="copy-before-write", file="disk", target="fleece",
                        bitmap={"node": "disk", "name": "dirty"}, **{"node-name": "cbw"})  # fmt: skip
        self.vm.command("blockdev-add", driver="snapshot-access", file="cbw", **{"node-name": "access"})
        self.vm.command("block-export-add", type="nbd", id="guest", writable=True, **{"node-name": "cbw", "name": "guest"})
        self.vm.command("block-export-add", type="nbd", id="access", writable=False,
                        bitmaps=[{"node": "disk", "name": "dirty"}], **{"node-name": "access", "name": "access"})  # fmt: skip
        frozen = self.dir / "frozen.raw"
        sources.sparse_copy(self.raw, frozen)
        # QEMU before 8.0 shows in its snapshot as zero what the guest zeroes during the backup.
        self.write_as_guest(20, zeroes=False)
        self.pull("--disk", f"0={self.uri('access')}", "--bitmap", "dirty", "--since", "pve/1", "--checkpoint", "pve/2")
        self.assert_newest_equals(frozen)


class SlowPulls(Pulls):
    def slow_source(self, raw):
        """A server that gives 1 MiB a second."""
        socket = self.dir / "slow.sock"
        server = subprocess.Popen(["nbdkit", "-f", "-U", str(socket), "--filter=rate", "file", str(raw), "rate=8M"])
        self.addCleanup(scratch.end_process, server)
        scratch.wait_until(socket.exists, 10, "nbdkit listens")
        return server, f"nbd+unix:///?socket={socket}"

    def begin_slow_pull(self):
        raw = self.disk(size=64 * MIB)
        raw.write_bytes(random.Random(3).randbytes(64 * MIB))
        server, uri = self.slow_source(raw)
        puller = subprocess.Popen(self.command("--disk", f"0={uri}", "--server-patience", "1s"), stderr=subprocess.PIPE, text=True)
        self.addCleanup(scratch.end_process, puller)

        def transferring():
            self.assertIsNone(puller.poll(), "the pull has ended")
            backups = self.hub.get("/backups", status="running").body["backups"]
            return backups and backups[0]["bytes_transferred"] > 0

        scratch.wait_until(transferring, 20, "the pull is under way")
        return raw, server, puller

    def assert_next_pull_works(self, raw):
        self.pull("--disk", f"0={raw}")
        self.assert_newest_equals(raw)


class Servers(Pulls):
    """NBD servers that are not as one would like them."""

    def nbdkit(self, *words):
        socket = self.dir / "nbdkit.sock"
        server = subprocess.Popen(["nbdkit", "-f", "-U", str(socket), *map(str, words)])
        self.addCleanup(scratch.end_process, server)
        scratch.wait_until(socket.exists, 10, "nbdkit listens")
        return server, f"nbd+unix:///?socket={socket}"

    def test_a_server_with_room_for_few_connections_is_read_with_those(self):
        raw = self.disk()
        for room in (1, 2, 4):
            socket = self.dir / f"room-{room}.sock"
            server = subprocess.Popen(["qemu-nbd", "-r", "-t", "-f", "raw", "-e", str(room), "-k", socket, raw])
            self.addCleanup(scratch.end_process, server)
            scratch.wait_until(socket.exists, 10, "qemu-nbd listens")
            self.pull("--disk", f"0=nbd+unix:///?socket={socket}")
            self.assert_newest_equals(raw)

    def test_what_is_durable_is_trimmed_at_a_source_that_nobody_needs(self):
        raw, copy = self.disk(), self.dir / "copy.raw"
        sources.sparse_copy(raw, copy)
        _, uri = self.nbdkit("file", copy)
        self.pull("--disk", f"0={uri}", "--trim-source")
        self.assert_newest_equals(raw)
        self.assertLess(scratch.allocated_bytes(copy), MIB)
        _, text = self.pull("--disk", f"0={raw}", "--trim-source", status=11)
        self.assertIn("no source is an NBD export that takes TRIM", text)


class StalledSources(Servers):
    options = {"stall": "2s"}

    def test_a_source_that_says_nothing_more_ends_the_pull_when_the_server_gives_up(self):
        raw = self.disk(size=64 * MIB)
        raw.write_bytes(random.Random(3).randbytes(64 * MIB))
        server, uri = self.nbdkit("--filter=rate", "file", raw, "rate=8M")
        puller = subprocess.Popen(self.command("--disk", f"0={uri}"), stderr=subprocess.PIPE, text=True)
        self.addCleanup(scratch.end_process, puller)
        scratch.wait_until(lambda: self.hub.get("/backups", status="running").body["total"], 20, "the pull is under way")
        time.sleep(1)
        server.send_signal(signal.SIGSTOP)
        self.addCleanup(server.send_signal, signal.SIGCONT)
        _, text = puller.communicate(timeout=40)
        self.assertEqual(puller.returncode, 1)
        self.assertIn("nothing comes from the source; the server's backup has failed: Job stalled", text)

    def test_a_long_stretch_of_zeroes_is_no_stall(self):
        raw = self.dir / "zeroes.raw"
        raw.write_bytes(bytes(24 * MIB))
        self.pull("--disk", f"0={raw}", "--rate", "4M")
        self.assertLess(self.stored(), MIB)


class Ends(SlowPulls):
    """Whatever ends a pull leaves a whole point or nothing, and the next pull works."""

    def test_an_interrupted_pull_cancels_its_backup(self):
        raw, _, puller = self.begin_slow_pull()
        puller.send_signal(signal.SIGINT)
        self.assertEqual(puller.wait(20), 130)
        self.assert_no_backup()
        self.assert_next_pull_works(raw)

    def test_a_pull_with_a_rate_is_interrupted_at_once(self):
        raw = self.disk(size=64 * MIB)
        raw.write_bytes(random.Random(3).randbytes(64 * MIB))
        puller = subprocess.Popen(self.command("--disk", f"0={raw}", "--rate", "1M"), stderr=subprocess.PIPE, text=True)
        self.addCleanup(scratch.end_process, puller)
        scratch.wait_until(lambda: self.hub.get("/backups", status="running").body["total"], 20, "the pull is under way")
        time.sleep(1)
        begun = time.monotonic()
        puller.send_signal(signal.SIGTERM)
        self.assertEqual(puller.wait(20), 130)
        self.assertLess(time.monotonic() - begun, 8)
        self.assert_no_backup()

    def test_a_source_that_dies_fails_the_pull_and_the_backup(self):
        raw, server, puller = self.begin_slow_pull()
        server.kill()
        self.assertEqual(puller.wait(20), 1)
        self.assert_no_backup()
        self.assert_next_pull_works(raw)

    def test_a_server_that_dies_fails_the_pull_and_its_next_start_has_nothing_of_it(self):
        raw, _, puller = self.begin_slow_pull()
        self.hub.kill()
        self.assertEqual(puller.wait(20), 1)
        self.hub.start()
        self.assert_no_backup()
        self.assert_next_pull_works(raw)


class KilledPulls(SlowPulls):
    options = {"disconnect_grace": "1s"}

    def test_a_killed_pull_is_given_up_by_the_server(self):
        raw, _, puller = self.begin_slow_pull()
        _, text = self.pull("--disk", f"0={raw}", status=11)
        self.assertIn("backup already running", text)
        puller.kill()
        self.assert_no_backup()
        self.assert_next_pull_works(raw)


class Huge(Pulls):
    """A disk of 100 GiB of which little is written, exported by QEMU with a bitmap."""

    SIZE, RANGES = 100 * GIB, 400
    FIRST_BYTE = 0.2  # seconds, on a machine that does nothing else

    def setUp(self):
        super().setUp()
        image = self.dir / "disk.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, str(self.SIZE)], check=True)
        self.vm = StorageDaemon(self.dir, [{"driver": "file", "node-name": "file", "filename": str(image)},
                                           {"driver": "qcow2", "node-name": "disk", "file": "file"}])  # fmt: skip
        self.addCleanup(self.vm.close)
        socket = self.dir / "nbd.sock"
        self.vm.command("nbd-server-start", addr={"type": "unix", "data": {"path": str(socket)}}, **{"max-connections": 0})
        self.vm.command("block-dirty-bitmap-add", node="disk", name="dirty")
        self.vm.command("block-export-add", type="nbd", id="guest", writable=True, **{"node-name": "disk", "name": "guest"})
        dice = random.Random(1)
        guest = nbd.NBD()
        guest.connect_uri(f"nbd+unix:///guest?socket={socket}")
        for number in dice.sample(range(self.SIZE // CLUSTER), self.RANGES):
            guest.pwrite(dice.randbytes(CLUSTER), number * CLUSTER)
        guest.shutdown()
        self.vm.command("block-export-del", id="guest")
        scratch.wait_until(lambda: not self.vm.command("query-block-exports"), 10, "the export is gone")
        self.vm.command("block-export-add", type="nbd", id="disk", bitmaps=[{"node": "disk", "name": "dirty"}],
                        **{"node-name": "disk", "name": "disk"})  # fmt: skip
        self.uri = f"nbd+unix:///disk?socket={socket}"

    def test_the_first_byte_comes_before_the_disk_is_mapped(self):
        empty = self.dir / "empty.raw"
        with open(empty, "wb") as file:
            file.truncate(self.SIZE)
        self.pull("--disk", f"0={empty}", "--checkpoint", "a")
        words = ("--disk", f"0={self.uri}", "--bitmap", "dirty", "--since", "a", "--rate", "2M")
        puller = subprocess.Popen(self.command(*words), stderr=subprocess.DEVNULL)
        began = time.monotonic()
        self.addCleanup(scratch.end_process, puller)
        scratch.wait_until(lambda: any(self.job(job["backup_id"])["bytes_transferred"] > 0 for job in
                                       self.hub.get("/backups", status="running").body["backups"]),
                           30, "a byte has come")  # fmt: skip
        seconds = time.monotonic() - began
        print(f"the first byte came after {seconds * 1000:.0f} ms")
        self.assertLess(seconds, 10 * self.FIRST_BYTE)
        self.assertIsNone(puller.poll(), "it was to be seen under way")


if __name__ == "__main__":
    run.main()
