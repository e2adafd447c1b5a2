#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A lost catalogue comes back from the repository's files, and backups go on."""

import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import qemu, run  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.daemon import binary  # noqa: E402


class Rebuild(HubCase):
    def setUp(self):
        super().setUp()
        self.register("vm", [MIB, MIB])
        self.quick_backup("vm", ["u0/1", "u1/1"], writes=[(0, b"a" * 65536)])
        self.quick_backup("vm", ["u0/2", "u1/2"], "incremental", [(65536, b"b" * 65536)])
        self.before = self.points_of_both_disks()

    def points_of_both_disks(self):
        members = ("backup_id", "image_id", "change_id", "parent_backup_id", "file_path", "total_bytes", "type")
        return [[{name: point.get(name) for name in members} for point in self.chain("vm", disk)["backups"]]
                for disk in (0, 1)]

    def rebuild(self, repository=None):
        command = [binary(), "rebuild", "--repository", str(repository or self.hub.repository), "--catalogue",
                   str(self.hub.catalogue)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def lose_catalogue(self):
        self.hub.stop()
        for path in self.hub.catalogue.parent.glob(self.hub.catalogue.name + "*"):
            path.unlink()

    def test_a_lost_catalogue_comes_back_and_the_next_incremental_stands_on_it(self):
        """docs/catalogue.md: from the files alone"""
        self.lose_catalogue()
        done = self.rebuild()
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)
        self.assertIn("1 VM, 2 backups, 4 images", done.stdout)
        self.hub.restart()
        self.assertEqual(self.points_of_both_disks(), self.before)
        self.register_again()
        self.quick_backup("vm", ["u0/3", "u1/3"], "incremental", [(131072, b"c" * 65536)])
        for disk in (0, 1):
            raw = self.dir / "raw"
            qemu.convert_to_raw(self.chain("vm", disk)["backups"][-1]["file_path"], raw)
            self.assertEqual(raw.read_bytes()[:196608], b"a" * 65536 + b"b" * 65536 + b"c" * 65536)

    def test_check_and_rebuild_look_where_the_configuration_of_serve_says(self):
        config = self.dir / "varve.toml"
        config.write_text(f'repository = "{self.hub.repository}"\ncatalogue = "{self.hub.catalogue}"\n')
        self.lose_catalogue()
        for words in (["rebuild"], ["check", self.before[0][0]["backup_id"]]):
            done = subprocess.run([binary(), *words, "--config", str(config)], capture_output=True, text=True, timeout=60)
            self.assertEqual((done.returncode, done.stderr), (0, ""), done)

    def test_a_backup_that_is_not_whole_is_left_out_and_named(self):
        newest = self.before[1][-1]["file_path"]
        self.lose_catalogue()
        Path(newest).unlink()
        done = self.rebuild()
        self.assertEqual(done.returncode, 3, done)
        self.assertIn("1 backup, 2 images", done.stdout)
        self.assertIn("left out:", done.stderr)
        self.assertIn("is missing", done.stderr)

    def test_it_refuses_beside_a_running_varve(self):
        done = self.rebuild()
        self.assertEqual(done.returncode, 1, done)
        self.assertIn("in use", done.stderr)

    def test_what_the_catalogue_knows_already_stays(self):
        self.hub.stop()
        done = self.rebuild()
        self.assertEqual(done.returncode, 0, done)
        self.hub.restart()
        self.assertEqual(self.points_of_both_disks(), self.before)

    def test_an_id_of_another_directory_is_refused(self):
        self.hub.stop()
        other = self.dir / "other"
        other.mkdir()
        done = self.rebuild(other)
        self.assertEqual(done.returncode, 1, done)
        self.assertIn("choose another --repository-id", done.stderr)

    def test_a_start_without_the_catalogue_says_how_to_bring_it_back(self):
        self.lose_catalogue()
        self.hub.restart()
        self.assertIn("4 images of", self.hub.log)
        self.assertIn(f"varve rebuild --repository {self.hub.repository} --repository-id 1", self.hub.log)
        self.hub.stop()
        self.assertEqual(self.rebuild().returncode, 0)
        self.hub.restart()
        self.assertEqual(self.points_of_both_disks(), self.before)

    def test_a_damaged_catalogue_is_refused_with_the_way_out(self):
        self.hub.stop()
        whole = self.hub.catalogue.read_bytes()
        broken = {"header": b"garbage!" * 2 + whole[16:], "middle": whole[:4096] + b"\xa5" * (len(whole) - 4096)}
        for name, content in broken.items():
            with self.subTest(name):
                self.hub.catalogue.write_bytes(content)
                self.hub.launch()
                self.assertEqual(self.hub.wait(30), 1)
                self.assertIn("is damaged", self.hub.log)
                self.assertIn("varve rebuild --repository", self.hub.log)
                self.assertEqual(self.hub.catalogue.read_bytes(), content)
        self.hub.catalogue.unlink()
        self.assertEqual(self.rebuild().returncode, 0)
        self.hub.restart()
        self.assertEqual(self.points_of_both_disks(), self.before)

    def test_directories_of_other_programs_are_neither_read_nor_in_the_way(self):
        foreign = self.hub.repository / "another-program" / "disk-0"
        foreign.mkdir(parents=True)
        for name in ("x.qcow2", "x.qcow2.json"):
            (foreign / name).write_bytes(b"not ours")
        self.lose_catalogue()
        done = self.rebuild()
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)
        self.hub.restart()
        self.assertEqual(self.points_of_both_disks(), self.before)
        self.assertEqual((foreign / "x.qcow2").read_bytes(), b"not ours")

    def test_what_cannot_be_read_is_named_and_the_rest_taken_over(self):
        unreadable = Path(self.before[1][-1]["file_path"] + ".json")
        self.lose_catalogue()
        unreadable.unlink()
        unreadable.mkdir()  # EISDIR, whoever reads
        done = self.rebuild()
        self.assertEqual(done.returncode, 3, done)
        self.assertIn("1 VM, 1 backup, 2 images", done.stdout)
        self.assertIn(unreadable.name.removesuffix(".json"), done.stderr)
        self.hub.restart()
        self.assertEqual(self.points_of_both_disks(), [disk[:1] for disk in self.before])

    def test_on_an_older_copy_made_while_a_backup_ran_every_point_is_there(self):
        job = self.start("vm", "incremental")
        copy = self.dir / "older.db"
        command = [binary(), "catalogue", "backup", str(copy), "--catalogue", str(self.hub.catalogue)]
        subprocess.run(command, check=True, capture_output=True, timeout=30)
        for index in range(2):
            self.write_and_complete(job, index, f"u{index}/3", [(131072, b"c" * 65536)])
        before = self.points_of_both_disks()
        self.assertEqual([len(points) for points in before], [3, 3])
        self.lose_catalogue()
        shutil.copy(copy, self.hub.catalogue)
        done = self.rebuild()
        self.assertEqual(done.returncode, 0, done)
        self.hub.restart()
        self.assertEqual(self.points_of_both_disks(), before)
        self.assertEqual(self.job(job["backup_id"])["status"], "completed")

    def register_again(self):
        answer = self.hub.register("vm", [MIB, MIB])
        self.assertIn(answer.status, (200, 201), answer)


if __name__ == "__main__":
    run.main()
