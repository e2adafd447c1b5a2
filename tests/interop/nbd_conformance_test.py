#!/usr/bin/python3
"""Every row of the NBD reference that a raw socket can test, against `varve nbd`.

The ids in the docstrings are the rows of docs/nbd-support.md.  After each case the process must
still serve a fresh connection.
"""

import os
import random
import resource
import socket
import struct
import subprocess
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import image_server, qemu, run, scratch  # noqa: E402
from support.nbd_wire import *  # noqa: E402, F403  the wire's words are this file's vocabulary

MIB = 1 << 20
CLUSTER = 65536
NAME = "vm/disk-0@p?rw=1"
SIZE = 100 * MIB + 1234
CONTEXTS = ("base:allocation", "qemu:allocation-depth")


class Conformance(unittest.TestCase):
    """One image, served for all cases of a class."""

    size = SIZE
    read_only = False
    prepared = ()  # (offset, bytes) that a first server writes

    @classmethod
    def setUpClass(cls):
        cls.dir = cls.enterClassContext(scratch.directory())
        cls.image = cls.dir / "image.qcow2"
        made = image_server.create(cls.image, cls.size)
        assert made.returncode == 0, made.stderr
        cls.address = str(cls.dir / "nbd.sock")
        if cls.prepared:
            server = cls.serve(read_only=False)
            with Wire(cls.address).transmission(NAME) as wire:
                for offset, data in cls.prepared:
                    wire.pwrite(offset, data)
            assert server.stop() == 0
        cls.server = cls.serve(cls.read_only)

    @classmethod
    def serve(cls, read_only):
        server = image_server.ImageServer(cls.image, cls.address, export=NAME, read_only=read_only)
        cls.addClassCleanup(server.close)
        return server.wait()

    def tearDown(self):
        # Whatever the case did: the process is alive and serves.
        with self.open() as wire:
            self.assertEqual(wire.error(FLUSH), 0)

    def connect(self):
        wire = Wire(self.address)
        self.addCleanup(wire.close)
        return wire

    def hello(self, flags=3):
        return self.connect().hello(flags)

    def open(self, structured=True, contexts=()):
        return self.connect().transmission(NAME, structured, contexts)

    def both(self):
        """A connection with simple and one with structured replies."""
        for structured in (False, True):
            with self.subTest(structured=structured):
                yield self.open(structured)

    def assert_refused(self, wire, error, *request_, **more):
        chunks = wire.do(*request_, **more)
        self.assertEqual([chunk.error for chunk in chunks], [error])
        if wire.structured:
            self.assertTrue(chunks[0].text)
            self.assertLessEqual(len(chunks[0].text), 256)
            self.assertNotIn(str(self.dir), chunks[0].text)
        return chunks[0]


class Handshake(Conformance):
    """Sections 1 and 2."""

    def test_greeting_comes_before_any_client_byte(self):
        """H1"""
        self.assertEqual(self.connect().receive(18), GREETING)

    def test_unknown_client_flags_and_a_wrong_magic_drop(self):
        """H2 Q18"""
        self.assertTrue(self.hello(flags=4).is_dropped())
        wire = self.hello()
        wire.send(b"x" * 16)
        self.assertTrue(wire.is_dropped())

    def test_end_of_stream_at_every_byte_is_survived(self):
        """H2"""
        talk = struct.pack(">I", 3) + option(GO, info_data(NAME, (3,)))
        for size in range(len(talk)):
            with self.connect() as wire:
                wire.send(talk[:size])

    def test_client_without_fixed_newstyle_may_only_name_an_export(self):
        """H3 Q18"""
        for number in (LIST, GO, STARTTLS, ABORT):
            wire = self.hello(flags=0)
            wire.send(option(number))
            self.assertTrue(wire.is_dropped(), number)

    def test_export_name_is_padded_unless_the_client_says_no(self):
        """H4 O1"""
        for flags in (0, 1, 2, 3):
            wire = self.hello(flags)
            wire.send(option(EXPORT_NAME, NAME.encode()))
            reply = wire.receive(10 if flags & 2 else 134)
            self.assertEqual(reply[:10], struct.pack(">QH", self.size, 0x096D))
            self.assertEqual(reply[10:].strip(b"\0"), b"")
            self.assertEqual(wire.error(FLUSH), 0)

    def test_strings_that_are_no_text_are_refused(self):
        """H5"""
        wire = self.hello()
        for name in (b"\xc3\x28", b"a\0b", b"a" * 4097):
            self.assertEqual(wire.ask(GO, info_data(name))[0], ERR_INVALID)
            other = self.hello()
            other.send(option(EXPORT_NAME, name))
            self.assertTrue(other.is_dropped())

    def test_too_long_an_option_drops_before_its_data(self):
        """H6 Q13"""
        wire = self.hello()
        wire.send(OPTION_MAGIC + struct.pack(">II", GO, 65537))
        self.assertTrue(wire.is_dropped())

    def test_options_are_read_in_full_before_the_reply(self):
        """H7 Q13"""
        wire = self.hello()
        wire.send(option(77, b"x" * 65536)[:-1])
        self.assertTrue(wire.is_quiet())
        wire.send(b"x")
        self.assertEqual(wire.answer()[1], ERR_UNSUP)
        self.assertEqual(wire.ask(STRUCTURED_REPLY)[0], ACK)

    def test_fragmentation_changes_nothing(self):
        """H8"""
        talk = option(STRUCTURED_REPLY) + option(99, b"abc") + option(LIST) + option(INFO, info_data(NAME))
        seen = []
        for step in (1, len(talk)):
            wire = self.hello()
            for at in range(0, len(talk), step):
                wire.send(talk[at : at + step])
            seen.append([wire.answers() for _ in range(4)])
        self.assertEqual(*seen)

    def test_trickle_does_not_extend_the_patience(self):
        """H9 Q11"""
        idle, trickle = self.hello(), self.hello()
        start = time.monotonic()
        trickle.send(OPTION_MAGIC + struct.pack(">II", 99, 60000))
        while time.monotonic() - start < 9:
            self.assertTrue(trickle.is_quiet(0.5))
            trickle.send(b"x")
        self.assertTrue(trickle.is_dropped())
        self.assertTrue(idle.is_dropped())
        self.assertLess(time.monotonic() - start, 13)

    def test_number_of_options_is_bounded(self):
        """H10"""
        wire = self.hello()
        for _ in range(65536 // 1024):
            wire.send(option(99) * 1024)
            for _ in range(1024):
                wire.answer()
        self.assertTrue(wire.is_dropped())

    def test_oldest_handshake_makes_room(self):
        """H11 Q11"""
        waiting = [self.connect() for _ in range(258)]
        for wire in waiting:
            wire.receive(18)
        self.assertTrue(waiting[0].is_dropped())
        self.assertEqual(self.open().error(FLUSH), 0)
        waiting[-1].send(struct.pack(">I", 3))
        self.assertEqual(waiting[-1].ask(99)[0], ERR_UNSUP)

    def test_abort_is_acknowledged_then_the_stream_ends(self):
        """O2 Q6 Q19"""
        wire = self.hello()
        wire.send(option(ABORT, b"data") + b"more that nobody reads" * 1000)
        self.assertEqual(wire.answer(), (ABORT, ACK, b""))
        self.assertTrue(wire.ends())

    def test_list_names_the_export_and_takes_no_data(self):
        """O3 Q16"""
        wire = self.hello()
        entry = struct.pack(">I", len(NAME)) + NAME.encode()
        answers = wire.ask_all(LIST)
        self.assertEqual([kind for kind, _ in answers], [SERVER, ACK])
        self.assertTrue(answers[0][1].startswith(entry))
        self.assertEqual(wire.ask(LIST, b"x"), (ERR_INVALID, "LIST takes no data"))

    def test_unknown_options_are_unsupported(self):
        """O4"""
        wire = self.hello()
        for number in (0, PEEK_EXPORT, 12, 0xFFFFFFFF):
            self.assertEqual(wire.ask(number), (ERR_UNSUP, f"option {number} is not supported"))

    def test_starttls_is_refused_where_tls_is_off(self):
        """O5 T1 Q20"""
        wire = self.hello()
        self.assertEqual(wire.ask(STARTTLS), (ERR_POLICY, "TLS is disabled on this listener"))
        self.assertEqual(wire.ask(STARTTLS, b"x"), (ERR_INVALID, "STARTTLS takes no data"))

    def test_info_says_what_go_says(self):
        """O6 O7 O8 B1 B2 B3 B4 F1 Q9 Q17"""
        for structured, flags in ((False, 0x096D), (True, 0x09ED)):
            wire = self.hello()
            if structured:
                wire.ask(STRUCTURED_REPLY)
            before = wire.info(NAME, (1, 2, 3, 3, 77))
            self.assertEqual(before[0], struct.pack(">QH", self.size, flags))
            self.assertEqual(before[3], struct.pack(">III", 1, CLUSTER, 32 * MIB))
            self.assertEqual(before[1], NAME.encode())
            self.assertIn(2, before)
            self.assertEqual(wire.info(NAME, (1, 2, 3, 3, 77), number=GO), before)
            self.assertEqual(wire.error(FLUSH), 0)

    def test_go_with_no_info_requests(self):
        """O8 K5"""
        wire = self.hello()
        self.assertEqual(set(wire.info(NAME, (), number=GO)), {0, 3})

    def test_malformed_go_is_refused(self):
        """O7"""
        wire = self.hello()
        good = info_data(NAME, (3, 1))
        for data in [good[:size] for size in range(len(good))] + [good + b"x", b"\xff\xff\xff\xff" + good[4:]]:
            self.assertEqual(wire.ask(GO, data), (ERR_INVALID, "malformed GO request"))
        self.assertEqual(wire.ask(INFO), (ERR_INVALID, "malformed INFO request"))

    def test_unknown_name(self):
        """O9 O1 Q16"""
        wire = self.hello()
        for number in (INFO, GO):
            self.assertEqual(wire.ask(number, info_data("x y")), (ERR_UNKNOWN, 'export "x y" does not exist'))
        wire.send(option(EXPORT_NAME, b"x y"))
        self.assertTrue(wire.is_dropped())

    def test_empty_name_means_the_default_export(self):
        """O10"""
        wire = self.hello()
        answers = wire.info("", (), number=GO)
        self.assertEqual(answers[1], NAME.encode())  # told, because it differs
        self.assertEqual(wire.error(FLUSH), 0)

    def test_full_export_says_so(self):
        """O11 X1 Q1"""
        held = [self.open() for _ in range(64)]
        start = time.monotonic()
        wire = self.hello()
        self.assertEqual(
            wire.ask(GO, info_data(NAME)), (ERR_POLICY, f'export "{NAME}" already has 64 connections (limit 64)')
        )
        self.assertLess(time.monotonic() - start, 1)
        other = self.hello()
        other.send(option(EXPORT_NAME, NAME.encode()))
        self.assertTrue(other.is_dropped())
        for one in held:
            self.assertEqual(one.error(FLUSH), 0)
            one.close()
        scratch.wait_until(lambda: self.hello().ask(GO, info_data(NAME))[0] == ACK, 5, "a place is free again")

    def test_structured_reply_may_be_asked_twice(self):
        """O13"""
        wire = self.hello()
        self.assertEqual(wire.ask(STRUCTURED_REPLY)[0], ACK)
        self.assertEqual(wire.ask(STRUCTURED_REPLY)[0], ACK)
        self.assertEqual(wire.ask(STRUCTURED_REPLY, b"x")[0], ERR_INVALID)


class Contexts(Conformance):
    """Section 6, negotiation, and O14, O15, O18."""

    def listed(self, wire, *queries):
        answers = wire.ask_all(LIST_META, meta_data(NAME, queries))
        self.assertEqual(answers[-1][0], ACK)
        self.assertTrue(all(data[:4] == bytes(4) for kind, data in answers if kind == META_CONTEXT))
        return tuple(data[4:].decode() for kind, data in answers if kind == META_CONTEXT)

    def test_list_with_and_without_structured_replies(self):
        """O14 M4"""
        wire = self.hello()
        for _ in range(2):
            self.assertEqual(self.listed(wire), CONTEXTS)
            self.assertEqual(self.listed(wire, "base:"), CONTEXTS[:1])
            self.assertEqual(self.listed(wire, "qemu:"), CONTEXTS[1:])
            self.assertEqual(self.listed(wire, "qemu:dirty-bitmap:"), ())
            self.assertEqual(self.listed(wire, "base:allocation", "base:"), CONTEXTS[:1])
            wire.ask(STRUCTURED_REPLY)

    def test_set_needs_structured_replies(self):
        """O15"""
        wire = self.hello()
        self.assertEqual(
            wire.ask(SET_META, meta_data(NAME, CONTEXTS)), (ERR_INVALID, "structured replies must be negotiated first")
        )

    def test_unknown_queries_are_ignored(self):
        """M4 M5"""
        wire = self.hello()
        wire.ask(STRUCTURED_REPLY)
        for query in ("base:", "qemu:", "base:x", "nbdkit:foo", "nocolon", "", "qemu:dirty-bitmap:since-x"):
            self.assertEqual(len(wire.ask_all(SET_META, meta_data(NAME, [query]))), 1, query)

    def test_requests_that_do_not_fit(self):
        """M6"""
        wire = self.hello()
        wire.ask(STRUCTURED_REPLY)
        data = meta_data(NAME, CONTEXTS)
        for size in range(len(data)):
            self.assertEqual(wire.ask(SET_META, data[:size])[0], ERR_INVALID)
        self.assertEqual(wire.ask(SET_META, data + b"x")[0], ERR_INVALID)
        self.assertEqual(wire.ask(SET_META, meta_data(NAME, ["base:"] * 64))[0], ACK)
        self.assertEqual(wire.ask(SET_META, meta_data(NAME, ["base:"] * 65))[0], ERR_TOO_BIG)
        self.assertEqual(wire.ask(LIST_META, meta_data("nobody"))[0], ERR_UNKNOWN)

    def test_ids_are_unique_and_a_context_comes_once(self):
        """M7"""
        wire = self.hello()
        wire.ask(STRUCTURED_REPLY)
        answers = wire.ask_all(SET_META, meta_data(NAME, CONTEXTS + CONTEXTS))
        ids = [data[:4] for kind, data in answers if kind == META_CONTEXT]
        self.assertEqual((len(ids), len(set(ids))), (2, 2))

    def test_set_replaces_the_earlier_set_also_in_failure(self):
        """O15 O18"""
        for second in (meta_data("nobody", CONTEXTS), meta_data(NAME, ["base:"]), b"x"):
            wire = self.hello()
            wire.ask(STRUCTURED_REPLY)
            self.assertEqual(wire.ask(SET_META, meta_data(NAME, CONTEXTS))[0], ACK)
            wire.ask(SET_META, second)
            wire.structured = True
            wire.info(NAME, number=GO)
            self.assert_refused(wire, EINVAL, BLOCK_STATUS, 0, 512)


class Commands(Conformance):
    """Section 4."""

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

    def test_no_hole_allocates(self):
        """C11"""
        wire = self.open()
        self.assertEqual(wire.error(FLUSH), 0)
        before = scratch.allocated_bytes(self.image)
        self.assertEqual(wire.error(WRITE_ZEROES, 96 * MIB, 4 * MIB, NO_HOLE | FUA), 0)
        self.assertEqual(wire.pread(96 * MIB, 4 * MIB), bytes(4 * MIB))
        size = os.stat(self.image).st_size
        self.assertGreaterEqual(max(scratch.allocated_bytes(self.image) - before, size), 4 * MIB)

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


class Replies(Conformance):
    """Sections 5 and 6, on an image with known content."""

    prepared = ((2 * CLUSTER, b"\x11" * (3 * CLUSTER)), (20 * CLUSTER + 5, b"\x22" * 10))

    def test_simple_and_structured_forms(self):
        """P1 P2"""
        wire = self.open()
        for command, more in ((FLUSH, {}), (TRIM, {"offset": MIB * 50, "length": 512}), (WRITE, {"payload": b""})):
            self.assertIsNone(wire.do(command, **more)[0].type)
        self.assertEqual(wire.do(CACHE)[0].type, ERROR)
        self.assertIsNone(self.open(False).do(CACHE)[0].type)

    def test_holes_cross_the_wire_as_holes(self):
        """P3 P4 P5 Q16"""
        wire = self.open()
        chunks = wire.do(READ, 0, 40 * CLUSTER)
        shape = sorted((chunk.offset, chunk.type) for chunk in chunks)
        self.assertEqual(
            shape, [(0, HOLE), (2 * CLUSTER, DATA), (5 * CLUSTER, HOLE), (20 * CLUSTER, DATA), (21 * CLUSTER, HOLE)]
        )
        self.assertEqual([chunk.done for chunk in chunks], [False] * 4 + [True])
        expected = bytearray(40 * CLUSTER)
        for offset, data in self.prepared:
            expected[offset : offset + len(data)] = data
        self.assertEqual(wire.pread(0, 40 * CLUSTER), bytes(expected))

    def test_dont_fragment(self):
        """P6"""
        wire = self.open()
        chunks = wire.do(READ, 0, 8 * CLUSTER, DF)
        self.assertEqual([(chunk.type, len(chunk.payload)) for chunk in chunks], [(DATA, 8 * CLUSTER + 8)])
        chunks = wire.do(READ, 30 * MIB, 32 * MIB, DF)
        self.assertEqual([(chunk.type, chunk.payload[8:]) for chunk in chunks], [(HOLE, struct.pack(">I", 32 * MIB))])

    def test_replies_of_many_requests_keep_their_cookies(self):
        """P10"""
        wire = self.open()
        offsets = [random.Random(4).randrange(SIZE - 4096) for _ in range(500)]
        wire.send(b"".join(request(READ, offset, 4096, cookie=at) for at, offset in enumerate(offsets)))
        open_, left = set(range(500)), 500
        while left:
            chunk = wire.reply()
            self.assertIn(chunk.cookie, open_)
            self.assertEqual(chunk.error, 0)
            if chunk.done:
                open_.remove(chunk.cookie)
                left -= 1

    def test_status_of_both_contexts(self):
        """M1 M2 M8 C13"""
        wire = self.open(contexts=CONTEXTS)
        found = wire.status(100, 30 * CLUSTER)
        runs = [(2 * CLUSTER - 100, 3), (3 * CLUSTER, 0), (15 * CLUSTER, 3), (CLUSTER, 0), (9 * CLUSTER + 100, 3)]
        self.assertEqual(found[1], runs)
        self.assertEqual(found[2], [(length, 0 if flags else 1) for length, flags in runs])

    def test_status_of_one_run(self):
        """M9"""
        wire = self.open(contexts=CONTEXTS)
        self.assertEqual(wire.status(CLUSTER, 2 * CLUSTER, REQ_ONE), {1: [(CLUSTER, 3)], 2: [(CLUSTER, 0)]})
        self.assertEqual(wire.status(2 * CLUSTER, CLUSTER, REQ_ONE), {1: [(CLUSTER, 0)], 2: [(CLUSTER, 1)]})

    def test_status_up_to_the_exact_end(self):
        """M8 B4"""
        wire = self.open(contexts=CONTEXTS[:1])
        (runs,) = wire.status(0, SIZE).values()
        self.assertEqual(sum(length for length, _ in runs), SIZE)

    def test_status_that_cannot_be(self):
        """C13 O18"""
        self.assert_refused(self.open(), EINVAL, BLOCK_STATUS, 0, 512)
        wire = self.open(contexts=CONTEXTS)
        self.assert_refused(wire, EINVAL, BLOCK_STATUS, 0, 0)
        self.assert_refused(wire, EINVAL, BLOCK_STATUS, SIZE, 1)
        self.assert_refused(wire, EINVAL, BLOCK_STATUS, 0, 512, DF)


class Extended(Conformance):
    """Section 7, rows X-1 to X-7: what Debian's clients cannot ask for."""

    def extended(self, contexts=()):
        return self.connect().transmission(NAME, contexts=contexts, extended=True)

    def filtered(self, wire, length, ids, offset=0, flags=0):
        return wire.do(BLOCK_STATUS, offset, flags=flags, payload=status_filter(length, ids))

    def test_negotiation(self):
        """O16 X-7 K2"""
        for before in ((), (STRUCTURED_REPLY,)):
            wire = self.hello()
            for number in before:
                self.assertEqual(wire.ask(number)[0], ACK)
            self.assertEqual(wire.ask(EXTENDED_HEADERS, b"x")[0], ERR_INVALID)
            self.assertEqual(wire.ask(EXTENDED_HEADERS)[0], ACK)
            self.assertEqual(wire.ask(STRUCTURED_REPLY)[0], ERR_EXT_HEADER_REQD)
            self.assertEqual(wire.ask(SET_META, meta_data(NAME, CONTEXTS))[0], ACK)
            size, flags = struct.unpack(">QH", wire.info(NAME)[0])
            self.assertEqual((size, flags), (self.size, 0x19ED))
            self.assertEqual(wire.info(NAME, number=GO)[0], struct.pack(">QH", size, flags))
            wire.extended = True
            self.assertEqual(wire.error(FLUSH), 0)
        wire = self.hello()
        self.assertEqual(wire.ask(EXTENDED_HEADERS)[0], ACK)
        self.assertEqual(struct.unpack(">QH", wire.info(NAME)[0])[1], 0x09ED)  # no context: no bit 12
        wire.send(option(EXPORT_NAME, NAME.encode()))
        self.assertTrue(wire.is_dropped())

    def test_every_reply_has_the_extended_header(self):
        """X-1 X-2"""
        wire = self.extended()
        data = os.urandom(3 * CLUSTER + 17)
        [done] = wire.do(WRITE, 4711, payload=data)
        self.assertEqual((done.type, done.request_offset, done.payload), (NONE, 4711, b""))
        self.assertEqual(wire.pread(4711, len(data)), data)
        with self.open(structured=False) as other:
            self.assertEqual(other.pread(4711, len(data)), data)
        for chunk in wire.do(READ, 4711, len(data)):
            self.assertEqual(chunk.request_offset, 4711)
        for command in (TRIM, WRITE_ZEROES):
            [done] = wire.do(command, CLUSTER, CLUSTER, flags=FUA)
            self.assertEqual((done.type, done.error), (NONE, 0))
        self.assertEqual(wire.pread(CLUSTER, CLUSTER), bytes(CLUSTER))
        [hole] = wire.do(READ, CLUSTER, CLUSTER, flags=DF)
        self.assertEqual((hole.type, hole.payload), (HOLE, struct.pack(">QI", CLUSTER, CLUSTER)))
        self.assert_refused(wire, EINVAL, READ, self.size, 1)
        self.assert_refused(wire, EINVAL, 99)

    def test_write_must_say_that_it_has_a_payload(self):
        """X-1"""
        wire = self.extended()
        for length in (0, 512, 1 << 50):
            self.assert_refused(wire, EINVAL, WRITE, 0, length)
        self.assertEqual(wire.error(FLUSH), 0)
        wire.send(request(FLUSH))  # the other magic
        wire.send(bytes(4))
        self.assertTrue(wire.is_dropped())

    def test_status_has_sixty_four_bits(self):
        """X-3 X-6"""
        wire = self.extended(CONTEXTS)
        wire.pwrite(1401 * CLUSTER, b"x" * CLUSTER)
        chunks = wire.do(BLOCK_STATUS, 1400 * CLUSTER, 3 * CLUSTER)
        self.assertEqual([chunk.type for chunk in chunks], [STATUS_EXT] * 2)
        self.assertEqual(chunks[0].runs, [(CLUSTER, 3), (CLUSTER, 0), (CLUSTER, 3)])
        self.assertEqual(chunks[1].runs, [(CLUSTER, 0), (CLUSTER, 1), (CLUSTER, 0)])
        self.assert_refused(wire, EINVAL, BLOCK_STATUS, 0, self.size + 1)
        self.assert_refused(wire, EINVAL, BLOCK_STATUS, 0, 0)

    def test_status_of_chosen_contexts(self):
        """X-4"""
        wire = self.extended(CONTEXTS)
        ids = [chunk.context_id for chunk in wire.do(BLOCK_STATUS, 0, CLUSTER)]
        for chosen in (ids[:1], ids[1:], ids, ids[::-1]):
            chunks = self.filtered(wire, CLUSTER, chosen)
            self.assertEqual(sorted(chunk.context_id for chunk in chunks), sorted(chosen))
        [chunk] = self.filtered(wire, self.size - 5, ids[:1], offset=5, flags=REQ_ONE)
        self.assertEqual(len(chunk.runs), 1)
        for wrong in ([99], ids + ids[:1], [ids[0]] * 2, []):
            self.assertEqual(self.filtered(wire, CLUSTER, wrong)[0].error, EINVAL, wrong)
        for length in (0, self.size + 1):
            self.assertEqual(self.filtered(wire, length, ids)[0].error, EINVAL, length)
        for payload in (b"x", bytes(11), bytes(13), bytes(1 << 20)):
            self.assertEqual(wire.do(BLOCK_STATUS, payload=payload)[0].error, EINVAL, len(payload))
        self.assertEqual(self.filtered(self.extended(), CLUSTER, ids)[0].error, EINVAL)  # none selected

    def test_payload_where_none_belongs(self):
        """X-5 C3"""
        wire = self.extended(CONTEXTS)
        for command in (READ, FLUSH, TRIM, CACHE, WRITE_ZEROES, RESIZE, 99):
            self.assertEqual(wire.do(command, payload=os.urandom(100_000))[0].error, EINVAL)
            self.assertEqual(wire.error(FLUSH), 0)
        for command in (TRIM, BLOCK_STATUS):
            wire = self.extended(CONTEXTS)
            wire.send(extended_request(command, 0, (64 << 20) + 1, flags=PAYLOAD_LEN))
            self.assertTrue(wire.is_dropped())
        wire = self.extended()
        wire.send(extended_request(WRITE, 0, (64 << 20) + 1, flags=PAYLOAD_LEN))
        self.assertEqual(wire.reply().error, EINVAL)
        self.assertTrue(wire.ends())
        wire = self.extended()
        wire.pwrite(0, os.urandom(64 << 20))

    def test_disconnect_and_end_of_stream_at_every_byte(self):
        """C5 D2"""
        wire = self.extended()
        wire.send(extended_request(DISC))
        self.assertTrue(wire.ends())
        message = extended_request(BLOCK_STATUS, payload=status_filter(CLUSTER, [1, 2]))
        for size in range(len(message)):
            with self.extended(CONTEXTS) as wire:
                wire.send(message[:size])


class Changes(Conformance):
    """M3: an image on two others.  The middle one is shorter than the one below it."""

    @classmethod
    def setUpClass(cls):
        cls.dir = cls.enterClassContext(scratch.directory())
        cls.address = str(cls.dir / "nbd.sock")
        layers = (("base", 8 * CLUSTER, None, (0, 1, 2, 3)), ("mid", 5 * CLUSTER, "base", (1,)), ("top", 8 * CLUSTER, "mid", ()))
        for name, size, backing, clusters in layers:
            cls.image = cls.dir / f"{name}.qcow2"
            made = image_server.create(cls.image, size, backing and f"{backing}.qcow2")
            assert made.returncode == 0, made.stderr
            server = cls.serve(read_only=False)
            with Wire(cls.address).transmission(NAME) as wire:
                for cluster in clusters:
                    wire.pwrite(cluster * CLUSTER, name.encode() * (CLUSTER // len(name)))
            if name != "top":
                assert server.stop() == 0

    def since(self, point, extended=False):
        wire = self.connect().transmission(NAME, contexts=(f"qemu:dirty-bitmap:since-{point}",), extended=extended)
        [runs] = wire.status(0, 8 * CLUSTER).values()
        return [(length // CLUSTER, dirty) for length, dirty in runs]

    def test_each_ancestor_is_offered(self):
        """M3 M4"""
        wire = self.hello()
        named = {f"qemu:dirty-bitmap:since-{point}" for point in ("mid", "base")}
        for queries in ((), ("qemu:",), ("qemu:dirty-bitmap:",)):
            answers = wire.ask_all(LIST_META, meta_data(NAME, queries))
            self.assertLessEqual(named, {data[4:].decode() for kind, data in answers if kind == META_CONTEXT})
        wire.ask(STRUCTURED_REPLY)
        for query in ("qemu:dirty-bitmap:", "qemu:dirty-bitmap:since-", "qemu:dirty-bitmap:since-top"):
            self.assertEqual(len(wire.ask_all(SET_META, meta_data(NAME, [query]))), 1, query)

    def test_changes_since_each_ancestor(self):
        """M3"""
        for extended in (False, True):
            # Behind the middle image's end the base's data are not the disk's any more.
            self.assertEqual(self.since("mid", extended), [(5, 0), (3, 1)])
            self.assertEqual(self.since("base", extended), [(1, 0), (1, 1), (3, 0), (3, 1)])
        with self.open() as wire:
            wire.pwrite(2 * CLUSTER, b"x" * CLUSTER)
            self.assertEqual(wire.error(TRIM, 3 * CLUSTER, CLUSTER), 0)
            self.assertEqual(self.since("mid"), [(2, 0), (2, 1), (1, 0), (3, 1)])
            self.assertEqual(self.since("base"), [(1, 0), (3, 1), (1, 0), (3, 1)])


    def test_changes_since_each_ancestor_read_only(self):
        """M3: a restore point, as varve nbd -r serves it"""
        server = image_server.ImageServer(self.dir / "mid.qcow2", str(self.dir / "point.sock"), export=NAME, read_only=True)
        self.addCleanup(server.close)
        server.wait()
        contexts = ("qemu:dirty-bitmap:since-base", "qemu:allocation-depth")
        with Wire(str(self.dir / "point.sock")).transmission(NAME, contexts=contexts) as wire:
            depth, changed = (wire.status(0, 5 * CLUSTER)[number] for number in (2, 3))
        self.assertEqual([(length // CLUSTER, value) for length, value in changed], [(1, 0), (1, 1), (3, 0)])
        self.assertEqual([(length // CLUSTER, value) for length, value in depth], [(1, 2), (1, 1), (2, 2), (1, 0)])


class ReadOnly(Conformance):
    """A read-only export: section 3's middle column."""

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


class Manners(Conformance):
    """Sections 10, 11 and 13."""

    def test_sixty_four_requests_in_one_burst(self):
        """X4 K1"""
        wire = self.open(False)
        for cookie in range(64):
            wire.send(write(cookie << 18, bytes([cookie]) * (256 << 10), cookie=cookie))
        self.assertEqual({wire.reply().cookie for _ in range(64)}, set(range(64)))

    def test_client_that_does_not_read_costs_only_itself(self):
        """X8 X4"""
        self.open().pwrite(0, b"\x44" * (64 * MIB))
        slow = self.open()
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(8):
            slow.send(request(READ, 0, 32 * MIB))
        quick = self.open()
        start = time.monotonic()
        for _ in range(50):
            quick.pread(0, 4096)
        self.assertLess(time.monotonic() - start, 5)

    def test_end_of_stream_inside_a_write_at_many_bytes(self):
        """D1 D2"""
        whole = write(0, b"x" * 100)
        for size in range(0, len(whole) + 1, 3):
            with self.open() as wire:
                wire.send(whole[:size])
        wire = self.open()
        wire.pwrite(0, b"y" * 100)
        self.assertEqual(wire.pread(0, 100), b"y" * 100)

    def test_acknowledged_data_outlives_a_kill_after_two_seconds(self):
        """D3 D4 Q2 no FLUSH, no DISC"""
        data = random.Random(6).randbytes(16 * MIB)
        wire = self.open()
        wire.pwrite(30_000, data)
        time.sleep(2)
        self.server.kill()
        type(self).server = self.serve(False)
        self.assertEqual(self.open().pread(30_000, len(data)), data)

    def test_flush_covers_other_connections(self):
        """D5"""
        data = random.Random(7).randbytes(5 * MIB)
        one, two = self.open(), self.open()
        one.pwrite(50_000_000, data)
        self.assertEqual(two.error(FLUSH), 0)
        self.server.kill()
        type(self).server = self.serve(False)
        self.assertEqual(self.open().pread(50_000_000, len(data)), data)

    def test_stop_does_not_wait_for_clients_and_leaves_the_image_clean(self):
        """X10 O17 Q11"""
        idle, waiting = self.open(), [self.connect() for _ in range(100)]
        idle.pwrite(1234, b"kept")
        start = time.monotonic()
        self.assertEqual(self.server.stop(), 0)
        self.assertLess(time.monotonic() - start, 6)
        self.assertTrue(idle.is_dropped())
        for wire in waiting:
            wire.close()
        qemu.check(self.image)
        type(self).server = self.serve(False)
        self.assertEqual(self.open().pread(1234, 4), b"kept")

    def test_running_connections_outlive_a_lack_of_file_descriptors(self):
        """X3"""
        wire = self.open()
        pid = self.server.process.pid
        in_use = len(os.listdir(f"/proc/{pid}/fd"))
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (in_use + 5, limits[1]))
        crowd = [self.connect() for _ in range(20)]  # accepted by the kernel, not all by the server
        self.assertEqual(crowd[0].receive(18), GREETING)
        self.assertTrue(crowd[-1].is_quiet(0.5))
        self.assertEqual(wire.error(FLUSH), 0)
        for one in crowd[:-1]:
            one.close()
        self.assertEqual(crowd[-1].receive(18), GREETING)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)

    def test_random_garbage_is_survived(self):
        """H2 C17"""
        chance = random.Random(8)
        for _ in range(100):
            with self.connect() as wire:
                wire.receive(18)
                try:
                    wire.send(chance.randbytes(chance.randrange(1, 300)))
                except (BrokenPipeError, ConnectionResetError):
                    pass
            with self.open() as wire:
                wire.send(request(chance.randrange(12), chance.getrandbits(64), 0, chance.getrandbits(16)))


class OverTcp(Conformance):
    """Section 9, as far as `varve nbd` goes."""

    @classmethod
    def setUpClass(cls):
        cls.port = scratch.free_port()
        super().setUpClass()

    @classmethod
    def serve(cls, read_only):
        server = image_server.ImageServer(cls.image, port=cls.port, export=NAME, read_only=read_only)
        cls.addClassCleanup(server.close)
        cls.address = ("127.0.0.1", cls.port)
        return server.wait()

    def test_keep_alive_is_on(self):
        """L1 L2 K7"""
        wire = self.open()
        self.assertEqual(wire.error(FLUSH), 0)
        place = f"127.0.0.1:{wire.socket.getsockname()[1]}"

        def keep_alive_runs():  # the timer of our reply's acknowledgement may come first
            lines = subprocess.run(["ss", "-Htno"], capture_output=True, text=True, check=True).stdout.splitlines()
            (ours,) = [line for line in lines if line.split()[4] == place]
            return "timer:(keepalive," in ours

        scratch.wait_until(keep_alive_runs, 5, "a keep-alive timer")

    def test_abort_and_a_refused_write_reach_the_client(self):
        """O2 C3 Q19: over TCP an early close would reset the reply away"""
        wire = self.hello()
        wire.send(option(ABORT) + bytes(50_000))
        self.assertEqual(wire.answer(), (ABORT, ACK, b""))
        self.assertTrue(wire.ends())
        wire = self.open()
        wire.send(request(WRITE, 0, 64 * MIB + 1) + bytes(200_000))
        self.assertEqual(wire.reply().error, EINVAL)

    def test_large_data_both_ways(self):
        """C2 C18 K8"""
        data = random.Random(9).randbytes(32 * MIB)
        wire = self.open()
        wire.pwrite(1_789_569_536 % SIZE, data)
        self.assertEqual(wire.pread(1_789_569_536 % SIZE, 32 * MIB), data)


class LargeDisk(Conformance):
    """Q10 on a fresh 1 TiB image."""

    size = 1 << 40

    def test_zeroing_the_whole_disk_is_quick(self):
        """C9 Q10"""
        wire = self.open()
        step = (4 << 30) - 4096
        start = time.monotonic()
        for offset in range(0, self.size, step):
            self.assertEqual(wire.error(WRITE_ZEROES, offset, min(step, self.size - offset)), 0)
        self.assertLess(time.monotonic() - start, 1)

    def test_one_request_for_the_whole_disk(self):
        """X-6: zeroing, trimming and describing 1 TiB"""
        wire = self.connect().transmission(NAME, contexts=CONTEXTS, extended=True)
        start = time.monotonic()
        self.assertEqual(wire.error(WRITE_ZEROES, 0, self.size, flags=FAST_ZERO), 0)
        self.assertEqual(wire.error(WRITE_ZEROES, 0, self.size), 0)
        self.assertEqual(wire.error(TRIM, 1, self.size - 1), 0)
        status = wire.status(0, self.size)
        self.assertLess(time.monotonic() - start, 3)
        self.assertEqual(status[1], [(self.size, 3)])
        self.assertLessEqual(sum(length for length, _ in status[2]), self.size)


if __name__ == "__main__":
    run.main()
