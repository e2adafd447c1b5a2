# SPDX-License-Identifier: Apache-2.0
"""Random writers over one versioned disk, which go on until their server is gone."""

import random
import threading
import time

import nbd

from harness.versioned_disk import SECTOR

STRIPE_SECTORS = 96  # 48 KiB: writers meet inside clusters of 64 KiB


class Load:
    """`count` threads, each with its own connection and its own stripes of the disk."""

    def __init__(self, disk, connect, seed, count=2, flushes=0.15):
        self.disk = disk
        self.flushes = flushes
        self.failures = []
        self.stopping = False
        self.threads = [
            threading.Thread(target=self._run, args=(connect(), random.Random(f"{seed}-{number}"), number, count))
            for number in range(count)
        ]
        for thread in self.threads:
            thread.start()

    def stop(self):
        """Lets each writer finish its request."""
        self.stopping = True
        self.join()

    def join(self):
        for thread in self.threads:
            thread.join()
        if self.failures:
            raise self.failures[0]

    def _run(self, handle, dice, number, count):
        try:
            while not self.stopping:
                self._step(handle, dice, number, count)
        except nbd.Error:
            pass  # the server was killed
        except Exception as failure:  # noqa: BLE001  # reported by join()
            self.failures.append(failure)

    def _range(self, dice, number, count):
        stripes = self.disk.sectors // STRIPE_SECTORS
        stripe = dice.randrange(number, stripes, count)
        first = dice.randrange(STRIPE_SECTORS)
        return stripe * STRIPE_SECTORS + first, dice.randint(1, STRIPE_SECTORS - first)

    def _step(self, handle, dice, number, count):
        kind = dice.random()
        if kind < self.flushes:
            covered = self.disk.flush_begins()
            handle.flush()
            self.disk.flush_answered(covered)
            return
        if dice.random() < 0.05:
            time.sleep(dice.random() * 0.05)
        first, sectors = self._range(dice, number, count)
        fua = dice.random() < 0.05
        flags = nbd.CMD_FLAG_FUA if fua else 0
        zero = dice.random() < 0.15
        write = self.disk.begin_write(first, sectors, zero)
        if zero:
            handle.zero(sectors * SECTOR, first * SECTOR, flags)
        else:
            handle.pwrite(write.bytes(), first * SECTOR, flags)
        self.disk.acknowledge(write, durable=fua)


def read_all(handle, size):
    piece = 4 << 20
    return b"".join(handle.pread(min(piece, size - at), at) for at in range(0, size, piece))
