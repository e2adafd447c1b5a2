#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every point of two generations, read back by other people's tools over TCP, Unix sockets and TLS."""

import os
import random
import subprocess
import sys
import urllib.parse
from pathlib import Path

import nbd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run, scratch, sources, tls_files  # noqa: E402
from harness.case import MIB, HubCase, rounds  # noqa: E402

NAME = "Büro @2 Köln 東"
SIZES = [4 * MIB + 512, 3 * MIB]
GROWN = 6 * MIB + 1024
INCREMENTALS = 20


def run_tool(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


class EveryPoint(HubCase):
    def setUp(self):
        self.files = self.enterContext(scratch.directory())
        authority = tls_files.Authority(self.files / "authority")
        self.client = authority.client(self.files / "client")
        self.options = {"nbd_socket": self.files / "nbd.sock", "tls": "on", "ports_tls": "off",
                        "tls_certificates": authority.server(self.files / "server"), "point_idle": "1s"}  # fmt: skip
        super().setUp()

    def uri(self, disk, point, way):
        name = urllib.parse.quote(f"{NAME}/disk-{disk}@{point}")
        return {
            "tcp": f"nbd://127.0.0.1:{self.hub.nbd_port}/{name}",
            "unix": f"nbd+unix:///{name}?socket={self.files / 'nbd.sock'}",
            "tls": f"nbds://127.0.0.1:{self.hub.nbd_port}/{name}?tls-certificates={self.client}",
        }[way]

    def back_up_two_generations(self):
        """Each generation a full and its incrementals; disk 0 grows inside the first one."""
        disks = sources.make_sources(self.dir, SIZES)
        self.register(NAME, SIZES)
        for number in range(2 * (INCREMENTALS + 1)):
            if number:
                for disk in disks:
                    disk.advance(number, fraction=0.05)
            if number == 8:
                os.truncate(disks[0].path, GROWN)
                disks[0].size = GROWN
                self.assertEqual(self.hub.register(NAME, [GROWN, SIZES[1]]).status, 200)
            self.client_backup(NAME, disks, "incremental" if number % (INCREMENTALS + 1) else "full")
        return disks

    def test_reads_as_its_source_and_differs_from_each_other_as_the_hub_says(self):
        disks = self.back_up_two_generations()
        points, contents = {}, {}
        for index, disk in enumerate(disks):
            points[index] = [p for generation in (1, 2) for p in self.chain(NAME, index, generation=generation)["backups"]]
            self.assertEqual(len(points[index]), 2 * (INCREMENTALS + 1))
            contents[index] = [disk.content_at(point["change_id"]).read_bytes() for point in points[index]]
            self.expect_read_alike(index, points[index], disk)
        self.assertEqual({len(content) for content in contents[0]}, {SIZES[0], GROWN})
        self.expect_deltas_to_lead_on(points, contents)

    def expect_read_alike(self, index, points, disk):
        ways = ("tcp", "unix", "tls")
        for at, point in enumerate(points):
            expected, copy = disk.content_at(point["change_id"]), self.dir / "copy.raw"
            run_tool("nbdcopy", self.uri(index, point["backup_id"], ways[at % 3]), copy)
            run_tool("cmp", expected, copy)
            plain = self.uri(index, point["backup_id"], ways[at % 2])
            run_tool("qemu-img", "compare", "-f", "raw", "-F", "raw", expected, plain)
            copy.unlink()

    def expect_deltas_to_lead_on(self, points, contents):
        """Random pairs: what differs, applied to the older point, gives the newer one."""
        dice, pairs = random.Random(1), rounds(1000, 10_000)
        handles = {}
        for _ in range(pairs):
            index = dice.randrange(2)
            old, new = sorted(dice.sample(range(len(points[index])), 2))
            if (index, new) not in handles:
                if len(handles) > 8:
                    handles.pop(next(iter(handles))).shutdown()
                handles[index, new] = self.open_with_contexts(index, points[index][new])
            handle, size = handles[index, new], len(contents[index][new])
            patched = bytearray(contents[index][old].ljust(size, b"\0"))
            dirty_bytes = self.patch(handle, f"qemu:dirty-bitmap:since-{points[index][old]['backup_id']}", patched)
            self.assertTrue(patched == contents[index][new], f"disk {index}: {old} -> {new}")
            one_generation = (old <= INCREMENTALS) == (new <= INCREMENTALS)
            self.assertEqual(dirty_bytes == size, not one_generation, f"disk {index}: {old} -> {new}")
        for handle in handles.values():
            handle.shutdown()

    def open_with_contexts(self, index, point):
        handle = nbd.NBD()
        handle.set_opt_mode(True)
        handle.connect_uri(self.uri(index, point["backup_id"], "unix"))
        names = []
        handle.add_meta_context("qemu:dirty-bitmap:")
        handle.opt_list_meta_context(lambda name: names.append(name) or 0)
        handle.clear_meta_contexts()
        for name in names:
            handle.add_meta_context(name)
        handle.opt_go()
        return handle

    def patch(self, handle, context, patched):
        size, at, dirty_bytes = handle.get_size(), 0, 0
        while at < size:
            found = {}
            handle.block_status(size - at, at, lambda name, _, entries, __: found.update({name: list(entries)}))
            for length, flags in zip(found[context][::2], found[context][1::2]):
                if flags & 1:
                    patched[at:at + length] = handle.pread(length, at)
                    dirty_bytes += length
                at += length
        return dirty_bytes

    def test_what_fio_has_written_into_a_backup_it_verifies_in_the_point(self):
        self.register(NAME, [32 * MIB])
        job = self.start(NAME)
        [target] = self.targets(job)
        common = ["fio", "--name=v", "--ioengine=nbd", "--size=32m", "--verify=crc32c", "--verify_state_save=0", "--iodepth=8"]
        run_tool(*common, "--rw=write", "--bs=68k", "--do_verify=0",
                 f"--uri=nbd://{target.host}:{target.port}/{target.export}")  # fmt: skip
        self.complete_ok(job, "u/1")
        point = urllib.parse.quote(f"{NAME}/disk-0@latest")
        run_tool(*common, "--rw=read", "--bs=68k", "--verify_fatal=1", f"--uri=nbd+unix:///{point}?socket={self.files / 'nbd.sock'}")


if __name__ == "__main__":
    run.main()
