#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/sources.md, as they stand there."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import qemu, run, scratch, sources  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.daemon import binary  # noqa: E402
from harness.storage_daemon import StorageDaemon  # noqa: E402

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sources.md"
SIZE = 32 * MIB
VM = "web01"


def blocks_of(heading):
    section = PAGE.read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


class Page(HubCase):
    def setUp(self):
        super().setUp()
        self.work = self.dir / "work"
        self.work.mkdir()
        (self.work / "varve").symlink_to(binary())
        self.raw = self.work / "disk.raw"
        sources.make_disk(self.raw, SIZE, 3)

    def shell(self, words, **variables):
        words = words.replace("http://127.0.0.1:8082", self.hub.url)
        environment = {**os.environ, "PATH": f"{self.work}:{os.environ['PATH']}", "VARVE_URL": self.hub.url, **variables}
        done = subprocess.run(["sh", "-ec", words], cwd=self.work, env=environment, timeout=60, capture_output=True,
                              text=True, check=False)  # fmt: skip
        self.assertEqual(done.returncode, 0, f"{words}\n{done.stdout}{done.stderr}")
        return done.stdout

    def assert_newest_equals(self, raw):
        qemu.verify(self.chain(VM)["backups"][-1]["file_path"], raw)

    def change(self):
        """A change of the raw file, listed in areas.txt."""
        with open(self.raw, "r+b") as file:
            file.seek(5 * MIB)
            file.write(b"changed" * 100)
        (self.work / "areas.txt").write_text(f"{5 * MIB} 65536\n")


class Nbdkit(Page):
    def test_pulls_what_nbdkit_opens_whole_and_then_what_a_list_says(self):
        first, second = blocks_of("nbdkit, and VMware by its VDDK")[0].splitlines()
        self.shell(first)
        self.assert_newest_equals(self.raw)
        self.change()
        self.shell(second)
        self.assert_newest_equals(self.raw)
        self.assertEqual(self.chain(VM)["backups"][-1]["type"], "incremental")


class Written(Page):
    def start(self, register, start):
        """A started backup: its id and the target of its disk."""
        self.shell(register)
        started = json.loads(self.shell(start))
        return started["backup_id"], started["nbd_targets_string"].removeprefix("0:")

    def blocks(self):
        start, writers, complete, push = blocks_of("Written by the source itself")
        register, start = re.split(r"\n(?=curl)", start)
        return register, start, writers.splitlines(), complete, push.splitlines()

    def test_by_each_tool_that_writes_nbd(self):
        register, start, writers, complete, _ = self.blocks()
        self.assertEqual(len(writers), 2)
        for writer in writers:
            backup, target = self.start(register, start)
            self.shell(writer, TARGET=target)
            self.shell(complete, BACKUP=backup)
            self.assert_newest_equals(self.raw)
            self.assertEqual(self.chain(VM)["backups"][-1]["change_id"], "web01/1")

    def test_by_qemu_itself_whole_and_then_what_a_bitmap_says_thin_both_times(self):
        register, start, _, complete, push = self.blocks()
        thin = self.work / "thin.raw"
        with open(thin, "wb") as file:
            file.truncate(SIZE)
            file.write(random.Random(1).randbytes(MIB))
        vm = StorageDaemon(self.dir, [{"driver": "file", "node-name": "disk", "filename": str(thin)}])
        self.addCleanup(vm.close)
        connect, full = (json.loads(line) for line in push)
        for kind in ("full", "incremental"):
            words = start.replace('"full"', f'"{kind}"')
            if kind == "incremental":
                words = words.replace('"client"', '"base":"web01/1","client"')
            backup, target = self.start(register, words)
            server, name = re.fullmatch(r"nbd://[^:]+:(\d+)/(.*)", target).groups()
            arguments = connect["arguments"]
            vm.command("blockdev-add", **{**arguments, "server": {**arguments["server"], "port": server}, "export": name})
            copying = dict(full["arguments"])
            job = copying.pop("job-id")
            if kind == "incremental":
                copying |= {"sync": "bitmap", "bitmap": "next", "bitmap-mode": "on-success"}
                self.write(vm, thin)
            else:
                vm.command("block-dirty-bitmap-add", node="disk", name="next")
            vm.job("blockdev-backup", job, **copying)
            vm.command("blockdev-del", **{"node-name": "varve"})
            self.shell(complete.replace("web01/1", f"web01/{1 if kind == 'full' else 2}"), BACKUP=backup)
            self.assert_newest_equals(thin)
            stored = scratch.allocated_bytes(self.chain(VM)["backups"][-1]["file_path"])
            self.assertLess(stored, 2 * MIB, kind)

    def write(self, vm, thin):
        """A write of the guest, through QEMU: its bitmap has it."""
        socket = self.dir / "guest.sock"
        vm.command("nbd-server-start", addr={"type": "unix", "data": {"path": str(socket)}})
        vm.command("block-export-add", type="nbd", id="guest", writable=True, **{"node-name": "disk", "name": "guest"})
        commands = ["-c", f"write -P 9 {7 * MIB} 64k", "-c", f"write -z {MIB // 2} 64k"]
        subprocess.run(["qemu-io", "-f", "raw", *commands, f"nbd+unix:///guest?socket={socket}"], check=True, capture_output=True)
        vm.command("block-export-del", id="guest")
        scratch.wait_until(lambda: not vm.command("query-block-exports"), 10, "the export is gone")
        vm.command("nbd-server-stop")


class Monitor(Page):
    def test_pulls_an_instant_that_qemus_monitor_froze_and_then_what_the_bitmap_says(self):
        commands, pull_first, pull_next = blocks_of("QEMU without libvirt")
        image = self.dir / "live.qcow2"
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", self.raw, image], check=True)
        vm = StorageDaemon(self.dir, [{"driver": "file", "node-name": "file", "filename": str(image)},
                                      {"driver": "qcow2", "node-name": "disk", "file": "file"}])  # fmt: skip
        self.addCleanup(vm.close)
        for line in commands.splitlines():
            command = json.loads(line.replace("backup.sock", str(self.work / "backup.sock")).replace("scratch.qcow2", str(self.scratch(1))))
            vm.command(command["execute"], **command["arguments"])
        self.shell(pull_first)
        self.assert_newest_equals(self.raw)
        self.end(vm)
        # The next one, as the text describes it.
        vm.command("block-export-add", type="nbd", id="guest", writable=True, **{"node-name": "disk", "name": "guest"})
        guest = f"nbd+unix:///guest?socket={self.work / 'backup.sock'}"
        subprocess.run(["qemu-io", "-f", "raw", "-c", f"write -P 7 {3 * MIB} 1M", guest], check=True, capture_output=True)
        with open(self.raw, "r+b") as file:
            file.seek(3 * MIB)
            file.write(b"\x07" * MIB)
        vm.command("blockdev-add", driver="qcow2", backing="disk", **{"node-name": "frozen", "file": {
            "driver": "file", "filename": str(self.scratch(2))}})  # fmt: skip
        vm.command("transaction", actions=[
            {"type": "block-dirty-bitmap-add", "data": {"node": "disk", "name": "two"}},
            {"type": "block-dirty-bitmap-disable", "data": {"node": "disk", "name": "one"}},
            {"type": "blockdev-backup", "data": {"device": "disk", "target": "frozen", "sync": "none", "job-id": "freeze"}}])
        vm.command("block-export-add", type="nbd", id="frozen", bitmaps=[{"node": "disk", "name": "one"}],
                   **{"node-name": "frozen"})  # fmt: skip
        subprocess.run(["qemu-io", "-f", "raw", "-c", "write -P 8 0 1M", guest], check=True, capture_output=True)
        self.shell(pull_next)
        self.assert_newest_equals(self.raw)
        points = self.chain(VM)["backups"]
        self.assertEqual([point["change_id"] for point in points], ["pull/one", "pull/two"])
        self.assertLess(scratch.allocated_bytes(points[1]["file_path"]), 2 * MIB)

    def scratch(self, number):
        path = self.dir / f"scratch-{number}.qcow2"
        if not path.exists():
            qemu.create(path, SIZE)
        return path

    def end(self, vm):
        vm.command("block-export-del", id="frozen")
        scratch.wait_until(lambda: not vm.command("query-block-exports"), 10, "the export is gone")
        vm.command("job-cancel", id="freeze")
        scratch.wait_until(lambda: not vm.command("query-jobs"), 10, "the job is gone")
        vm.command("blockdev-del", **{"node-name": "frozen"})


class Adopted(Page):
    def test_images_of_others_become_points_as_the_page_says(self):
        chain, pushed = blocks_of("Images made by others")[0].splitlines()
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", self.raw, self.work / "base.qcow2"], check=True)
        for name, below in (("monday", "base"), ("tuesday", "monday"), ("pushed", "tuesday")):
            qemu.create(self.work / f"{name}.qcow2", SIZE, self.work / f"{below}.qcow2")
            self.change_image(name)
            if name == "tuesday":
                self.shell(chain)
                self.assert_newest_equals(self.raw)
        self.shell(pushed)
        self.assert_newest_equals(self.raw)
        self.assertEqual(len(self.chain(VM)["backups"]), 4)

    def change_image(self, name):
        offset = len(name) * MIB
        command = ["qemu-io", "-f", "qcow2", "-c", f"write -P {len(name)} {offset} 70000", self.work / f"{name}.qcow2"]
        subprocess.run(command, check=True, capture_output=True)
        with open(self.raw, "r+b") as file:
            file.seek(offset)
            file.write(bytes([len(name)]) * 70000)


if __name__ == "__main__":
    run.main()
