#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`varve check` against `qemu-img check`, on sound and damaged images of either maker."""

import json
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import damages  # noqa: E402
from harness import case, image_server, qemu, run, scratch  # noqa: E402
from harness.daemon import binary  # noqa: E402
from harness.qcow2_bytes import Qcow2Bytes  # noqa: E402

MIB = 1 << 20
CLUSTER = 65536
SIZE = 100 * MIB
OF_VARVE = {0: "clean", 1: "cannot open", 3: "leaks", 4: "errors"}
OF_QEMU = {0: "clean", 1: "cannot open", 2: "errors", 3: "leaks"}


def varve_check(target, *options):
    return subprocess.run(
        [binary(), "check", str(target), *map(str, options)], capture_output=True, text=True, timeout=60, check=False
    )


def judgement(image):
    done = varve_check(image)
    return OF_VARVE.get(done.returncode, f"status {done.returncode}"), done.stdout + done.stderr


def qemus_judgement(image):
    done = subprocess.run(
        ["qemu-img", "check", "-f", "qcow2", str(image)], capture_output=True, text=True, timeout=60, check=False
    )
    return OF_QEMU.get(done.returncode, f"status {done.returncode}"), done.stdout + done.stderr


def report(target, *options):
    return json.loads(varve_check(target, "--json", *options).stdout)


class CheckCase(unittest.TestCase):
    def setUp(self):
        self.dir = self.enterContext(scratch.directory())

    def made_by_varve(self, name, parent=None):
        image = self.dir / name
        done = image_server.create(image, SIZE, parent)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.fill(image)
        return image

    def made_by_qemu(self, name, parent=None):
        image = self.dir / name
        qemu.create(image, SIZE, parent)
        self.fill(image)
        return image

    def fill(self, image):
        """Guest clusters 0 to 3 and 160 to 161 hold data, 320 and 321 are zero."""
        server = image_server.ImageServer(image, socket_path=self.dir / f"{image.name}.sock").wait()
        handle = server.connect()
        handle.pwrite(b"\x01" * 4 * CLUSTER, 0)
        handle.pwrite(b"\x02" * 2 * CLUSTER, 160 * CLUSTER)
        handle.zero(2 * CLUSTER, 320 * CLUSTER)
        handle.shutdown()
        self.assertEqual(server.stop(), 0, server.log)


class Corpus(CheckCase):
    """Every damage of damages.py is judged alike by both programs, and as it deserves."""

    def judge_all(self, good):
        good = Qcow2Bytes(good)
        for name, deserved, function in damages.DAMAGES:
            damaged = good.copy_to(self.dir / "damaged.qcow2")
            function(damaged)
            with self.subTest(damage=name):
                ours, our_words = judgement(damaged.path)
                theirs, their_words = qemus_judgement(damaged.path)
                self.assertEqual((ours, theirs), (deserved, deserved), f"{our_words}\n{their_words}")

    def test_an_image_of_varve(self):
        self.judge_all(self.made_by_varve("good.qcow2"))

    def test_an_image_of_qemu(self):
        self.judge_all(self.made_by_qemu("good.qcow2"))

    def test_there_are_at_least_25_kinds_and_each_judgement_is_among_them(self):
        self.assertGreaterEqual(len(damages.DAMAGES), 25)
        self.assertEqual({deserved for _, deserved, _ in damages.DAMAGES}, set(OF_VARVE.values()))

    def test_an_overlay_whose_parent_is_damaged(self):
        """qemu-img looks at the top image only; varve at its parents too."""
        for make in (self.made_by_varve, self.made_by_qemu):
            parent = make("parent.qcow2")
            top = self.dir / "top.qcow2"
            if make == self.made_by_varve:
                self.assertEqual(image_server.create(top, SIZE, parent).returncode, 0)
            else:
                qemu.create(top, SIZE, parent.name)
            self.assertEqual(judgement(top)[0], "clean")
            damages.two_guest_clusters_share_one_place(Qcow2Bytes(parent))
            self.assertEqual(qemus_judgement(top)[0], "clean")
            self.assertEqual(judgement(top)[0], "errors")
            self.assertEqual([image["result"] for image in report(top)["images"]], ["clean", "errors"])
            parent.unlink()
            self.assertEqual((judgement(top)[0], qemus_judgement(top)[0]), ("cannot open", "cannot open"))
            top.unlink()

    def test_an_image_that_is_being_written_is_in_use_for_both(self):
        image = self.made_by_varve("busy.qcow2")
        server = image_server.ImageServer(image, socket_path=self.dir / "busy.sock").wait()
        self.addCleanup(server.close)
        ours, words = judgement(image)
        self.assertEqual((ours, qemus_judgement(image)[0]), ("cannot open", "cannot open"))
        self.assertIn("in use by another process", words)

    def test_an_image_without_a_refcount_table_is_refused_where_qemu_would_rebuild_it(self):
        for make in (self.made_by_varve, self.made_by_qemu):
            image = make("a.qcow2")
            Qcow2Bytes(image).set("refcount_table_clusters", 0)
            self.assertEqual((judgement(image)[0], qemus_judgement(image)[0]), ("cannot open", "errors"))
            image.unlink()

    def test_a_foreign_parent_is_seen_by_varve_only(self):
        """The record names the parent by its identity (RF20); qemu knows no records."""
        parent, other = self.made_by_varve("parent.qcow2"), self.made_by_varve("other.qcow2")
        top = self.dir / "top.qcow2"
        self.assertEqual(image_server.create(top, SIZE, parent).returncode, 0)
        other.replace(parent)
        self.assertEqual(qemus_judgement(top)[0], "clean")
        ours, words = judgement(top)
        self.assertEqual(ours, "cannot open")
        self.assertIn('parent "parent.qcow2" is not the image this one was made on', words)


class Report(CheckCase):
    def test_json_counts_what_qemu_counts(self):
        image = self.made_by_varve("a.qcow2")
        damages.two_guest_clusters_share_one_place(Qcow2Bytes(image))
        mine = report(image)
        theirs = json.loads(
            subprocess.run(
                ["qemu-img", "check", "--output=json", str(image)], capture_output=True, text=True, check=False
            ).stdout
        )
        self.assertEqual((mine["result"], mine["exit_status"]), ("errors", 4))
        top = mine["images"][0]
        self.assertEqual(top["corruptions"], theirs["corruptions"])
        self.assertEqual(top["leaks"], theirs["leaks"])
        self.assertEqual(top["shared_clusters"], 1)
        self.assertEqual((top["data_clusters"], top["zero_clusters"]), (6, 0))
        self.assertTrue(any("two owners" in text for text in top["findings"]), top)
        self.assertRegex(top["image_uuid"], r"^[0-9a-f]{8}-[0-9a-f]{4}-7")

    def test_text_names_the_damage(self):
        image = self.made_by_qemu("a.qcow2")
        damages.data_beyond_the_end(Qcow2Bytes(image))
        _, words = judgement(image)
        self.assertIn("past the end of file", words)
        self.assertIn(": errors", words)

    def test_wrong_usage_and_what_is_not_there(self):
        self.assertEqual(varve_check("").returncode, 1)
        self.assertEqual(subprocess.run([binary(), "check"], capture_output=True, check=False).returncode, 2)
        gone = varve_check(self.dir / "gone.qcow2")
        self.assertEqual(gone.returncode, 1)
        self.assertIn("No such file", gone.stdout)
        nowhere = varve_check("backup-x-1", "--catalogue", self.dir / "none.db")
        self.assertEqual(nowhere.returncode, 1)
        self.assertIn("open catalogue", nowhere.stderr)
        self.assertIn("Exit status:", subprocess.run([binary(), "check", "--help"], capture_output=True, text=True, check=False).stdout)  # fmt: skip


class Backups(case.HubCase):
    """Published points, by the names that the catalogue knows, beside the running daemon."""

    def check(self, target, *options):
        return report(target, "--catalogue", self.hub.catalogue, *options)

    def setUp(self):
        super().setUp()
        self.register("vm", [4 * MIB, 4 * MIB])
        self.full, self.increment = self.points(2, disks=2)

    def test_a_backup_is_checked_with_all_its_disks_and_parents(self):
        found = self.check(self.increment)
        self.assertEqual((found["result"], found["exit_status"]), ("clean", 0), found)
        self.assertEqual([image["role"] for image in found["images"]], ["image", "parent"] * 2)
        self.assertTrue(all(image["published"] and image["sealed"] for image in found["images"]))
        self.assertEqual(found["images"][0]["parent_uuid"], found["images"][1]["image_uuid"])

    def test_an_image_id_a_sidecar_and_a_path_mean_the_same_image(self):
        path = self.images("vm", 1)[1]
        for target in (path.stem, path, f"{path}.json"):
            found = self.check(target)
            self.assertEqual([image["path"] for image in found["images"]], [str(p) for p in self.images("vm", 1)[::-1]])

    def test_a_running_backup_has_nothing_to_check(self):
        job = self.start("vm")
        done = varve_check(job["backup_id"], "--catalogue", self.hub.catalogue)
        self.assertEqual(done.returncode, 1)
        self.assertIn("nothing of it is published", done.stderr)

    def test_what_was_done_to_a_point_after_its_publish_is_found(self):
        image, parent = self.images("vm", 0)[::-1]
        self.hub.stop()
        sidecar = Path(f"{image}.json")
        text = sidecar.read_text()

        def problems(which=0):
            found = self.check(self.increment)
            self.assertEqual((found["result"], found["exit_status"]), ("errors", 4), found)
            return " ".join(found["images"][which]["problems"])

        sidecar.write_text(text.replace("vm", "vn", 1))
        self.assertIn("is not the sidecar it was published with", problems())
        sidecar.unlink()
        self.assertIn("is missing", problems())
        self.assertEqual(self.check(image)["result"], "clean")  # copied away without it: a note
        sidecar.write_text(text)
        size = parent.stat().st_size
        with open(parent, "r+b") as file:
            file.truncate(size + CLUSTER)
        self.assertIn("bytes long, and published with", problems(1))
        with open(parent, "r+b") as file:
            file.truncate(size)
        self.assertEqual(self.check(self.increment)["result"], "clean")
        damaged = Qcow2Bytes(parent)
        damaged.set("autoclear", 0)
        self.assertIn("touched since publish", problems(1))


if __name__ == "__main__":
    run.main()
