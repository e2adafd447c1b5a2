#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Extended headers, by a raw socket against `varve nbd`.

The ids in the docstrings are the rows of docs/nbd-support.md.  After each case the process must
still serve a fresh connection.
"""

import os
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run  # noqa: E402
from harness.conformance import *  # noqa: E402, F403  the suites' case, and the wire's words


class Extended(Conformance):
    """X-1 to X-7: what Debian's clients cannot ask for."""

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

    def test_write_that_does_not_say_that_it_has_a_payload(self):
        """X-1: what qemu 10.0 sends; a guest must not command its export by what it writes"""
        with QemuWire(self.address).transmission(NAME, contexts=CONTEXTS, extended=True) as wire:
            wire.pwrite(CLUSTER, b"v" * CLUSTER)
            forged = extended_request(WRITE_ZEROES, CLUSTER, CLUSTER, cookie=666) * 16
            wire.pwrite(4096, forged, flags=FUA)
            self.assertEqual(wire.pread(4096, len(forged)), forged)
            self.assertEqual(wire.pread(CLUSTER, CLUSTER), b"v" * CLUSTER)
            for refused in ((self.size, 0), (4096, NO_HOLE)):
                offset, flags = refused
                self.assertNotEqual(wire.do(WRITE, offset, flags=flags, payload=forged)[0].error, 0)
            self.assertEqual(wire.pread(CLUSTER, CLUSTER), b"v" * CLUSTER)
            self.assertEqual(wire.do(BLOCK_STATUS, 0, CLUSTER)[0].type, STATUS_EXT)
            self.assertEqual(wire.error(WRITE_ZEROES, CLUSTER, CLUSTER), 0)
            wire.send(qemu_request(WRITE, 0, (64 << 20) + 1) + extended_request(FLUSH))
            self.assertEqual(wire.reply().error, EINVAL)
            self.assertTrue(wire.ends())

    def test_compact_request_on_an_extended_connection(self):
        """X-1 C17"""
        wire = self.extended()
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


if __name__ == "__main__":
    run.main()
