#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What no good client does, from many connections at once, while a real backup runs beside it.

The rows are those of docs/nbd-support.md, 10.  After each case the backup must have gone on
without a long wait, must complete, and its image must hold what was written.
"""

import os
import random
import resource
import socket
import ssl
import struct
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import qemu, run, scratch, tls_files  # noqa: E402
from harness.case import HubCase, rounds  # noqa: E402
from harness.nbd_wire import *  # noqa: E402, F403  the wire's words are this file's vocabulary

MIB = 1 << 20
DISK = 64 * MIB
# The longest that one write of the backup may take.  Two busy cores are slow; a stall is slower.
UNDISTURBED_SECONDS = 40 if os.environ.get("VARVE_SANITIZED") else 4


class Backup(threading.Thread):
    """Writes the whole disk over and over, one request at a time, until told to finish."""

    def __init__(self, case, job):
        super().__init__(daemon=True)
        self.case, self.job = case, job
        self.handle = case.connect(job)
        self.contents = bytearray(DISK)
        self.ending, self.trouble, self.longest, self.writes = threading.Event(), None, 0.0, 0

    def run(self):
        chance = random.Random(5)
        try:
            while not self.ending.is_set() or self.writes < 64:
                data = chance.randbytes(MIB // 2)
                offset = (self.writes * 2 * MIB + chance.randrange(MIB)) % (DISK - MIB)
                start = time.monotonic()
                self.handle.pwrite(data, offset)
                self.longest = max(self.longest, time.monotonic() - start)
                self.contents[offset : offset + len(data)] = data
                self.writes += 1
                time.sleep(0.002)
        except Exception as error:  # noqa: BLE001  reported by finish()
            self.trouble = error

    def finish(self):
        self.ending.set()
        self.join(60)
        self.case.assertIsNone(self.trouble)
        self.case.assertFalse(self.is_alive(), "the backup hangs")
        self.case.assertLess(self.longest, UNDISTURBED_SECONDS)
        self.case.complete_ok(self.job, "u/1", 0)
        self.handle.shutdown()
        self.case.wait_for_status(self.job["backup_id"], "completed")
        image = self.case.images("backup")[-1]
        raw = self.case.dir / "wanted.raw"
        raw.write_bytes(self.contents)
        qemu.check(image)
        qemu.compare(raw, image)


class Abuse(HubCase):
    def setUp(self):
        self.files = self.enterContext(scratch.directory())
        keys = tls_files.keys_file(self.files / "keys.psk", {"alice": bytes(32)})
        self.options = {"tls": "on", "tls_psk": keys}
        super().setUp()
        for vm_name in ("backup", "attacked"):
            self.register(vm_name, [DISK])
        self.attacked = self.start("attacked")
        self.name = self.attacked["disk_results"][0]["nbd_export_name"]
        self.ports = [self.hub.nbd_port, self.attacked["disk_results"][0]["nbd_port"]]
        self.backup = Backup(self, self.start("backup"))
        self.backup.start()

    def tearDown(self):
        with self.open() as wire:  # the attacked export still serves, too
            self.assertEqual(wire.error(FLUSH), 0)
        self.backup.finish()
        super().tearDown()

    def connect(self, job=None, index=0):
        if job:
            return super().connect(job, index)
        return Wire(("127.0.0.1", random.choice(self.ports)))

    def open(self):
        return self.connect().transmission(self.name)

    def crowd(self, count):
        wires = []
        for _ in range(count):
            wires.append(self.connect())
            self.addCleanup(wires[-1].close)
        return wires

    def test_a_thousand_half_open_handshakes(self):
        """H11 H9 Q11 X2: some silent, some inside an option, some inside TLS"""
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
        begun = [
            b"",
            struct.pack(">I", 3),
            struct.pack(">I", 3) + option(GO, info_data(self.name))[:-3],
            struct.pack(">I", 3) + OPTION_MAGIC + struct.pack(">II", LIST, 65536) + bytes(1000),
        ]
        crowd = self.crowd(1000)
        for at, wire in enumerate(crowd):
            try:
                wire.send(begun[at % len(begun)])
                if at % 8 == 1:
                    wire.send(option(STARTTLS))
                    wire.receive(18 + 20)
                    wire.send(hello)
            except (ConnectionError, Closed):  # made room for a later one
                pass
        start = time.monotonic()
        with self.open() as wire:
            self.assertEqual(wire.error(FLUSH), 0)
        self.assertLess(time.monotonic() - start, 5)

    def test_file_descriptors_are_no_fewer_than_the_system_allows(self):
        """X2 X3: a soft limit of 1,024 is less than the connections that are promised"""
        soft, hard = resource.prlimit(self.hub.ready["pid"], resource.RLIMIT_NOFILE)
        self.assertEqual(soft, hard)

    def test_one_byte_at_a_time(self):
        """H9 X6 X8: in the handshake, and inside a request"""
        talk = struct.pack(">I", 3) + option(GO, info_data(self.name, (3,)))
        slow, inside = self.crowd(50), [self.open() for _ in range(20)]
        for wire in inside:
            self.addCleanup(wire.close)
        for at in range(20):
            for wire in slow:
                wire.send(talk[at : at + 1])
            for wire in inside:
                wire.send(write(0, b"x" * 100)[at : at + 1])
            time.sleep(0.1)

    def test_huge_option_lengths(self):
        """H6"""
        for length in (65537, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1):
            for number in (GO, LIST, SET_META, STARTTLS, EXPORT_NAME, 77):
                with self.connect().hello() as wire:
                    wire.send(OPTION_MAGIC + struct.pack(">II", number, length) + b"\xff" * 100)
                    self.assertTrue(wire.is_dropped())

    def test_lengths_inside_options_that_lie(self):
        """O7 M6 H5"""
        chance = random.Random(1)
        for _ in range(rounds(200, 5000)):
            data = bytearray(meta_data(self.name, ("base:allocation",)))
            for _ in range(chance.randrange(1, 4)):
                at = chance.randrange(len(data) - 4)
                data[at : at + 4] = struct.pack(">I", chance.choice((0, 1, 4097, 65536, 1 << 31, (1 << 32) - 1)))
            with self.connect().hello() as wire:
                wire.ask(STRUCTURED_REPLY)
                wire.ask_all(chance.choice((SET_META, LIST_META, INFO)), bytes(data))
                self.assertEqual(wire.ask(ABORT)[0], ACK)

    def test_random_garbage(self):
        """H2 C17 T7: at the greeting, in the handshake, in transmission, behind STARTTLS"""
        chance = random.Random(2)
        for turn in range(rounds(200, 5000)):
            with self.connect() as wire:
                try:
                    wire.receive(18)
                    if turn % 4:
                        wire.send(struct.pack(">I", 3))
                    if turn % 4 == 2:
                        wire.send(option(GO, info_data(self.name)))
                    if turn % 4 == 3:
                        wire.ask(STARTTLS)
                    for _ in range(3):
                        wire.send(chance.randbytes(chance.randrange(1, 2000)))
                except (ConnectionError, Closed):
                    pass

    def test_connections_dropped_at_every_byte_of_a_session(self):
        """D1 D2 H2: orderly and by reset"""
        talk = (
            struct.pack(">I", 3)
            + option(STRUCTURED_REPLY)
            + option(SET_META, meta_data(self.name, ("base:allocation",)))
            + option(GO, info_data(self.name, (0, 1, 2, 3)))
            + write(4096, b"y" * 40)
            + request(READ, 0, 8192)
            + request(BLOCK_STATUS, 0, MIB)
            + request(FLUSH)
            + request(DISC)
        )
        for size in range(len(talk) + 1):
            for reset in (False, True):
                wire = self.connect()
                if reset:
                    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                wire.send(talk[:size])
                wire.close()

    def test_writes_racing_disconnects(self):
        """D2: several connections to one export, each torn away inside its own burst of writes"""
        failures = []

        def storm(seed):
            chance = random.Random(seed)
            try:
                for _ in range(rounds(15, 500)):
                    with self.open() as wire:
                        burst = b"".join(
                            write(chance.randrange(DISK - MIB), chance.randbytes(chance.randrange(1, 100_000)), cookie=at)
                            for at in range(chance.randrange(1, 10))
                        )
                        wire.socket.setsockopt(
                            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", chance.randrange(2), 0)
                        )
                        wire.send(burst[: chance.randrange(len(burst))])
            except Exception as error:  # noqa: BLE001
                failures.append(error)

        threads = [threading.Thread(target=storm, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(failures, [])

    def test_two_hundred_connections_to_one_export(self):
        """X1 O11 Q1: 64 are served, the others are told so at once"""
        served, refused = [], 0
        for _ in range(200):
            wire = self.connect().hello()
            self.addCleanup(wire.close)
            start = time.monotonic()
            kind, text = wire.ask(GO, info_data(self.name))
            self.assertLess(time.monotonic() - start, 1)
            if kind == ACK:
                served.append(wire)
            else:
                self.assertEqual(kind, ERR_POLICY)
                self.assertIn("already has 64 connections (limit 64)", text)
                refused += 1
        self.assertEqual((len(served), refused), (64, 136))
        for wire in served:
            self.assertEqual(wire.error(FLUSH), 0)
            wire.close()
        scratch.wait_until(self.has_room, 5, "a place for a new connection")

    def has_room(self):
        with self.connect().hello() as wire:
            return wire.ask(INFO, info_data(self.name))[0] == ACK

    def assert_memory_is_bounded(self):
        """1 GiB of buffers and a little; under a sanitizer their shadow, its quarantine and its larger program too"""
        resident = int(Path(f"/proc/{self.hub.ready['pid']}/statm").read_text().split()[1]) * 4096
        self.assertLess(resident, (1800 if os.environ.get("VARVE_SANITIZED") else 1250) * MIB)

    def test_clients_that_never_read(self):
        """X4 X5 X8: 32 of them, each asking for far more than its share of memory"""
        with self.open() as wire:
            wire.pwrite(0, os.urandom(16 * MIB))
        stuck = [self.open() for _ in range(32)]
        for wire in stuck:
            self.addCleanup(wire.close)
            wire.socket.settimeout(0.1)
            try:
                for at in range(64):
                    wire.send(request(READ, 0, 16 * MIB, cookie=at))
            except TimeoutError:
                pass
        time.sleep(1)
        self.assert_memory_is_bounded()
        with self.open() as reader:  # whoever reads goes on, though they hold all of the memory
            for cookie in range(4):
                reader.send(request(READ, 0, 16 * MIB, cookie=cookie))
            left = 4
            while left:
                chunk = reader.reply()
                self.assertEqual(chunk.error, 0)
                left -= chunk.done

    def test_clients_that_want_one_piece_and_never_read(self):
        """X4 X5 X8 P6 P8: 60 of them, with DF and with simple replies: 7 GiB, could they have it"""
        with self.open() as wire:
            for at in range(4):
                wire.pwrite(at * 8 * MIB, os.urandom(8 * MIB))
        for at in range(60):
            structured = at % 2 == 0
            wire = self.connect().transmission(self.name, structured=structured)
            self.addCleanup(wire.close)
            for cookie in range(4):
                flags = DF if structured else 0
                wire.send(request(READ, 0, 32 * MIB, cookie=cookie, flags=flags))
        time.sleep(2)
        self.assert_memory_is_bounded()
        for structured in (False, True):
            with self.connect().transmission(self.name, structured=structured) as reader:
                for flags in (0, DF if structured else 0):
                    reader.send(request(READ, 3, 20 * MIB, flags=flags))
                    left = 20 * MIB
                    while left:
                        reply = reader.reply(20 * MIB)
                        self.assertEqual(reply.error, 0)
                        left -= len(reply.payload) - (8 if structured else 0)

    def flood(self, count, one, contexts=()):
        """`count` clients that ask for `one(number)` again and again, and never read."""
        talk = b"".join(one(number) for number in range(30_000))
        for _ in range(count):
            wire = self.connect().transmission(self.name, contexts=contexts)
            self.addCleanup(wire.close)
            wire.socket.settimeout(0.2)
            try:
                wire.send(talk)
            except TimeoutError:  # the server stops reading, as it should
                pass

    def test_floods_of_requests_without_payload(self):
        """X4 X5 X8: block status that nobody reads, TRIMs of parts of clusters, READs of one byte"""
        with self.open() as wire:
            for at in range(0, 32 * MIB, 2 * 65536):
                wire.pwrite(at, os.urandom(65536))
        contexts = ("base:allocation", "qemu:allocation-depth")
        self.flood(12, lambda number: request(BLOCK_STATUS, 0, DISK, cookie=number), contexts)
        self.flood(8, lambda number: request(TRIM, number * 65536 * 2 % (DISK - MIB) + 100, 65536, cookie=number))
        self.flood(8, lambda number: request(READ, number % DISK, 1, cookie=number))
        time.sleep(1)
        self.assert_memory_is_bounded()
        with self.connect().transmission(self.name, contexts=contexts) as reader:  # in turn, not after them
            start = time.monotonic()
            self.assertEqual(len(reader.status(0, DISK)), 2)
            self.assertEqual(len(reader.pread(5, 1000)), 1000)
            self.assertEqual(reader.error(TRIM, 48 * MIB + 1, 65536), 0)
            self.assertLess(time.monotonic() - start, UNDISTURBED_SECONDS)

    def test_writers_that_stop_halfway(self):
        """X4 X5 X8: 32 of them, each inside a payload of 64 MiB"""
        for _ in range(32):
            wire = self.open()
            self.addCleanup(wire.close)
            wire.send(request(WRITE, 0, DISK) + bytes(3 * MIB + 17))
        time.sleep(1)

    def test_tls_handshakes_that_lead_nowhere(self):
        """T7: with credentials that are none, and TLS that ends in the middle"""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for _ in range(rounds(100, 2000)):
            with self.connect().hello() as wire:
                try:
                    wire.start_tls(context)
                    self.fail("there is no certificate to agree on")
                except (ssl.SSLError, ConnectionError):
                    pass


if __name__ == "__main__":
    run.main()
