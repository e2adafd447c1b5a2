#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes at any edge, zeroes and trims, over backing images, against a model."""

import random
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import nbd  # noqa: E402
from harness import qemu, run, scratch  # noqa: E402
from harness.case import MIB, HubCase, rounds  # noqa: E402

LAYERS = 4
OPERATIONS = rounds(120, 2000)


class Model:
    """What the disk must read like, in memory."""

    def __init__(self, size, seed):
        self.content = bytearray(size)
        self.dice = random.Random(seed)

    def place(self, unit, longest):
        """(offset, length), multiples of `unit`, inside the disk."""
        size = len(self.content)
        length = self.dice.randrange(1, longest // unit + 1) * unit
        return self.dice.randrange(0, (size - length) // unit + 1) * unit, length

    def apply(self, handles, unit):
        """One random command on one of the connections, and on the model."""
        handle = self.dice.choice(handles)
        kind = self.dice.choices(["write", "zero", "trim", "read"], [6, 2, 1, 2])[0]
        offset, length = self.place(unit, 300_000)
        if kind == "write":
            data = self.dice.choice([self.dice.randbytes, bytes])(length)
            handle.pwrite(data, offset, self.dice.choice([0, 0, nbd.CMD_FLAG_FUA]))
            self.content[offset : offset + length] = data
        elif kind == "zero":
            handle.zero(length, offset, self.dice.choice([0, nbd.CMD_FLAG_NO_HOLE]))
            self.content[offset : offset + length] = bytes(length)
        elif kind == "trim":
            handle.trim(length, offset)
            self.content[offset : offset + length] = bytes(length)
        else:
            assert handle.pread(length, offset) == self.content[offset : offset + length], (offset, length)

    def save(self, path):
        path.write_bytes(self.content)


class RandomWrites(HubCase):
    def layers(self, size, unit, seed):
        """A full and incrementals, each written at random; every point equals its model."""
        model = Model(size, seed)
        self.register("vm", [size])
        saved = []
        for layer in range(LAYERS):
            job = self.start("vm", "incremental" if layer else "full")
            handles = [self.connect(job) for _ in range(3)]
            for _ in range(OPERATIONS):
                model.apply(handles, unit)
            self.complete_ok(job, f"u/{layer}", 0)
            saved.append(self.dir / f"model-{layer}.raw")
            model.save(saved[-1])
        for image, raw in zip(self.images("vm"), saved, strict=True):
            qemu.verify(image, raw)

    def test_sector_aligned_commands_over_three_backings(self):
        """A40 A41 512-byte edges"""
        self.layers(5 * MIB, 512, 40)

    def test_commands_at_any_byte_over_three_backings(self):
        """A40 A41 1-byte edges; a size that is no multiple of a cluster"""
        self.layers(4 * MIB + 3 * 512, 1, 41)


class Zeroes(HubCase):
    def test_zeroes_never_expose_the_backing(self):
        """A41 partial and whole clusters, zero and trim"""
        size = 2 * MIB
        self.register("vm", [size])
        self.quick_backup("vm", ["u/1"], writes=[(0, b"\xaa" * size)])
        job = self.start("vm", "incremental")
        handle = self.connect(job)
        model = bytearray(b"\xaa" * size)
        for offset, length in ((0, 512), (65536, 65536), (200_000, 1), (300_001, 150_000), (size - 700, 700)):
            handle.zero(length, offset)
            model[offset : offset + length] = bytes(length)
        for offset, length in ((900_000, 1234), (1 << 20, 1 << 17)):
            handle.trim(length, offset)
            model[offset : offset + length] = bytes(length)
        self.assertEqual(handle.pread(size, 0), model)
        self.complete_ok(job, "u/2", 0)
        raw = self.dir / "model.raw"
        raw.write_bytes(model)
        qemu.verify(self.images("vm")[-1], raw)

    def test_zeroes_on_a_fresh_full_store_nothing(self):
        """A41 virgin range of a standalone image"""
        self.register("vm", [256 * MIB])
        job = self.start("vm")
        handle = self.connect(job)
        for number in range(8):
            handle.zero(32 * MIB, number * 32 * MIB)
        self.complete_ok(job, "u/1", 0)
        self.assertLess(scratch.allocated_bytes(self.images("vm")[0]), MIB // 2)


class Limits(HubCase):
    def test_a_payload_of_64_mib_is_taken_and_one_beyond_the_end_is_refused(self):
        """A10 the export goes on after both"""
        size = 65 * MIB
        self.register("vm", [size])
        job = self.start("vm")
        handle = self.connect(job)
        handle.set_strict_mode(0)
        data = random.Random(64).randbytes(64 * MIB)
        handle.pwrite(data, 512)
        self.assertEqual(handle.pread(4096, 32 * MIB), data[32 * MIB - 512 : 32 * MIB + 3584])
        for command, code in (
            (lambda: handle.pwrite(b"x" * 1024, size - 512), "ENOSPC"),
            (lambda: handle.zero(1024, size - 512), "ENOSPC"),
            (lambda: handle.pread(1024, size - 512), "EINVAL"),
        ):
            with self.assertRaises(nbd.Error) as refusal:
                command()
            self.assertEqual(refusal.exception.errno, code)
        self.assertEqual(self.job(job["backup_id"])["status"], "running")
        self.complete_ok(job, "u/1", 0)

    def test_acknowledged_bytes_outlive_a_kill_after_two_seconds_without_flush(self):
        """A23 D4 (fault of qemu-nbd, Q2)"""
        self.register("vm", [16 * MIB])
        job = self.start("vm")
        handle = self.connect(job)
        data = random.Random(4).randbytes(8 * MIB)
        handle.pwrite(data, 1000)
        time.sleep(2.2)
        self.hub.kill()
        partial = Path(job["disk_results"][0]["qcow2_path"] + ".partial")
        raw = self.dir / "partial.raw"
        qemu.convert_to_raw(partial, raw)
        with open(raw, "rb") as content:
            content.seek(1000)
            self.assertEqual(content.read(len(data)), data)


class SameBytesAgain(HubCase):
    def test_a_disk_sent_again_with_the_same_bytes_costs_metadata_only(self):
        """A39 the same bytes"""
        data = random.Random(39).randbytes(4 * MIB)
        self.register("vm", [4 * MIB])
        self.quick_backup("vm", ["u/1"], writes=[(0, data)])
        job = self.quick_backup("vm", ["u/2"], "incremental", writes=[(0, data)])
        self.assertLess(scratch.allocated_bytes(self.images("vm")[-1]), MIB // 2)
        self.assertGreaterEqual(self.disks(job["backup_id"])[0]["bytes_elided"], 4 * MIB)


if __name__ == "__main__":
    run.main()
