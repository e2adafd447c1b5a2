#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Reads of points are compared with what was sent: damaged clusters answer EIO, and are never given out."""

import errno
import random
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import nbd  # noqa: E402
from harness import run, scratch  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.daemon import binary  # noqa: E402
from harness.qcow2_bytes import Qcow2Bytes  # noqa: E402

CLUSTER = 65536
BAD = 20  # the cluster that is damaged, in the full


class PointCase(HubCase):
    def setUp(self):
        super().setUp()
        # No multiple of a cluster: the last one is cut.
        self.size = 8 * MIB + 512 * 3
        self.content = bytearray(random.Random(3).randbytes(self.size))
        self.register("vm", [self.size])
        self.full = self.quick_backup("vm", ["a/1"], writes=[(0, bytes(self.content))])["backup_id"]
        change = b"n" * (2 * CLUSTER + 700)
        self.content[5 * CLUSTER + 300 : 5 * CLUSTER + 300 + len(change)] = change
        self.increment = self.quick_backup("vm", ["a/2"], "incremental", [(5 * CLUSTER + 300, change)])["backup_id"]

    def damage(self, number=0, cluster=BAD):
        """Flips one bit in the middle of a cluster."""
        image = Qcow2Bytes(self.images("vm")[number])
        at = image.host(cluster) + CLUSTER // 2
        image.write(at, bytes([image.read(at, 1)[0] ^ 1]))

    def uri(self, backup_id):
        return self.hub.export_uri(f"vm/disk-0@{backup_id}")

    def opened(self, backup_id):
        handle = nbd.NBD()
        handle.connect_uri(self.uri(backup_id))
        self.addCleanup(handle.shutdown)
        return handle

    def refused(self, handle, length, offset):
        with self.assertRaises(nbd.Error) as caught:
            handle.pread(length, offset)
        self.assertEqual(caught.exception.errnum, errno.EIO, caught.exception)


class VerifiedReads(PointCase):
    def test_points_that_nobody_has_touched_read_in_every_alignment(self):
        handle = self.opened(self.increment)
        dice = random.Random(5)
        self.assertEqual(handle.pread(self.size, 0), self.content)
        for _ in range(300):
            offset = dice.randrange(self.size)
            length = min(dice.choice((1, 512, 4096, CLUSTER, 3 * CLUSTER + 5)), self.size - offset)
            self.assertEqual(handle.pread(length, offset), self.content[offset : offset + length], (offset, length))

    def test_a_damaged_cluster_of_a_parent_is_eio_for_the_child_and_the_rest_reads_well(self):
        self.damage()
        for backup_id in (self.increment, self.full):
            handle = self.opened(backup_id)
            for length, offset in ((CLUSTER, BAD * CLUSTER), (1, BAD * CLUSTER), (512, BAD * CLUSTER + 40960), (MIB, MIB),
                                   (2, BAD * CLUSTER - 1), (2, (BAD + 1) * CLUSTER - 1)):  # fmt: skip
                self.refused(handle, length, offset)
        for offset, length in ((0, BAD * CLUSTER), ((BAD + 1) * CLUSTER, self.size - (BAD + 1) * CLUSTER)):
            self.assertEqual(self.opened(self.increment).pread(length, offset), self.content[offset : offset + length])
        text = f"read vm/disk-0@{self.increment} @{BAD * CLUSTER}+{CLUSTER}: image \"{self.images('vm')[0].name}\""
        self.assertEqual(self.hub.log.count(text), 1, self.hub.log)

    def test_no_tool_gets_a_copy_of_what_is_damaged(self):
        copies = {
            "nbdcopy": lambda to: ["nbdcopy", self.uri(self.increment), to],
            "qemu-img": lambda to: ["qemu-img", "convert", "-f", "raw", "-O", "raw", self.uri(self.increment), to],
            "varve": lambda to: [binary(), "restore", f"vm@{self.increment}", "--server", self.hub.url, "--force", "--to", to],
        }
        for status in ("sound", "damaged"):
            for name, command in copies.items():
                to = self.dir / f"{name}-{status}.raw"
                done = subprocess.run(command(to), capture_output=True, text=True, timeout=60, check=False)
                self.assertEqual(done.returncode == 0, status == "sound", (name, done.stdout, done.stderr))
                if status == "sound":
                    self.assertEqual(to.read_bytes()[: self.size], self.content, name)
            self.damage()

    def test_the_clusters_of_an_increment_and_the_last_one_are_compared_too(self):
        last = self.size // CLUSTER
        self.damage(1, 6)
        image = Qcow2Bytes(self.images("vm")[0])
        image.write(image.host(last), bytes([image.read(image.host(last), 1)[0] ^ 1]))
        handle = self.opened(self.increment)
        self.refused(handle, 512, 6 * CLUSTER)
        self.refused(handle, 512, self.size - 512)
        self.assertEqual(self.opened(self.full).pread(512, 6 * CLUSTER + 300), self.full_content(6 * CLUSTER + 300, 512))

    def full_content(self, offset, length):
        return random.Random(3).randbytes(self.size)[offset : offset + length]

    def test_without_a_manifest_or_with_a_damaged_one_points_are_read_as_they_are(self):
        sums = Path(f"{self.images('vm')[0]}.sums")
        whole = sums.read_bytes()
        for content in (None, b"x" * len(whole), whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]):
            sums.unlink()
            if content is not None:
                sums.write_bytes(content)
            self.hub.stop()
            self.hub.start()
            self.assertEqual(self.opened(self.increment).pread(self.size, 0), self.content)
            sums.write_bytes(whole)

    def test_a_disk_that_has_grown_since_reads_as_it_is(self):
        small = 2 * MIB + 512  # its last cluster goes on in the grown disk
        self.assertEqual(self.hub.register("vm", [small]).status, 200)
        self.quick_backup("vm", ["b/1"], writes=[(0, bytes(self.content[:small]))])
        self.assertEqual(self.hub.register("vm", [self.size]).status, 200)
        self.quick_backup("vm", ["b/2"], "incremental", [(0, b"s" * CLUSTER)])
        self.content[0:CLUSTER] = b"s" * CLUSTER
        self.content[small:] = bytes(self.size - small)
        point = self.hub.get("/points", vm_name="vm", point="latest").body["points"][0]
        self.assertEqual(point["position"], 1, point)
        handle = self.opened("latest")
        self.assertEqual(handle.pread(self.size, 0), self.content)
        self.assertEqual(handle.pread(1024, small - 512), self.content[small - 512 : small + 512])

    def test_what_is_promoted_from_a_damaged_point_is_no_image(self):
        made = self.hub.api("POST", "/restores", {"backup_id": self.increment, "mode": "writable"}).body
        self.damage()
        path = f"/restores/{made['restore_id']}"
        answer = self.hub.api("POST", f"{path}/promote", {"path": str(self.dir / "alone.qcow2")})
        self.assertEqual(answer.status, 202, answer)

        def ended():
            promotion = self.hub.get(path).body["promotion"]
            return promotion if promotion["state"] != "copying" else None

        ended = scratch.wait_until(ended, 20, "the promotion has ended")
        self.assertEqual(ended["state"], "failed", ended)
        self.assertIn("does not hold what was sent", ended["error"])
        self.assertFalse((self.dir / "alone.qcow2").exists())


class UnverifiedReads(PointCase):
    options = {"verify_restores": "false"}

    def test_what_is_damaged_is_given_out_when_nobody_compares(self):
        self.damage()
        found = self.opened(self.increment).pread(self.size, 0)
        self.assertEqual([at for at in range(self.size) if found[at] != self.content[at]], [BAD * CLUSTER + CLUSTER // 2])


if __name__ == "__main__":
    run.main()
