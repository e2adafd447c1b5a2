# SPDX-License-Identifier: Apache-2.0
"""The case of the raw-socket suites: one image, served by `varve nbd` for all cases of a class."""

import unittest

from harness import image_server, scratch
from harness.nbd_wire import *  # noqa: F403  the wire's words are this file's vocabulary

MIB = 1 << 20
CLUSTER = 65536
NAME = "vm/disk-0@p?rw=1"
SIZE = 100 * MIB + 1234
CONTEXTS = ("base:allocation", "qemu:allocation-depth")


class Conformance(unittest.TestCase):
    """One image, served for all cases of a class."""

    size = SIZE
    read_only = False
    options = ()  # of the server
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
        server = image_server.ImageServer(cls.image, cls.address, export=NAME, read_only=read_only, options=cls.options)
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
