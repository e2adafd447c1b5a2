#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes that a killed `varve nbd` had under way never land over what its successor flushed.

The kernel carries them out after the process is gone, and on slow storage long after.
"""

import os
import subprocess
import sys
import time
import unittest
from pathlib import Path

import nbd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import image_server, run, scratch, slow_storage  # noqa: E402

CLUSTER = 64 << 10
CLUSTERS = 8
BYTES = CLUSTERS * CLUSTER
SLOW = 128 << 10  # bytes per second: the writes below take four seconds


def bytes_sent_to_disks(pid):
    """What the kernel has charged the process with, as soon as it goes to a disk's queue."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))


class KilledWithWritesUnderWay(unittest.TestCase):
    def setUp(self):
        self.dir = self.enterContext(scratch.directory())
        reason = slow_storage.why_not(self.dir)
        if reason:
            self.skipTest(reason)
        self.image = self.dir / "disk.qcow2"
        done = image_server.create(self.image, 64 << 20)
        self.assertEqual(done.returncode, 0, done.stderr)
        # Space ahead: an allocation would wait for the direct writes of the dead process by chance.
        os.truncate(self.image, 2 << 30)

    def serve(self):
        server = image_server.ImageServer(self.image, socket_path=self.dir / "nbd.sock")
        self.addCleanup(server.close)
        return server

    def test_the_successor_waits_for_them(self):
        first = self.serve().wait()
        client = first.connect()
        client.pwrite(b"\x01" * BYTES, 0)
        client.flush()  # the clusters are mapped: what follows is written in place
        with slow_storage.slowed_down(first.process.pid, self.dir, SLOW):
            before = bytes_sent_to_disks(first.process.pid)
            for at in range(0, BYTES, CLUSTER):
                client.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b"\xaa" * CLUSTER)), at)

            def all_under_way():
                client.poll(20)
                return bytes_sent_to_disks(first.process.pid) >= before + BYTES

            scratch.wait_until(all_under_way, 10, "the writes are under way")
            first.process.kill()
            first.process.wait()
            killed = time.monotonic()
            successor = self.serve().wait()
            waited = time.monotonic() - killed
            client = successor.connect()
            client.pwrite(b"\x55" * BYTES, 0)
            client.flush()
        with open(self.image, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, 1)  # ext4 and XFS wait for direct writes here
        client.shutdown()
        successor.close()
        raw = self.dir / "disk.raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", self.image, raw], check=True)
        content = raw.read_bytes()[:BYTES]
        overwritten = [at // CLUSTER for at in range(0, BYTES, CLUSTER) if content[at] != 0x55]
        self.assertEqual(overwritten, [], "clusters that were flushed hold the dead process's bytes")
        self.assertGreater(waited, 1, "the dead process's writes were still under way")


if __name__ == "__main__":
    run.main()
