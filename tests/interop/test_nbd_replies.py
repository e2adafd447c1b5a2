#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The forms of replies, and what BLOCK_STATUS tells, by a raw socket against `varve nbd`.

The ids in the docstrings are the rows of docs/nbd-support.md.  After each case the process must
still serve a fresh connection.
"""

import random
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import image_server, run, scratch  # noqa: E402
from harness.conformance import *  # noqa: E402, F403  the suites' case, and the wire's words


class Replies(Conformance):
    """docs/nbd-support.md, 5 and 6, on an image with known content."""

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


if __name__ == "__main__":
    run.main()
