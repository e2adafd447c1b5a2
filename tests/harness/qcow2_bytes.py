# SPDX-License-Identifier: Apache-2.0
"""The bytes of a QCOW2 file, for tests that damage one: fields by their place in the format."""

import shutil
import struct
from pathlib import Path

OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
COPIED = 1 << 63
COMPRESSED = 1 << 62
ZERO = 1
# Header field -> (offset, struct format).
FIELDS = {
    "magic": (0, ">I"), "version": (4, ">I"), "backing_offset": (8, ">Q"), "backing_length": (16, ">I"),
    "cluster_bits": (20, ">I"), "size": (24, ">Q"), "crypt_method": (32, ">I"), "l1_size": (36, ">I"),
    "l1_offset": (40, ">Q"), "refcount_table_offset": (48, ">Q"), "refcount_table_clusters": (56, ">I"),
    "snapshots": (60, ">I"), "snapshots_offset": (64, ">Q"), "incompatible": (72, ">Q"),
    "compatible": (80, ">Q"), "autoclear": (88, ">Q"), "refcount_order": (96, ">I"),
    "header_length": (100, ">I"), "compression_type": (104, ">B"),
}  # fmt: skip


class Qcow2Bytes:
    """One file with 16-bit refcounts; guest clusters are those of the first L2 table."""

    def __init__(self, path):
        self.path = Path(path)
        self.cluster = 1 << self.get("cluster_bits")
        self.l1 = self.get("l1_offset")
        self.l2 = self.word(self.l1) & OFFSET_MASK
        self.refcount_table = self.get("refcount_table_offset")
        self.refcount_block = self.word(self.refcount_table)

    def copy_to(self, path):
        shutil.copyfile(self.path, path)
        return Qcow2Bytes(path)

    # --- bytes ---

    def read(self, at, count):
        with open(self.path, "rb") as file:
            file.seek(at)
            return file.read(count)

    def write(self, at, data):
        with open(self.path, "r+b") as file:
            file.seek(at)
            file.write(data)

    def word(self, at):
        return struct.unpack(">Q", self.read(at, 8))[0]

    def set_word(self, at, value):
        self.write(at, struct.pack(">Q", value))

    def bytes(self):
        return self.path.stat().st_size

    def truncate(self, size):
        with open(self.path, "r+b") as file:
            file.truncate(size)

    def end(self):
        """The first cluster border at or after the end of the file."""
        return -(-self.bytes() // self.cluster) * self.cluster

    # --- fields ---

    def get(self, field):
        at, form = FIELDS[field]
        return struct.unpack(form, self.read(at, struct.calcsize(form)))[0]

    def set(self, field, value):
        at, form = FIELDS[field]
        self.write(at, struct.pack(form, value))

    def entry(self, cluster):
        return self.word(self.l2 + 8 * cluster)

    def set_entry(self, cluster, value):
        self.set_word(self.l2 + 8 * cluster, value)

    def host(self, cluster):
        return self.entry(cluster) & OFFSET_MASK

    def set_refcount(self, host, value):
        self.write(self.refcount_block + host // self.cluster * 2, struct.pack(">H", value))

    def free_host_cluster(self):
        """Appends a cluster that nothing owns."""
        at = self.end()
        self.truncate(at + self.cluster)
        return at
