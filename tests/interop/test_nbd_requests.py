#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every command, by a raw socket against `varve nbd`.

The ids in the docstrings are the rows of docs/nbd-support.md.  After each case the process must
still serve a fresh connection.
"""

import os
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run, scratch  # noqa: E402
from harness.conformance import *  # noqa: E402, F403  the suites' case, and the wire's words


class Commands(Conformance):
    """docs/nbd-support.md, 4."""

    def test_past_the_end(self):
        """C1 C2 C7 C9 C13 Q4"""
        for wire in self.both():
            for offset, length in ((SIZE, 1), (SIZE - 1, 2), ((1 << 64) - 1, 2), ((1 << 64) - 4, 0xFFFF)):
                self.assert_refused(wire, EINVAL, READ, offset, length)
                self.assert_refused(wire, EINVAL, TRIM, offset, length)
                self.assert_refused(wire, ENOSPC, WRITE_ZEROES, offset, length)
                self.assert_refused(wire, ENOSPC, WRITE, offset, payload=bytes(length))
            self.assertEqual(wire.error(FLUSH), 0)

    def test_write_is_readable_at_once_on_every_connection(self):
        """C2"""
        data = random.Random(1).randbytes(300_001)
        writer, reader, simple = self.open(), self.open(), self.open(False)
        writer.pwrite(77_777, data)
        self.assertEqual(reader.pread(77_777, len(data)), data)
        self.assertEqual(simple.pread(77_777, len(data)), data)

    def test_large_writes(self):
        """C3 Q3"""
        for wire in self.both():
            for size in (32 * MIB, 33 * MIB, 64 * MIB):
                data = random.Random(size).randbytes(MIB) * (size // MIB)
                wire.pwrite(43_520, data)
                self.assertEqual(wire.pread(43_520 + size - 5000, 5000), data[-5000:])
                self.assertEqual(wire.pread(43_520, 5000), data[:5000])

    def test_too_large_a_write_is_refused_then_dropped(self):
        """C3"""
        for wire in self.both():
            wire.send(request(WRITE, 0, 64 * MIB + 1) + bytes(100_000))
            self.assertEqual(wire.reply().error, EINVAL)
            self.assertTrue(wire.is_dropped())

    def test_large_reads(self):
        """C4 P7"""
        data = random.Random(2).randbytes(MIB) * 64
        self.open().pwrite(1000, data)
        for wire in self.both():
            self.assertEqual(wire.pread(1000, 64 * MIB), data)
        wire = self.open()
        chunks = wire.do(READ, 0, 64 * MIB)
        self.assertTrue(all(len(chunk.payload) <= 32 * MIB + 8 for chunk in chunks))
        self.assertEqual([chunk.done for chunk in chunks], [False] * (len(chunks) - 1) + [True])  # P4
        self.assert_refused(wire, EOVERFLOW, READ, 0, 64 * MIB + 1)
        self.assert_refused(wire, EOVERFLOW, READ, 0, 32 * MIB + 1, DF)
        self.assertEqual(wire.error(FLUSH), 0)
        simple = self.open(False)
        self.assert_refused(simple, EINVAL, READ, 0, 64 * MIB + 1)
        self.assertEqual(simple.error(FLUSH), 0)

    def test_disconnect(self):
        """C5"""
        for wire in self.both():
            wire.send(write(0, b"last", cookie=1) + request(DISC, 5, 5, 0xFFFF))
            self.assertEqual(wire.reply().cookie, 1)
            self.assertTrue(wire.ends())

    def test_flush_ignores_its_range(self):
        """C6 Q14"""
        for wire in self.both():
            self.assertEqual(wire.error(FLUSH, (1 << 64) - 1, 12345, FUA), 0)

    def test_trim_and_zeroes_read_as_zero(self):
        """C7 C9 Q7"""
        for command in (TRIM, WRITE_ZEROES):
            wire = self.open(contexts=CONTEXTS[:1])
            wire.pwrite(16 * MIB, b"\x55" * (16 * MIB))
            self.assertEqual(wire.status(16 * MIB, 16 * MIB, REQ_ONE), {1: [(16 * MIB, 0)]})
            self.assertEqual(wire.error(command, 16 * MIB, 16 * MIB), 0)
            self.assertEqual(wire.pread(16 * MIB, 16 * MIB), bytes(16 * MIB))
            self.assertEqual(wire.status(16 * MIB, 16 * MIB, REQ_ONE), {1: [(16 * MIB, 3)]})

    def test_trim_of_an_odd_range_is_exact(self):
        """C7"""
        wire = self.open()
        wire.pwrite(0, b"\x55" * MIB)
        self.assertEqual(wire.error(TRIM, 1001, 200_003, FUA), 0)
        self.assertEqual(wire.pread(0, MIB), b"\x55" * 1001 + bytes(200_003) + b"\x55" * (MIB - 201_004))

    def test_cache_and_unknown_commands(self):
        """C8 C14"""
        for wire in self.both():
            chunk = self.assert_refused(wire, EINVAL, CACHE, 0, 512)
            if wire.structured:
                self.assertEqual(chunk.text, "command CACHE is not supported")
            for number in (RESIZE, 9, 4711, 65535):
                chunk = self.assert_refused(wire, EINVAL, number, 0, 512)
                if wire.structured:
                    self.assertEqual(chunk.text, f"unknown command {number}")
            self.assertEqual(wire.error(FLUSH), 0)

    def test_fast_zero(self):
        """C10 C11"""
        wire = self.open()
        wire.pwrite(0, b"\x55" * MIB)
        self.assertEqual(wire.error(WRITE_ZEROES, 0, 2 * CLUSTER, FAST_ZERO), 0)
        self.assertEqual(wire.pread(0, 2 * CLUSTER), bytes(2 * CLUSTER))
        self.assert_refused(wire, ENOTSUP, WRITE_ZEROES, 4 * CLUSTER + 1, CLUSTER, FAST_ZERO)
        self.assert_refused(wire, ENOTSUP, WRITE_ZEROES, 4 * CLUSTER, CLUSTER, FAST_ZERO | NO_HOLE)
        self.assertEqual(wire.pread(4 * CLUSTER, 2 * CLUSTER), b"\x55" * (2 * CLUSTER))
        tail = SIZE // CLUSTER * CLUSTER
        wire.pwrite(tail, b"\x55" * (SIZE - tail))
        self.assertEqual(wire.error(WRITE_ZEROES, tail, SIZE - tail, FAST_ZERO), 0)
        self.assertEqual(wire.pread(tail, SIZE - tail), bytes(SIZE - tail))

    def test_unsupported_flags(self):
        """C15"""
        for wire in self.both():
            chunk = self.assert_refused(wire, EINVAL, WRITE, 0, flags=0x8002, payload=bytes(70_000))
            if wire.structured:
                self.assertEqual(chunk.text, "unsupported flags 0x8002 for WRITE")
            for command, flags in ((READ, REQ_ONE), (FLUSH, DF), (TRIM, NO_HOLE), (WRITE_ZEROES, DF), (WRITE, FAST_ZERO)):
                payload = b"x" if command == WRITE else b""
                self.assert_refused(wire, EINVAL, command, 0, 0 if payload else 1, flags, payload)
            self.assertEqual(wire.error(FLUSH), 0)
        self.assert_refused(self.open(False), EINVAL, READ, 0, 512, DF)  # C1

    def test_length_zero(self):
        """C16 Q14"""
        for wire in self.both():
            for command in (READ, WRITE, TRIM, WRITE_ZEROES):
                for offset in (0, SIZE):
                    chunks = wire.do(command, offset, 0)
                    self.assertEqual([chunk.error for chunk in chunks], [0])
                    if wire.structured and command == READ:
                        self.assertEqual(chunks[0].type, NONE)
                self.assert_refused(wire, ENOSPC if command in (WRITE, WRITE_ZEROES) else EINVAL, command, SIZE + 1)

    def test_wrong_magic_drops_without_a_reply(self):
        """C17 Q5"""
        for wire in self.both():
            wire.send(b"\x25\x60\x95\x14" + request(FLUSH)[4:] + request(FLUSH))
            self.assertTrue(wire.is_dropped())

    def test_single_bytes_and_neighbours(self):
        """C18"""
        wire = self.open()
        model = bytearray(wire.pread(0, 4 * CLUSTER))
        chance = random.Random(3)
        for _ in range(300):
            offset = chance.randrange(4 * CLUSTER - 600)
            data = chance.randbytes(chance.choice((1, 2, 511, 512, 513)))
            wire.pwrite(offset, data)
            model[offset : offset + len(data)] = data
        self.assertEqual(wire.pread(0, 4 * CLUSTER), bytes(model))

    def test_two_writers_in_one_cluster_lose_nothing(self):
        """C18"""
        wires = [self.open(), self.open()]
        for turn in range(64):
            base = turn * CLUSTER + 5 * MIB
            wires[0].send(write(base, b"a" * 30_001))
            wires[1].send(write(base + 30_001, b"b" * (CLUSTER - 30_001)))
        for wire in wires:
            self.assertEqual({wire.reply().error for _ in range(64)}, {0})
        expected = (b"a" * 30_001 + b"b" * (CLUSTER - 30_001)) * 64
        self.assertEqual(wires[0].pread(5 * MIB, 64 * CLUSTER), expected)

    def test_zeroes_sent_as_data_allocate_nothing(self):
        """C19 Q8"""
        wire = self.open()
        self.assertEqual(wire.error(TRIM, 60 * MIB, 32 * MIB), 0)
        self.assertEqual(wire.error(FLUSH), 0)
        before = os.stat(self.image).st_size
        wire.pwrite(60 * MIB, bytes(32 * MIB), FUA)
        self.assertLess(os.stat(self.image).st_size - before, MIB // 2)

    def test_fua_on_every_command(self):
        """C1 C2 C7 C9 C13"""
        wire = self.open(contexts=CONTEXTS[:1])
        wire.pwrite(0, b"x" * 512, FUA)
        for command in (READ, TRIM, WRITE_ZEROES, BLOCK_STATUS):
            self.assertEqual(wire.error(command, 0, 512, FUA), 0, command)


class NoHole(Conformance):
    """WRITE_ZEROES with NO_HOLE, as it is by default."""

    def grown_by(self, wire):
        self.assertEqual(wire.error(WRITE_ZEROES, 0, 96 * MIB, NO_HOLE | FUA), 0)
        self.assertEqual(wire.pread(92 * MIB, 4 * MIB), bytes(4 * MIB))
        wire.close()
        self.assertEqual(self.server.stop(), 0)
        used = scratch.allocated_bytes(self.image)
        type(self).server = self.serve(read_only=False)
        return used

    def test_takes_no_space(self):
        """C11"""
        self.assertLess(self.grown_by(self.open()), MIB)


class NoHoleAllocates(NoHole):
    """The same with --no-hole=allocate."""

    options = ("--no-hole=allocate",)

    def test_takes_no_space(self):
        """C11: the other way round"""
        self.assertGreaterEqual(self.grown_by(self.open()), 96 * MIB)


class ReadOnly(Conformance):
    """A read-only export."""

    read_only = True
    prepared = ((0, b"\x33" * MIB),)

    def test_flags(self):
        """F1"""
        wire = self.hello()
        self.assertEqual(wire.info(NAME)[0][8:], b"\x01\x0f")
        wire.ask(STRUCTURED_REPLY)
        self.assertEqual(wire.info(NAME)[0][8:], b"\x01\x8f")

    def test_writes_are_not_permitted_and_nothing_changes(self):
        """C2 C7 C9 C12 D9 Q4 Q12"""
        before = self.image.read_bytes()
        for wire in self.both():
            self.assert_refused(wire, EPERM, WRITE, 0, payload=b"x" * 70_000)
            self.assert_refused(wire, EPERM, TRIM, 0, 512)
            self.assert_refused(wire, EPERM, WRITE_ZEROES, 0, 512)
            self.assert_refused(wire, EINVAL, WRITE_ZEROES, 0, 512, FAST_ZERO)
            self.assert_refused(wire, EPERM, WRITE, SIZE, payload=b"x")  # EPERM comes before the range
            self.assertEqual(wire.error(FLUSH), 0)
            self.assertEqual(wire.pread(0, MIB), b"\x33" * MIB)
        self.assertEqual(self.image.read_bytes(), before)


if __name__ == "__main__":
    run.main()
