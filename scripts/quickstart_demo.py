#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The second half of scripts/quickstart: two ext4 disks, a full, an incremental, and the proof."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
sys.dont_write_bytecode = True
from harness import qemu, scratch, sources  # noqa: E402
from harness.daemon import Daemon, binary  # noqa: E402
from harness.node import ClientStarter, FakeNode  # noqa: E402

MIB = 1 << 20
VM = "web01"
CHANGED_FILE = "README.md"


def say(text=""):
    print(text, flush=True)


def mib(count):
    return f"{count / MIB:.1f} MiB"


def tool(*command, **more):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **more)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")
    return done.stdout


# --- the two disks ---


def make_trees(directory):
    """Real files: this project and its program on the first disk, logs on the second."""
    first, second = directory / "tree-0", directory / "tree-1"
    shutil.copytree(ROOT, first, ignore=shutil.ignore_patterns(".git", "build*"), symlinks=True)
    (first / CHANGED_FILE).write_text("the first state\n")
    shutil.copy(binary(), first / "varve")
    second.mkdir()
    for number in range(40):
        lines = (f"{number}:{line} something happened {os.urandom(16).hex()}\n" for line in range(16000))
        (second / f"log-{number}.txt").write_text("".join(lines))
    return first, second


def make_disk(directory, index, tree, size):
    """An ext4 file system with the tree in it; mke2fs -d needs no root and no mount."""
    path = directory / f"disk-{index}.raw"
    with open(path, "wb") as file:
        file.truncate(size)
    tool("mke2fs", "-q", "-t", "ext4", "-d", tree, path)
    return sources.Source(path, size, 2000 + index, sources.vmware_uuid(index))


def change_files(directory, disks):
    """A day's work: one file rewritten and one added on the first disk, one log grown on the second."""
    for disk in disks:
        saved = disk.path.with_name(f"{disk.path.stem}-before.raw")
        sources.sparse_copy(disk.path, saved)
        disk.snapshots[disk.change_id] = saved
        disk.number += 1
    rewritten, added, grown = (directory / name for name in ("rewritten", "added", "grown"))
    rewritten.write_text("the second state\n")
    added.write_bytes(os.urandom(300_000))
    grown.write_text("one more line\n" * 2000)
    edit(disks[0].path, f"rm {CHANGED_FILE}", f"write {rewritten} {CHANGED_FILE}", f"write {added} added.bin")
    edit(disks[1].path, "rm log-7.txt", f"write {grown} log-7.txt")


def edit(image, *requests):
    script = "".join(f"{request}\n" for request in requests)
    tool("debugfs", "-w", "-f", "/dev/stdin", image, input=script)


# --- backup and proof ---


class Demo:
    def __init__(self, directory):
        self.directory = directory
        self.node = FakeNode()
        self.hub = Daemon(directory / "varve", node_url=self.node.url)
        self.disks = []

    def run(self):
        self.prepare_disks()
        self.hub.start()
        say(f"\nvarve serve   HTTP {self.hub.url}   NBD 127.0.0.1:{self.hub.nbd_port}")
        self.client = ClientStarter(self.directory, self.hub.url)
        self.node.on_start = self.client
        answer = self.hub.register(VM, [disk.size for disk in self.disks])
        assert answer.status == 201, answer
        self.backup("full")
        change_files(self.directory, self.disks)
        say("\nthen some files change: one rewritten, one added, one log replaced")
        self.backup("incremental")
        self.show_chains()
        self.prove()
        say("\nAll points are clean and equal to their disks. Next: scripts/test, docs/, varve serve --help")

    def prepare_disks(self):
        say("\nA virtual machine with two ext4 disks:")
        for index, (tree, size) in enumerate(zip(make_trees(self.directory), (384 * MIB, 256 * MIB))):
            disk = make_disk(self.directory, index, tree, size)
            self.disks.append(disk)
            count = sum(path.is_file() for path in tree.rglob("*"))
            used = mib(scratch.allocated_bytes(disk.path))
            say(f"  disk-{disk.key}   {mib(size)}, {count} files, {used} in use")

    def backup(self, kind):
        """POST /backups; the (fake) node starts the VMware client, which writes over NBD."""
        self.client.plan_for(self.disks)
        begun = time.monotonic()
        body = {"vm_name": VM, "backup_type": kind, "repository_id": "1"}
        say(f"\nPOST /api/v1/backups  {body}")
        answer = self.hub.api("POST", "/backups", body)
        assert answer.status == 200, answer
        for target in answer.body["nbd_targets_string"].split(","):
            say(f"  {target}")
        status = self.client.last.wait()
        assert status == 0, self.client.last.explain()
        job = self.hub.get(f"/backups/{answer.body['backup_id']}").body
        assert job["status"] == "completed", job
        say(f"  {job['status']} in {time.monotonic() - begun:.1f} s, {mib(job['bytes_transferred'])} received")

    def show_chains(self):
        for index, disk in enumerate(self.disks):
            chain = self.hub.get(f"/backups/{VM}/chain", disk_id=index).body
            say(f"\nchain of disk-{disk.key}  (GET /api/v1/backups/{VM}/chain?disk_id={index})")
            for point in chain["backups"]:
                say(f"  {point['type']:<11} {Path(point['file_path']).name}   {mib(point['allocated_bytes'])}")
            first, last = (chain["backups"][place]["allocated_bytes"] for place in (0, -1))
            say(f"  the incremental takes {100 - 100 * last / first:.1f} % less space than the full")

    def prove(self):
        say("\nproof by qemu-img check and compare:")
        for index, disk in enumerate(self.disks):
            for point in self.hub.get("/backups/chain", vm_name=VM, disk_id=index).body["backups"]:
                qemu.verify(point["file_path"], disk.content_at(point["change_id"]))
                say(f"  disk-{disk.key} {point['type']:<11} clean, identical to the disk of that time")
        say(f"\n{CHANGED_FILE} on disk-2000, read out of the two points:")
        for point in self.hub.get("/backups/chain", vm_name=VM).body["backups"]:
            raw = self.directory / "restored.raw"
            qemu.convert_to_raw(point["file_path"], raw)
            tool("e2fsck", "-fn", raw)
            say(f"  {point['type']:<11} {tool('debugfs', '-R', f'cat {CHANGED_FILE}', raw).strip()!r}")

    def close(self):
        self.hub.close()
        self.node.close()


def main():
    # mke2fs, debugfs and e2fsck lie in sbin, which is not on every user's PATH.
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    with scratch.directory("varve-quickstart-") as directory:
        demo = Demo(directory)
        try:
            demo.run()
        finally:
            demo.close()


if __name__ == "__main__":
    main()
