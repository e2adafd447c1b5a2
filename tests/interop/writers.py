# SPDX-License-Identifier: Apache-2.0
"""What every real client must be able to do with a writable export, wherever it comes from."""

import json
import random
import shutil
import subprocess

import nbd

from harness import qemu, sources

MIB = 1 << 20
SIZE = 64 * MIB + 3 * 512
CLIENT_SECONDS = 120


def command(*arguments, **more):
    """Runs a client; its text is in the failure."""
    done = subprocess.run(
        list(map(str, arguments)), capture_output=True, text=True, timeout=CLIENT_SECONDS, check=False, **more
    )
    assert done.returncode == 0, f"{' '.join(map(str, arguments))}: {done.stdout}{done.stderr}"
    return done.stdout


class Writers:
    """Mixed into a TestCase that has `export(size)` -> URI and `finished()` -> image path."""

    def source(self):
        path = self.dir / "source.raw"
        sources.make_disk(path, SIZE, seed=12)
        return path

    def assert_image_equals(self, raw):
        qemu.verify(self.finished(), raw)

    def nbdcopy(self, *options):
        raw = self.source()
        command("nbdcopy", *options, raw, self.export(SIZE))
        self.assert_image_equals(raw)

    def test_nbdcopy_with_its_defaults(self):
        """A54 K1"""
        self.nbdcopy()

    def test_nbdcopy_with_flush(self):
        """A54 K1"""
        self.nbdcopy("--flush")

    def test_nbdcopy_with_allocated(self):
        """A54 K1: NO_HOLE"""
        self.nbdcopy("--allocated")

    def test_nbdcopy_with_eight_connections(self):
        """A10 A54 K1"""
        self.nbdcopy("--connections=8")

    def test_nbdcopy_with_destination_is_zero(self):
        """A54 K1"""
        self.nbdcopy("--destination-is-zero")

    def test_nbdcopy_with_large_requests(self):
        """A54 K1: requests of 32 MiB"""
        self.nbdcopy("--request-size=33554432")

    def test_nbdcopy_reads_back_what_it_wrote(self):
        """A54 reading through structured replies"""
        raw, back = self.source(), self.dir / "back.raw"
        uri = self.export(SIZE)
        command("nbdcopy", raw, uri)
        command("nbdcopy", uri, back)
        command("cmp", raw, back)
        self.assert_image_equals(raw)

    def test_qemu_img_convert_into_an_existing_target(self):
        """A54 K4"""
        raw = self.source()
        command("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", raw, self.export(SIZE))
        self.assert_image_equals(raw)

    def test_qemu_img_convert_with_target_is_zero(self):
        """A54 K4"""
        raw = self.source()
        options = ["-n", "--target-is-zero", "-W", "-m", "8"]
        command("qemu-img", "convert", *options, "-f", "raw", "-O", "raw", raw, self.export(SIZE))
        self.assert_image_equals(raw)

    def test_qemu_io_writes_zeroes_and_discards(self):
        """A40 A41 A54 odd offsets by qemu-io"""
        uri, raw = self.export(SIZE), self.source()
        steps = [
            "write -P 0x11 0 1M", "write -P 0x22 65000 1500", "write -z 100k 200k", "write -P 0x33 262143 3",
            "discard 512k 128k", "write -f -P 0x44 1M 64k", "flush",
        ]  # fmt: skip
        raw.write_bytes(bytes(0))
        with open(raw, "r+b") as file:
            file.truncate(SIZE)
        for target in (uri, raw):
            command("qemu-io", "-f", "raw", *[part for one in steps for part in ("-c", one)], target)
        # What a discard leaves in a raw file is not promised; in varve it reads as zeros.
        with open(raw, "r+b") as file:
            file.seek(512 << 10)
            file.write(bytes(128 << 10))
        self.assert_image_equals(raw)

    def test_fio_verifies_what_it_wrote(self):
        """A54 fio with its nbd engine"""
        command(
            "fio", "--name=verify", "--verify_state_save=0", "--ioengine=nbd", f"--uri={self.export(SIZE)}", "--rw=randwrite",
            "--bsrange=512-256k", "--blockalign=512", f"--size={48 * MIB}", "--iodepth=16", "--verify=crc32c",
            "--verify_fatal=1", "--do_verify=1", "--randrepeat=1", "--output-format=terse", cwd=self.dir,
        )  # fmt: skip
        qemu.check(self.finished())

    def test_libnbd_with_requests_in_flight_on_two_connections(self):
        """A40 A54 python3-libnbd, asynchronous"""
        uri = self.export(SIZE)
        handles = [self.handle(uri) for _ in range(2)]
        dice, content = random.Random(3), bytearray(SIZE)
        for round_number in range(6):
            waiting = []
            for lane in range(32):  # lanes do not overlap, so the order of answers does not matter
                start = lane * (2 * MIB) + dice.randrange(MIB)
                data = dice.randbytes(dice.randrange(1, 200_000))
                handle = handles[lane % 2]
                waiting.append((handle, handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), start)))
                content[start : start + len(data)] = data
            for handle, cookie in waiting:
                while not handle.aio_command_completed(cookie):
                    handle.poll(1000)
            handles[round_number % 2].flush()
        self.assertEqual(handles[0].pread(20 * MIB, 0), content[: 20 * MIB])
        raw = self.dir / "model.raw"
        raw.write_bytes(content)
        del handles, handle, waiting
        self.assert_image_equals(raw)

    @staticmethod
    def handle(uri):
        handle = nbd.NBD()
        handle.connect_uri(uri)
        return handle

    def test_nbdinfo_sees_size_flags_and_contexts(self):
        """A10 A54 K3"""
        export = json.loads(command("nbdinfo", "--json", self.export(SIZE)))["exports"][0]
        self.assertEqual(export["export-size"], SIZE)
        self.assertIn("base:allocation", export["contexts"])
        for name in ("can_multi_conn", "can_fua", "can_zero", "can_fast_zero", "can_trim", "can_flush"):
            self.assertTrue(export[name], name)
        self.assertFalse(export["is_read_only"])
        limits = [export[f"block_size_{name}"] for name in ("minimum", "preferred", "maximum")]
        self.assertEqual(limits, [1, 65536, 33554432])

    def test_nbdinfo_lists_the_export(self):
        """A10 A54 K3"""
        uri = self.export(SIZE)
        names = [entry["export-name"] for entry in json.loads(command("nbdinfo", "--list", "--json", uri))["exports"]]
        self.assertEqual(names, [self.export_name])

    def test_nbdinfo_maps_data_zeroes_and_holes(self):
        """A10 A54 base:allocation"""
        uri = self.export(SIZE)
        handle = self.handle(uri)
        handle.pwrite(b"\x77" * MIB, 8 * MIB)
        handle.zero(MIB, 16 * MIB)
        handle.flush()
        extents = json.loads(command("nbdinfo", "--map", "--json", uri))
        self.assertEqual(sum(extent["length"] for extent in extents), SIZE)
        data = [(extent["offset"], extent["length"]) for extent in extents if extent["type"] == 0]
        self.assertEqual(data, [(8 * MIB, MIB)])
        self.assertTrue(all(extent["type"] & 2 for extent in extents if extent["type"]), "the rest reads zero")
        qemu.check(self.finished())


class MissingTool(Exception):
    """A client that the tests need is not installed."""


for tool in ("nbdcopy", "nbdinfo", "qemu-img", "qemu-io", "fio"):
    if not shutil.which(tool):
        raise MissingTool(f"{tool}: run scripts/install-packages test")
