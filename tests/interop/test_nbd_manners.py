#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Limits, ends of connections, TCP and large disks, by a raw socket against `varve nbd`.

The ids in the docstrings are the rows of docs/nbd-support.md.  After each case the process must
still serve a fresh connection.
"""

import os
import random
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import image_server, qemu, run, scratch  # noqa: E402
from harness.conformance import *  # noqa: E402, F403  the suites' case, and the wire's words


class Manners(Conformance):
    """docs/nbd-support.md, 10, 11 and 13."""

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
    """docs/nbd-support.md, 9, as far as `varve nbd` goes."""

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
        described = 0
        while described < self.size:  # a slow machine describes it in pieces, so that no request lasts
            status = wire.status(described, self.size - described)
            self.assertEqual({flags for _, flags in status[1]}, {3})
            self.assertLessEqual(sum(length for length, _ in status[2]), self.size - described)
            described += sum(length for length, _ in status[1])
        self.assertEqual(described, self.size)
        self.assertLess(time.monotonic() - start, 3)


if __name__ == "__main__":
    run.main()
