#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`varve create` and `varve nbd` with real clients and with images of either maker."""

import random
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import nbd  # noqa: E402
import writers  # noqa: E402
from harness import image_server, qemu, run, scratch  # noqa: E402

MIB = 1 << 20


class ImageCase(unittest.TestCase):
    def setUp(self):
        self.dir = self.enterContext(scratch.directory())

    def created(self, name, size, backing=None):
        image = self.dir / name
        done = image_server.create(image, size, backing)
        self.assertEqual(done.returncode, 0, done.stderr)
        return image

    def serve(self, image, **options):
        if "port" not in options:
            options["socket_path"] = self.dir / f"{image.stem}.sock"
        server = image_server.ImageServer(image, **options)
        self.addCleanup(server.close)
        return server.wait()


class VarvesOwnImage(writers.Writers, ImageCase):
    """Every client writes through `varve nbd` over a Unix socket."""

    export_name = "own"  # the file's, by default

    def make(self, size):
        return self.created("own.qcow2", size)

    def export(self, size):
        self.image = self.make(size)
        self.server = self.serve(self.image)
        return self.server.uri

    def finished(self):
        self.assertEqual(self.server.stop(), 0, self.server.log)
        return self.image


class QemusImage(VarvesOwnImage):
    """The same with an image that qemu-img has made."""

    export_name = "qemu"

    def make(self, size):
        image = self.dir / "qemu.qcow2"
        qemu.create(image, size)
        return image


class Overlays(ImageCase):
    def test_an_overlay_of_either_maker_shows_and_keeps_its_parent(self):
        """A17 --backing"""
        parent = self.created("parent.qcow2", 4 * MIB)
        server = self.serve(parent)
        server.connect().pwrite(b"\x55" * 4 * MIB, 0)
        self.assertEqual(server.stop(), 0)
        before = parent.read_bytes()
        ours = self.created("ours.qcow2", 4 * MIB, parent)
        theirs = self.dir / "theirs.qcow2"
        qemu.create(theirs, 4 * MIB, parent.name)
        for overlay in (ours, theirs):
            with self.subTest(overlay=overlay.name):
                server = self.serve(overlay)
                handle = server.connect()
                self.assertEqual(handle.pread(MIB, MIB), b"\x55" * MIB)
                handle.pwrite(b"overlay", 65530)
                self.assertEqual(server.stop(), 0)
                model = bytearray(b"\x55" * 4 * MIB)
                model[65530:65537] = b"overlay"
                raw = self.dir / "model.raw"
                raw.write_bytes(model)
                qemu.verify(overlay, raw)
                self.assertEqual(qemu.backing_chain(overlay), [overlay.name, parent.name])
        self.assertEqual(parent.read_bytes(), before)

    def test_create_writes_a_relative_backing_name_and_refuses_what_it_cannot_do(self):
        """A16 A17"""
        parent = self.created("parent.qcow2", MIB)
        overlay = self.created("child.qcow2", 2 * MIB, parent)
        facts = qemu.info(overlay)
        self.assertEqual((facts["backing-filename"], facts["backing-filename-format"]), ("parent.qcow2", "qcow2"))
        self.assertEqual(facts["virtual-size"], 2 * MIB)
        for arguments in ((self.dir / "zero.qcow2", 0), (self.dir / "text.qcow2", "many"), (overlay, MIB)):
            with self.subTest(arguments=arguments):
                before = overlay.read_bytes()
                self.assertNotEqual(image_server.create(*arguments).returncode, 0)
                self.assertEqual(overlay.read_bytes(), before)

    def test_a_fresh_image_equals_qemu_imgs_in_the_written_fields(self):
        """A16 where qemu-img puts the tables of 5 GiB"""
        image = self.created("fresh.qcow2", 5 << 30)
        header = image.read_bytes()[:112]
        number = lambda at, width: int.from_bytes(header[at : at + width], "big")  # noqa: E731
        self.assertEqual((number(4, 4), number(20, 4), number(24, 8)), (3, 16, 5 << 30))
        self.assertEqual((number(36, 4), number(40, 8), number(48, 8), number(56, 4)), (10, 0x30000, 0x10000, 1))
        self.assertEqual((number(96, 4), number(100, 4)), (4, 112))
        qemu.check(image)


class Serving(ImageCase):
    def test_a_port_a_name_and_read_only(self):
        """A12 options of `varve nbd`"""
        image = self.created("image.qcow2", MIB)
        port = scratch.free_port()
        server = self.serve(image, port=port, export="disk one", read_only=True)
        handle = server.connect()
        self.assertTrue(handle.is_read_only())
        handle.set_strict_mode(0)
        with self.assertRaises(nbd.Error) as refusal:
            handle.pwrite(b"x", 0)
        self.assertEqual(refusal.exception.errno, "EPERM")
        listed = writers.json.loads(writers.command("nbdinfo", "--list", "--json", server.uri))
        self.assertEqual([entry["export-name"] for entry in listed["exports"]], ["disk one"])
        other = nbd.NBD()
        with self.assertRaises(nbd.Error):
            other.connect_uri(f"nbd://127.0.0.1:{port}/else")
        lines = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
        self.assertIn(f"127.0.0.1:{port} ", lines)
        self.assertNotIn(f"0.0.0.0:{port} ", lines)

    def test_flushed_data_outlives_a_kill(self):
        """A23 D5"""
        image = self.created("image.qcow2", 32 * MIB)
        server = self.serve(image)
        first, second = server.connect(), server.connect()
        data = random.Random(5).randbytes(5 * MIB)
        first.pwrite(data, 777)
        second.flush()  # any connection covers all
        server.kill()
        qemu.check(image)
        raw = self.dir / "raw"
        qemu.convert_to_raw(image, raw)
        self.assertEqual(raw.read_bytes()[777 : 777 + len(data)], data)

    def test_a_stopped_server_leaves_acknowledged_data_without_a_flush(self):
        """A23 SIGTERM with a client still connected"""
        image = self.created("image.qcow2", 8 * MIB)
        server = self.serve(image)
        handle = server.connect()
        handle.pwrite(b"kept" * 1000, 3)
        self.assertEqual(server.stop(), 0, server.log)
        raw = self.dir / "raw"
        qemu.check(image)
        qemu.convert_to_raw(image, raw)
        self.assertEqual(raw.read_bytes()[3:4003], b"kept" * 1000)
        del handle

    def test_an_image_in_use_is_refused(self):
        """A47 locks, in both directions"""
        image = self.created("image.qcow2", MIB)
        server = self.serve(image)
        second = image_server.ImageServer(image, socket_path=self.dir / "second.sock")
        self.addCleanup(second.close)
        self.assertEqual(second.process.wait(20), 11)
        self.assertIn("image.qcow2", second.log)
        writer = subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write 0 512", image], capture_output=True, text=True, check=False)
        self.assertIn("lock", writer.stdout + writer.stderr)
        self.assertEqual(server.stop(), 0)

    def test_what_is_no_image_is_refused(self):
        """A47"""
        wrong = self.dir / "text.qcow2"
        wrong.write_bytes(b"this is no image" * 5000)
        for path in (wrong, self.dir / "missing.qcow2"):
            server = image_server.ImageServer(path, socket_path=self.dir / "x.sock")
            self.addCleanup(server.close)
            self.assertEqual(server.process.wait(20), 1)
            self.assertIn(path.name, server.log)


if __name__ == "__main__":
    run.main()
