#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The NBD clients of Debian 13, which speak extended headers: qemu 10, libnbd 1.22, nbdkit 1.42.

Only with VARVE_FOREIGN=1 (scripts/test --foreign): they run in a directory that debootstrap makes.
"""

import json
import os
import shutil
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import debian, image_server, nbd_wire, qemu, run  # noqa: E402

MIB = 1 << 20
CLUSTER = 65536
SIZE = 64 * MIB + 512
PYTHON = "import nbd, sys; h = nbd.NBD(); h.add_meta_context('base:allocation'); h.connect_uri(sys.argv[1]); "


class Foreign(unittest.TestCase):
    """One image over a parent for each case, served where the foreign programs see the socket."""

    read_only = False

    @classmethod
    def setUpClass(cls):
        if debian.why_not():
            raise unittest.SkipTest(debian.why_not())
        cls.root = debian.Root()

    def setUp(self):
        self.dir = self.root.directory()
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.parent, self.image = self.dir / "parent.qcow2", self.dir / "disk.qcow2"
        self.assertEqual(image_server.create(self.parent, SIZE).returncode, 0)
        server = self.serve(self.parent)
        handle = server.connect()
        self.base = os.urandom(MIB)
        handle.pwrite(self.base, 4 * MIB)
        self.assertEqual(server.stop(), 0, server.log)
        self.assertEqual(image_server.create(self.image, SIZE, backing=self.parent).returncode, 0)
        self.server = self.serve(self.image, self.read_only)
        self.uri = f"nbd+unix:///disk?socket={self.root.inside(self.server.socket_path)}"

    def serve(self, image, read_only=False):
        server = image_server.ImageServer(image, self.dir / (image.stem + ".sock"), export="disk", read_only=read_only)
        self.addCleanup(server.close)
        return server.wait()

    def random_file(self, name, size):
        path = self.dir / name
        path.write_bytes(os.urandom(size))
        return path

    def io(self, *commands):
        """qemu-io's output; it says of each command whether it failed, and its status only of the last."""
        words = [word for command in commands for word in ("-c", command)]
        output = self.root.run("qemu-io", "-f", "raw", "-d", "unmap", *words, self.uri)
        for sign in ("failed", "rror", "attern verification"):
            self.assertNotIn(sign, output)
        return output

    def content(self, offset, length):
        return bytes(self.server.connect().pread(length, offset))

    def finish(self):
        self.assertEqual(self.server.stop(), 0, self.server.log)
        qemu.check(self.image)


class Qemu(Foreign):
    def test_qemu_io_writes_reads_zeroes_and_trims(self):
        self.io(
            "write -P 17 0 64k", "write -P 18 1000 77", "write -P 19 33554433 300k", "write -f -P 20 1M 4k",
            f"write -P 21 {SIZE - 1000} 1000", "write -z 4M 64k", "write -z -u 4259840 128k", "discard 4390912 128k",
            "write -P 22 4718600 1000", "flush",
            "read -P 17 0 1000", "read -P 18 1000 77", "read -P 17 1077 64459", "read -P 19 33554433 300k",
            "read -P 20 1M 4k", f"read -P 21 {SIZE - 1000} 1000", "read -P 0 4M 320k", "read -P 22 4718600 1000",
        )  # fmt: skip
        self.assertEqual(self.content(5 * MIB - CLUSTER, CLUSTER), self.base[-CLUSTER:])
        self.finish()

    def test_what_a_guest_writes_is_never_a_request(self):
        """payloads that are requests, in both header forms, to zero what lies elsewhere"""
        for form in (nbd_wire.request, nbd_wire.extended_request):
            forged = self.dir / "forged"
            forged.write_bytes(form(nbd_wire.WRITE_ZEROES, 4 * MIB, CLUSTER, cookie=666) * 200)
            size = forged.stat().st_size
            self.io(f"write -s {self.root.inside(forged)} 8192 {size}", "flush")
            self.assertEqual(self.content(8192, size), forged.read_bytes())
            self.assertEqual(self.content(4 * MIB, CLUSTER), self.base[:CLUSTER])
        self.finish()

    def test_qemu_img_converts_into_it_and_out_of_it(self):
        raw, back = self.random_file("source.raw", SIZE), self.dir / "back.raw"
        with open(raw, "r+b") as file:
            file.seek(20 * MIB)
            file.write(bytes(30 * MIB))
        inside = self.root.inside
        self.root.run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", inside(raw), self.uri)
        self.root.run("qemu-img", "compare", "-f", "raw", "-F", "raw", inside(raw), self.uri)
        self.root.run("qemu-img", "convert", "-f", "raw", "-O", "raw", self.uri, inside(back))
        self.assertEqual(back.read_bytes(), raw.read_bytes())
        self.finish()
        qemu.compare(raw, self.image)

    def test_qemu_img_maps_it(self):
        self.io("write -P 1 1M 64k", "write -z -u 4M 64k")
        extents = json.loads(self.root.run("qemu-img", "map", "-f", "raw", "--output=json", self.uri))
        data = [(extent["start"], extent["length"]) for extent in extents if extent["data"]]
        self.assertEqual(data, [(MIB, CLUSTER), (4 * MIB + CLUSTER, MIB - CLUSTER)])
        self.assertEqual(sum(extent["length"] for extent in extents), SIZE)

    def test_changes_since_the_parent_are_read_as_a_dirty_bitmap(self):
        self.io("write -P 1 1M 64k", "write -z -u 4M 64k")
        name = "qemu:dirty-bitmap:since-parent"
        options = {"driver": "nbd", "export": "disk", "x-dirty-bitmap": name,
                   "server": {"type": "unix", "path": self.root.inside(self.server.socket_path)}}  # fmt: skip
        extents = json.loads(self.root.run("qemu-img", "map", "--output=json", "json:" + json.dumps(options)))
        dirty = [(extent["start"], extent["length"]) for extent in extents if not extent["data"]]
        self.assertEqual(dirty, [(MIB, CLUSTER), (4 * MIB, CLUSTER)])


class Libnbd(Foreign):
    def test_extended_headers_are_negotiated(self):
        words = PYTHON + "print(h.get_extended_headers_negotiated(), h.get_structured_replies_negotiated(), h.get_size())"
        self.assertEqual(self.root.run("python3", "-c", words, self.uri).split(), ["True", "True", str(SIZE)])

    def test_nbdcopy_both_ways(self):
        raw, back = self.random_file("source.raw", SIZE), self.dir / "back.raw"
        with open(raw, "r+b") as file:
            file.seek(20 * MIB)
            file.write(bytes(30 * MIB))
        inside = self.root.inside
        self.root.run("nbdcopy", "--flush", inside(raw), self.uri)
        back.touch()
        self.root.run("nbdcopy", self.uri, inside(back))
        self.assertEqual(back.read_bytes(), raw.read_bytes())
        self.finish()
        qemu.compare(raw, self.image)

    def test_nbdinfo_shows_what_is_there(self):
        shown = json.loads(self.root.run("nbdinfo", "--json", self.uri))["exports"][0]
        self.assertEqual((shown["export-name"], shown["export-size"]), ("disk", SIZE))
        self.assertIn("base:allocation", shown["contexts"])
        self.assertIn("qemu:dirty-bitmap:since-parent", shown["contexts"])
        for able in ("can_multi_conn", "can_fua", "can_zero", "can_fast_zero", "can_trim"):
            self.assertTrue(shown[able], able)
        extents = json.loads(self.root.run("nbdinfo", "--map", "--json", self.uri))
        self.assertIn((4 * MIB, MIB, 0), [(each["offset"], each["length"], each["type"]) for each in extents])

    def test_sixty_four_bit_requests_and_the_choice_of_contexts(self):
        words = (
            "import nbd, sys; h = nbd.NBD();"
            "[h.add_meta_context(c) for c in ('base:allocation', 'qemu:allocation-depth')];"
            "h.connect_uri(sys.argv[1]); size = h.get_size();"
            "h.pwrite(b'x' * 65536, 0); h.zero(size - 65536, 65536); h.trim(size // 2, size // 4);"
            "found = {}; "
            "f = lambda context, offset, entries, error: found.setdefault(context, []).extend(entries);"
            "h.block_status_64(size, 0, f); assert set(found) == {'base:allocation', 'qemu:allocation-depth'}, found;"
            "found.clear(); h.block_status_filter(size, 0, ['qemu:allocation-depth'], f);"
            "assert set(found) == {'qemu:allocation-depth'}, found;"
            "assert h.pread(65536, 0) == b'x' * 65536; assert h.pread(65536, 65536) == bytes(65536); print('good')"
        )
        disk = self.dir / "large.qcow2"
        self.assertEqual(image_server.create(disk, 64 << 40).returncode, 0)
        large = self.serve(disk)
        uri = f"nbd+unix:///disk?socket={self.root.inside(large.socket_path)}"
        self.assertEqual(self.root.run("python3", "-c", words, uri), "good\n")
        self.assertEqual(large.stop(), 0, large.log)
        qemu.check(disk)


class Nbdkit(Foreign):
    def through(self, command, *options):
        """Runs a command of the new Debian with $uri of nbdkit's nbd plugin, which stands on varve."""
        return self.root.run("nbdkit", "-U", "-", "nbd", *options, f"uri={self.uri}", "--run", command)

    def test_everything_passes_through_the_nbd_plugin(self):
        self.through(
            "qemu-io -f raw -d unmap -c 'write -P 17 1M 100k' -c 'write -z 4M 64k' -c 'discard 4259840 65536'"
            " -c 'read -P 17 1M 100k' -c 'read -P 0 4M 128k' -c flush $uri"
        )
        self.assertEqual(self.content(MIB, 102400), b"\x11" * 102400)
        self.assertEqual(self.content(4 * MIB, 2 * CLUSTER), bytes(2 * CLUSTER))
        self.finish()

    def test_a_copy_through_the_nbd_plugin(self):
        raw = self.random_file("source.raw", SIZE)
        self.through(f"nbdcopy --flush {self.root.inside(raw)} $uri")
        extents = json.loads(self.through("nbdinfo --map --json $uri"))
        self.assertEqual(sum(each["length"] for each in extents), SIZE)
        self.finish()
        qemu.compare(raw, self.image)


class ReadOnly(Foreign):
    read_only = True

    def test_it_is_read_and_never_written(self):
        for command in ("write -P 1 0 512", "discard 0 64k"):
            self.assertNotEqual(self.root.run("qemu-io", "-f", "raw", "-c", command, self.uri, check=False).returncode, 0)
        copy = self.dir / "copy.raw"
        copy.touch()
        self.root.run("nbdcopy", self.uri, self.root.inside(copy))
        self.assertEqual(copy.read_bytes()[4 * MIB : 5 * MIB], self.base)


if __name__ == "__main__":
    run.main()
