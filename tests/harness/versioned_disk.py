# SPDX-License-Identifier: Apache-2.0
"""What a disk may hold after its server was killed: a version model per sector of 512 bytes.

Every write gives its sectors a content that names the write and the sector. A sector then holds a
write that is as new as the last durable one or newer, whole: an older one is LOST, a mixture TORN.
Writers stay inside their own sectors, so that the order of writes to one sector is known.
"""

import struct
import threading
from dataclasses import dataclass

SECTOR = 512
WORDS = SECTOR // 16
ZERO_SECTOR = bytes(SECTOR)


@dataclass
class Write:
    serial: int
    first: int  # sector
    count: int
    zero: bool
    acknowledged: bool = False

    def bytes(self):
        if self.zero:
            return bytes(self.count * SECTOR)
        return b"".join(_sector(self.serial, number) for number in range(self.first, self.first + self.count))


def _sector(serial, number):
    return struct.pack(">QQ", serial, number) * WORDS


class VersionedDisk:
    """One disk over many lives of its server; any thread."""

    def __init__(self, size):
        self.sectors = size // SECTOR
        self.lock = threading.Lock()
        self.serial = 0
        self.lives = 0
        self.unflushed_lost = 0  # bytes acknowledged, never flushed, and not there after a kill
        self.begin_life(bytes(size))

    def begin_life(self, content):
        """`content` is what the disk reads as now, and durable."""
        self.base = content
        self.writes = {}
        self.durable = {}  # sector -> serial of the last write that must not be lost
        self.lives += 1

    def begin_write(self, first, count, zero=False):
        with self.lock:
            self.serial += 1
            write = Write(self.serial, first, count, zero)
            self.writes[write.serial] = write
            return write

    def acknowledge(self, write, durable=False):
        with self.lock:
            write.acknowledged = True
            if durable:
                self._make_durable([write])

    def flush_begins(self):
        """What a flush sent now has to cover, whichever connection wrote it."""
        with self.lock:
            return [write for write in self.writes.values() if write.acknowledged]

    def flush_answered(self, covered):
        with self.lock:
            self._make_durable(covered)

    def _make_durable(self, writes):
        for write in writes:
            for sector in range(write.first, write.first + write.count):
                if self.durable.get(sector, 0) < write.serial:
                    self.durable[sector] = write.serial

    def expected(self):
        """The content when every write was answered and nothing was lost."""
        content = bytearray(self.base)
        for write in self.writes.values():
            content[write.first * SECTOR : (write.first + write.count) * SECTOR] = write.bytes()
        return bytes(content)

    def verify(self, content):
        """Fails with LOST or TORN and the first bad sector; counts what was lost unflushed."""
        touched, zeroed, newest = set(), {}, {}
        for write in self.writes.values():
            sectors = range(write.first, write.first + write.count)
            touched.update(sectors)
            if write.zero:
                zeroed.update(dict.fromkeys(sectors, write.serial))
            if write.acknowledged:
                newest.update(dict.fromkeys(sectors, write.serial))
        self._untouched_is_unchanged(content, touched)
        for sector in sorted(touched):
            found = content[sector * SECTOR : (sector + 1) * SECTOR]
            version = self._version(sector, found, zeroed.get(sector))
            least = self.durable.get(sector, 0)
            assert version >= least, f"LOST: sector {sector} holds write {version}, write {least} was durable"
            if version < newest.get(sector, 0):
                self.unflushed_lost += SECTOR

    def _version(self, sector, found, zeroed_by):
        """The newest write that the sector may hold with this content; 0 is what was there before."""
        if found == ZERO_SECTOR and zeroed_by:
            return zeroed_by
        if found == self.base[sector * SECTOR : (sector + 1) * SECTOR]:
            return 0
        serial, number = struct.unpack(">QQ", found[:16])
        write = self.writes.get(serial)
        assert write and number == sector and found == _sector(serial, sector), (
            f"TORN: sector {sector} holds {found[:32].hex()} … {found[-16:].hex()}, which nobody wrote there"
        )
        return serial

    def _untouched_is_unchanged(self, content, touched):
        assert len(content) == len(self.base), f"{len(content)} bytes instead of {len(self.base)}"
        if content == self.base:
            return
        for sector in range(self.sectors):
            if sector in touched:
                continue
            at = slice(sector * SECTOR, (sector + 1) * SECTOR)
            assert content[at] == self.base[at], f"sector {sector} changed, and nobody wrote it"
