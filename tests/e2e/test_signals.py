#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What a backup looks like beside those before it: real ext4 file systems that are used, upgraded, encrypted, mixed up."""

import gzip
import random
import re
import struct
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402

SIZE = 128 * MIB
BLOCK = 65536
EXT_BLOCK = 1024
FLAGS = ("encrypted", "entropy_jump", "wrong_disk", "layout_changed")


def programs():
    """Real programs and libraries of this machine, as packages hold them."""
    paths = (path for folder in ("/usr/bin", "/usr/sbin", "/usr/lib/x86_64-linux-gnu") for path in Path(folder).iterdir())
    chosen = [path for path in paths if path.is_file() and not path.is_symlink() and 20_000 < path.stat().st_size < MIB]
    return random.Random(7).sample(sorted(chosen), min(len(chosen), 400))


def call(*words, **more):
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, **more).stdout


class Disk:
    """An ext4 file system on a raw disk, written as Linux lays it out: by e2fsprogs."""

    def __init__(self, path, files, seed):
        self.path, self.random = path, random.Random(seed)
        root = path.with_suffix(".root")
        root.mkdir()
        self.names = []
        for number, source in enumerate(files):
            (root / f"f{number}").write_bytes(source.read_bytes())
            self.names.append(f"f{number}")
        call("mke2fs", "-q", "-t", "ext4", "-b", EXT_BLOCK, "-d", root, path, f"{SIZE >> 10}k")

    def debugfs(self, *commands, write=True):
        script = self.path.with_suffix(".commands")
        script.write_text("\n".join(commands) + "\n")
        return call("debugfs", *(["-w"] if write else []), "-f", script, self.path).decode()

    def put(self, name, content):
        source = self.path.with_suffix(".source")
        source.write_bytes(content)
        self.debugfs(*([f"rm {name}"] if name in self.names else []), f"write {source} {name}")
        if name not in self.names:
            self.names.append(name)

    def use(self, kib):
        """An ordinary hour: lines of a log."""
        lines = "".join(f"{self.random.random():.6f} GET /page/{self.random.randrange(500)} 200\n" for _ in range(kib * 24))
        self.put(f"log{len(self.names)}", lines.encode()[: kib << 10])

    def upgrade(self, files):
        """Packages come compressed, are unpacked over the files of the old versions, and stay in the cache."""
        for name, source in zip(list(self.names), files):
            content = source.read_bytes()
            self.put(name, content)
            self.put(f"{name}.deb", gzip.compress(content))

    def blocks_of(self, names):
        said = self.debugfs(*(f"blocks {name}" for name in names), write=False)
        return [int(number) for line in said.splitlines() if re.fullmatch(r"[\d ]+", line) for number in line.split()]

    def encrypt(self, names):
        """Every byte of the files is replaced where it lies."""
        blocks = self.blocks_of(names)
        with self.path.open("r+b") as disk:
            for block in blocks:
                disk.seek(block * EXT_BLOCK)
                disk.write(self.random.randbytes(EXT_BLOCK))
        return len(blocks) * EXT_BLOCK

    def uuid(self):
        return call("blkid", "-p", "-o", "value", "-s", "UUID", self.path).decode().strip()


def changes(old, new):
    return [(at, new[at : at + BLOCK]) for at in range(0, len(new), BLOCK) if new[at : at + BLOCK] != old[at : at + BLOCK]]


class Signals(HubCase):
    @classmethod
    def setUpClass(cls):
        cls.files = programs()
        if sum(path.stat().st_size for path in cls.files) < 60 * MIB:
            raise unittest.SkipTest("too few programs on this machine")

    def setUp(self):
        super().setUp()
        self.sent, self.count = b"", 0

    def chosen(self, count, skip=0):
        """Of the programs, so many MiB."""
        chosen, total = [], 0
        for path in self.files[skip:]:
            if total >= count * MIB:
                break
            chosen.append(path)
            total += path.stat().st_size
        return chosen

    def backup(self, content, vm="vm"):
        """What has changed since the last one; returns the signals of the disk and the job's flags."""
        if not self.sent:
            self.register(vm, [len(content)])
        writes = changes(self.sent or bytes(len(content)), content)
        if not self.sent:
            writes = [(at, content[at : at + MIB]) for at in range(0, len(content), MIB)]
        self.count += 1
        job = self.quick_backup(vm, [f"u/{self.count}"], "incremental" if self.sent else "full", writes)
        self.sent = content
        disk = self.disks(job["backup_id"])[0]
        warnings = self.job(job["backup_id"]).get("warnings", [])
        flags = [(warning["code"], warning["message"]) for warning in warnings if warning["code"] in FLAGS]
        self.assertEqual([(flag["flag"], flag["reason"]) for flag in disk["signals"]["flags"]], flags)
        newest = self.hub.get("/points", vm_name=vm).body["points"][0]
        self.assertEqual(newest["signals"], disk["signals"])
        self.assertEqual(len(disk["history"]), self.count - 1)
        shares = {name: share and round(share, 3) for name, share in disk["signals"].items() if name != "flags"}
        print(f"{self.id().rpartition('.')[2]} {self.count}: {len(writes) * BLOCK >> 20} MiB, {shares} {flags}")
        return disk["signals"], flags

    def usual_history(self, disk):
        for _ in range(3):
            _, flags = self.backup(disk.path.read_bytes())
            self.assertEqual(flags, [])
            disk.use(300)

    def test_an_upgrade_of_packages_is_not_flagged_and_encryption_is_within_one_increment(self):
        disk = Disk(self.dir / "disk.raw", self.chosen(60), 1)
        self.usual_history(disk)
        installed = len(self.chosen(60))
        disk.upgrade(self.files[installed : installed + 40])
        signals, flags = self.backup(disk.path.read_bytes())
        self.assertEqual(flags, [])
        self.assertGreater(signals["incompressible_share"], 0.02, "the packages are seen")
        self.assertLess(signals["incompressible_share"], 0.6)
        disk.encrypt(disk.names)
        signals, flags = self.backup(disk.path.read_bytes())
        self.assertEqual([code for code, _ in flags], ["encrypted"])
        self.assertRegex(flags[0][1], r"^disk 0: looks encrypted: \d\d % of the data in this backup cannot be compressed")
        self.assertRegex(flags[0][1], r"about [4-9]\d MiB; \d+ % is usual for this disk")
        self.assertGreater(signals["incompressible_share"], 0.8)
        self.assertIn('varve_flags_total{flag="encrypted"} 1', self.hub.root("/metrics").text)
        disk.use(300)
        self.assertEqual(self.backup(disk.path.read_bytes())[1], [], "what comes afterwards is not flagged again")

    def test_a_disk_that_is_being_encrypted_is_flagged_by_its_first_part(self):
        disk = Disk(self.dir / "disk.raw", self.chosen(60), 2)
        self.usual_history(disk)
        self.assertGreater(disk.encrypt(disk.names[:150]), 12 * MIB)
        disk.use(300)
        self.assertEqual([code for code, _ in self.backup(disk.path.read_bytes())[1]], ["encrypted"])

    def test_new_archives_in_free_space_and_a_disk_full_of_them_are_not_encryption(self):
        disk = Disk(self.dir / "disk.raw", self.chosen(40), 3)
        self.usual_history(disk)
        for number in range(5):
            disk.put(f"film{number}", disk.random.randbytes(5 * MIB))
        self.assertEqual(self.backup(disk.path.read_bytes())[1], [])
        for number in range(5):
            disk.put(f"film{number}", disk.random.randbytes(5 * MIB))  # over the old ones
        self.assertEqual(self.backup(disk.path.read_bytes())[1], [])

    def test_the_content_of_another_disk_is_flagged_with_both_names(self):
        mine, other = (Disk(self.dir / f"{name}.raw", self.chosen(20), 4) for name in ("mine", "other"))
        self.backup(mine.path.read_bytes())
        _, flags = self.backup(other.path.read_bytes())
        self.assertEqual([code for code, _ in flags], ["wrong_disk"])
        self.assertIn(f"the ext4 at byte 0 ({mine.uuid()}) is now ext4 ({other.uuid()})", flags[0][1])
        self.assertEqual(self.backup(other.path.read_bytes())[1], [], "compared with the parent only")

    def test_a_partition_that_is_made_anew_or_lost_is_named(self):
        def table(disk_id):
            sector = bytearray(512)
            struct.pack_into("<I", sector, 440, disk_id)
            for number, first in enumerate((2048, 2048 + (SIZE >> 9))):
                struct.pack_into("<B3sB3sII", sector, 446 + 16 * number, 0, b"", 0x83, b"", first, SIZE >> 9)
            sector[510:] = b"\x55\xaa"
            return bytes(sector).ljust(MIB, b"\0")

        one, two, three = (Disk(self.dir / f"{number}.raw", self.chosen(5), 5) for number in range(3))
        contents = [disk.path.read_bytes() for disk in (one, two, three)]
        self.backup(table(0xC0FFEE01) + contents[0] + contents[1])
        _, flags = self.backup(table(0xC0FFEE01) + contents[0] + contents[2])
        self.assertEqual([code for code, _ in flags], ["layout_changed"])
        place = MIB + SIZE
        self.assertIn(f"the ext4 at byte {place} ({two.uuid()}) is now ext4 ({three.uuid()})", flags[0][1])
        wiped = bytes(4096) + contents[2][4096:]
        _, flags = self.backup(table(0xC0FFEE01) + contents[0] + wiped)
        self.assertIn(f"the ext4 at byte {place} ({three.uuid()}) is gone", flags[0][1])
        _, flags = self.backup(table(0xC0FFEE02) + contents[0] + wiped)
        self.assertIn("the MBR at byte 0 (c0ffee01) is now MBR (c0ffee02)", flags[0][1])


if __name__ == "__main__":
    run.main()
