# SPDX-License-Identifier: Apache-2.0
"""Sparse raw disks with awkward edges, and what VMware's change tracking would say about them."""

import os
import random
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512
CLUSTER = 65536
CBT_BLOCK = 65536  # VMware reports changed areas in steps of 64 KiB
COMPARE_BYTES = 64 << 10  # larger pieces cost more in page faults than in reading


def worker_range(capacity):
    """Length of the first two workers' ranges in a full copy."""
    return capacity // 3 // SECTOR * SECTOR


def sparse_copy(source, target):
    """Copies without filling holes; no reflink, so that the copies share nothing."""
    subprocess.run(["cp", "--sparse=always", "--reflink=never", source, target], check=True)


@dataclass
class Source:
    """One disk of a VM: its current content, its change id and a copy of every earlier state."""

    path: Path
    size: int
    key: int
    uuid: str
    number: int = 1
    snapshots: dict = field(default_factory=dict)  # change id -> saved raw file

    @property
    def change_id(self):
        return f"{self.uuid}/{self.number}"

    def advance(self, seed, fraction=0.01):
        """Saves the present state under its change id, then changes about `fraction` of the data."""
        saved = self.path.with_name(f"{self.path.stem}-{self.number}.raw")
        sparse_copy(self.path, saved)
        self.snapshots[self.change_id] = saved
        mutate(self.path, seed, fraction)
        self.number += 1

    def tick(self):
        """A new change id without any change."""
        self.snapshots[self.change_id] = self.path
        self.number += 1

    def content_at(self, change_id):
        """The raw file that a point with this change id must equal."""
        return self.path if change_id == self.change_id else self.snapshots[change_id]


def make_sources(directory, sizes, keys=None, seed=1, data_fraction=0.15):
    """One source per size, with VMware keys 2000, 2001, … unless given."""
    keys = keys or [2000 + index for index in range(len(sizes))]
    sources = []
    for size, key in zip(sizes, keys):
        path = Path(directory) / f"disk-{key}.raw"
        make_disk(path, size, seed * 1000 + key, data_fraction)
        sources.append(Source(path, size, key, vmware_uuid(seed * 1000 + key)))
    return sources


def vmware_uuid(seed):
    """A UUID in VMware's spelling: `52 66 8c 2d a7 c5 c5 68-c5 d2 8d 04 79 f5 fd 7d`."""
    pairs = [f"{byte:02x}" for byte in random.Random(seed).randbytes(16)]
    return " ".join(pairs[:8]) + "-" + " ".join(pairs[8:])


def make_disk(path, size, seed, data_fraction=0.15):
    """A sparse file with islands of random data, among them every edge that has hurt before."""
    dice = random.Random(seed)
    with open(path, "wb") as disk:
        disk.truncate(size)
        for offset, length in _awkward_islands(size):
            _write_random(disk, dice, offset, length)
        wanted = int(size * data_fraction)
        while wanted > 0:
            length = min(dice.randrange(1, 2049) * SECTOR, size // 16)
            _write_random(disk, dice, _inhabited_place(dice, size, length), length)
            wanted -= length


def _inhabited_place(dice, size, length):
    """In the first third of a worker's range: the rest leaves whole chunks for WRITE_ZEROES."""
    border = worker_range(size)
    return dice.randrange(3) * border + _sector_below(dice, border // 3 - length)


def _awkward_islands(size):
    """Both ends of the disk, the workers' borders, and sectors around cluster borders."""
    border = worker_range(size)
    yield 0, SECTOR
    yield CLUSTER - SECTOR, 2 * SECTOR
    yield 5 * CLUSTER + 7 * SECTOR, CLUSTER
    for middle in (border, 2 * border):
        yield middle - 3 * SECTOR, 5 * SECTOR
    yield size - 9 * SECTOR, 9 * SECTOR


def _write_random(disk, dice, offset, length):
    disk.seek(offset)
    disk.write(dice.randbytes(length))


def _sector_below(dice, limit):
    return dice.randrange(0, limit // SECTOR + 1) * SECTOR


def mutate(path, seed, fraction=0.01):
    """Rewrites about `fraction` of the data in a few places; a quarter of it becomes zeros."""
    dice = random.Random(seed)
    extents = list(data_extents(path))
    budget = max(4 * CLUSTER, int(sum(length for _, length in extents) * fraction))
    with open(path, "r+b") as disk:
        step = 0
        while budget > 0:
            start, available = dice.choice(extents)
            length = min(available, dice.randrange(1, 513) * SECTOR, budget)
            length = max(SECTOR, length // SECTOR * SECTOR)
            offset = start + _sector_below(dice, available - length)
            disk.seek(offset)
            disk.write(bytes(length) if step % 4 == 3 else dice.randbytes(length))
            budget -= max(length, CLUSTER)
            step += 1


def data_extents(path):
    """(offset, length) of the areas that are no holes."""
    with open(path, "rb") as disk:
        end = os.fstat(disk.fileno()).st_size
        at = 0
        while at < end:
            try:
                start = os.lseek(disk.fileno(), at, os.SEEK_DATA)
            except OSError:
                return  # ENXIO: only a hole is left
            at = os.lseek(disk.fileno(), start, os.SEEK_HOLE)
            yield start, at - start


def changed_areas(old, new):
    """What QueryChangedDiskAreas would answer: differing 64 KiB blocks, neighbours joined."""
    size = os.stat(new).st_size
    areas = []
    with open(old, "rb") as before, open(new, "rb") as after:
        for start, end in _windows(old, new, size):
            _collect_changes(before, after, start, end, areas)
    return areas


def _windows(old, new, size):
    """Runs of blocks, short enough for the processor's cache, where at least one file has data."""
    wanted = set()
    for path in (old, new):
        for start, length in data_extents(path):
            wanted.update(range(start // CBT_BLOCK, (start + length - 1) // CBT_BLOCK + 1))
    run_start = run_end = None
    for index in sorted(wanted):
        start = index * CBT_BLOCK
        if run_end == start and start - run_start < COMPARE_BYTES:
            run_end += CBT_BLOCK
            continue
        if run_start is not None:
            yield run_start, min(run_end, size)
        run_start, run_end = start, start + CBT_BLOCK
    if run_start is not None and run_start < size:
        yield run_start, min(run_end, size)


def _collect_changes(before, after, start, end, areas):
    old = os.pread(before.fileno(), end - start, start).ljust(end - start, b"\0")
    new = os.pread(after.fileno(), end - start, start)
    if old == new:
        return
    for at in range(0, end - start, CBT_BLOCK):
        if old[at : at + CBT_BLOCK] != new[at : at + CBT_BLOCK]:
            length = min(CBT_BLOCK, end - start - at)
            if areas and areas[-1][0] + areas[-1][1] == start + at:
                areas[-1][1] += length
            else:
                areas.append([start + at, length])
