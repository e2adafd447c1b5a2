#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`varve adopt`: images that others have made become points."""

import json
import random
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import qemu, run, sources  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.daemon import binary  # noqa: E402

VM = "web01"
SIZE = 8 * MIB


class Adopts(HubCase):
    def setUp(self):
        super().setUp()
        self.flat = self.dir / "flat.raw"
        sources.make_disk(self.flat, SIZE, 4)
        self.dice = random.Random(2)

    def adopt(self, *words, status=0, vm=VM):
        command = [binary(), "adopt", *map(str, words), "--vm", vm, "--server", self.hub.url, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, status, f"{command}: {done.stdout}{done.stderr}")
        return [json.loads(line) for line in done.stdout.splitlines()] or done.stderr

    def full(self, name="base.qcow2", *options):
        image = self.dir / name
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, self.flat, image], check=True)
        return image

    def overlay(self, name, below, count=12, size=None, options=""):
        """An image on `below` with writes, zeroes and trims, that the flat file gets too."""
        image = self.dir / name
        kind = ["-o", options] if options else []
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *kind, "-b", below, "-F", "qcow2", image,
                        *([str(size)] if size else [])], check=True)  # fmt: skip
        if size:
            with open(self.flat, "r+b") as file:
                file.truncate(size)
        commands = []
        with open(self.flat, "r+b") as file:
            for _ in range(count):
                length = self.dice.choice((512, 4096, 65536, 200_192))
                offset = self.dice.randrange((self.flat.stat().st_size - length) // 512) * 512
                pattern = self.dice.choice((0, self.dice.randrange(1, 256)))
                commands += ["-c", f"write -P {pattern} {offset} {length}" if pattern else f"write -z -u {offset} {length}"]
                file.seek(offset)
                file.write(bytes([pattern]) * length)
        subprocess.run(["qemu-io", "-f", "qcow2", *commands, image], check=True, capture_output=True)
        return image

    def kept(self, name):
        copy = self.dir / name
        sources.sparse_copy(self.flat, copy)
        return copy

    def assert_points_equal(self, copies, disk=0):
        points = self.chain(VM, disk)["backups"]
        self.assertEqual(len(points), len(copies))
        for point, copy in zip(points, copies):
            qemu.verify(point["file_path"], copy)

    def test_a_chain_of_qemu_img_becomes_a_chain_of_points_and_stays_as_it_is(self):
        images, copies = [self.full()], [self.kept("0.raw")]
        for number in range(1, 4):
            images.append(self.overlay(f"top{number}.qcow2", images[-1], size=SIZE + MIB if number == 2 else None))
            copies.append(self.kept(f"{number}.raw"))
        before = [image.read_bytes() for image in images]
        events = self.adopt(*images, "--checkpoint", "a/1", "--checkpoint", "a/2", "--checkpoint", "a/3", "--checkpoint", "a/4")
        self.assertEqual([event["backup_type"] for event in events if event["event"] == "published"],
                         ["full", "incremental", "incremental", "incremental"])  # fmt: skip
        self.assert_points_equal(copies)
        self.assertEqual([point["change_id"] for point in self.chain(VM)["backups"]], ["a/1", "a/2", "a/3", "a/4"])
        self.assertEqual([image.read_bytes() for image in images], before)

    def test_compressed_clusters_other_cluster_sizes_and_version_2_are_read(self):
        for number, options in enumerate((("-c",), ("-o", "cluster_size=4k"), ("-o", "cluster_size=2M"), ("-o", "compat=0.10"))):
            with self.subTest(options):
                image = self.full(f"kind{number}.qcow2", *options)
                self.adopt(image, vm=f"kind{number}")
                [point] = self.chain(f"kind{number}")["backups"]
                qemu.verify(point["file_path"], self.flat)

    def test_an_image_that_was_pushed_stands_on_the_newest_point_that_its_owner_names(self):
        base = self.full()
        self.adopt(base)
        pushed = self.overlay("pushed.qcow2", base)
        pushed_alone = self.dir / "alone.qcow2"
        pushed_alone.write_bytes(pushed.read_bytes())
        subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "", pushed_alone], check=True)
        [point] = self.chain(VM)["backups"]
        self.adopt(pushed_alone, "--parent", point["backup_id"])
        qemu.verify(self.chain(VM)["backups"][-1]["file_path"], self.flat)
        next_one = self.overlay("next.qcow2", pushed)
        [error] = [e for e in self.adopt(next_one, "--parent", point["backup_id"], status=11) if e["event"] == "error"]
        self.assertIn("base is not the parent", error["message"])
        self.adopt(next_one, "--parent", "latest")
        qemu.verify(self.chain(VM)["backups"][-1]["file_path"], self.flat)

    def test_an_image_that_is_only_the_difference_of_a_new_disk_is_not_taken_for_the_disk(self):
        base = self.full()
        self.adopt(f"0={base}")
        top = self.overlay("top.qcow2", base)
        other = self.overlay("other.qcow2", self.full("b.qcow2"))
        events = self.adopt(f"0={top}", f"1={other}", "--parent", "latest", status=11)
        self.assertIn(f"disk 1 has no point that qcow2:{other} could stand on", events[-1]["message"])
        self.assertNotIn("--resume", events[-1]["message"])
        self.assertEqual(len(self.chain(VM)["backups"]), 1)
        self.assert_nothing_left()

    def test_several_disks_are_adopted_together(self):
        first = self.full("a.qcow2")
        copies = [self.kept("a.raw")]
        second = self.overlay("a1.qcow2", first)
        copies.append(self.kept("a1.raw"))
        sources.make_disk(self.flat, 2 * MIB, 9)
        other, others = self.full("b.qcow2"), [self.kept("b.raw")]
        other_second = self.overlay("b1.qcow2", other)
        others.append(self.kept("b1.raw"))
        self.adopt(f"0={first}", f"1={other}", f"0={second}", f"1={other_second}")
        self.assert_points_equal(copies, 0)
        self.assert_points_equal(others, 1)
        [error] = self.adopt(f"0={first}", f"0={second}", f"1={other}", status=2)
        self.assertIn("disk 0 has 2 images and disk 1 has 1", error["error"])

    def test_what_cannot_be_is_refused_by_name_and_nothing_is_made(self):
        base = self.full()
        top, stranger = self.overlay("top.qcow2", base), self.full("stranger.qcow2")
        damaged = self.dir / "damaged.qcow2"
        damaged.write_bytes(base.read_bytes())
        with open(damaged, "r+b") as file:
            file.seek(3 * 65536)
            file.write(b"\xff" * 4096)
        raw = self.dir / "raw.qcow2"
        raw.write_bytes(b"no image" * 1000)
        subclusters = self.full("sub.qcow2", "-o", "extended_l2=on,cluster_size=128k")
        for images, said in (((top,), f"has the backing file {base}"), ((stranger, top), f"and not {stranger}"),
                             ((base, damaged), "is damaged"), ((subclusters,), "extended L2 entries are not supported"), ((raw,), "raw.qcow2"), ((self.dir / "none",), "none")):
            [error] = [event for event in self.adopt(*images, status=1) if event["event"] == "error"]
            self.assertIn(said, error["message"])
        self.assertEqual(self.hub.get("/backups").body["total"], 0)

    def test_an_image_that_a_machine_writes_to_is_refused(self):
        base = self.full()
        writer = subprocess.Popen(["qemu-io", "-f", "qcow2", base], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(writer.wait)
        self.addCleanup(writer.stdin.close)
        writer.stdin.write(b"read 0 512\n")
        writer.stdin.flush()
        writer.stdout.readline()
        [error] = [event for event in self.adopt(base, status=1) if event["event"] == "error"]
        self.assertIn("in use by another process", error["message"])

    def test_a_pull_reads_the_disk_in_an_image_that_is_named_as_one(self):
        base = self.full()
        top = self.overlay("top.qcow2", base)
        command = [binary(), "pull", VM, "--disk", f"0=qcow2:{top}", "--server", self.hub.url]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        qemu.verify(self.chain(VM)["backups"][-1]["file_path"], self.flat)


if __name__ == "__main__":
    run.main()
