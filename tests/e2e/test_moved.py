#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Where a repository lies: given in whatever words, moved, copied."""

import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import qemu, run  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402


class Moved(HubCase):
    def setUp(self):
        super().setUp()
        self.register("vm", [MIB, MIB])
        self.quick_backup("vm", ["u0/1", "u1/1"], writes=[(0, b"a" * 65536)])
        self.quick_backup("vm", ["u0/2", "u1/2"], "incremental", [(65536, b"b" * 65536)])
        self.new = self.dir / "elsewhere"

    def restart_with(self, repository):
        self.hub.options["repository"] = repository
        self.hub.restart()
        self.starter.api_url = self.hub.url

    def assert_goes_on_in_the_new_place(self):
        self.quick_backup("vm", ["u0/3", "u1/3"], "incremental", [(131072, b"c" * 65536)])
        for disk in (0, 1):
            points = self.chain("vm", disk)["backups"]
            self.assertEqual(len(points), 3)
            for point in points:
                self.assertEqual(Path(point["file_path"]).parents[2], self.new)
            qemu.check(points[-1]["file_path"])
            raw = self.dir / "raw"
            qemu.convert_to_raw(points[-1]["file_path"], raw)
            self.assertEqual(raw.read_bytes()[:196608], b"a" * 65536 + b"b" * 65536 + b"c" * 65536)

    def test_a_moved_repository_keeps_its_points_and_takes_the_next_incremental(self):
        self.hub.stop()
        self.hub.repository.rename(self.new)
        self.restart_with(self.new)
        self.assertNotIn("unknown to the catalogue", self.hub.log)
        self.assert_goes_on_in_the_new_place()

    def test_a_copied_repository_is_used_where_it_lies_now(self):
        self.hub.stop()
        shutil.copytree(self.hub.repository, self.new, symlinks=True)
        before = sorted(self.hub.repository.rglob("*"))
        self.restart_with(self.new)
        self.assert_goes_on_in_the_new_place()
        self.assertEqual(sorted(self.hub.repository.rglob("*")), before)

    def test_an_empty_directory_instead_takes_fulls_and_loses_no_old_point(self):
        self.hub.stop()
        self.restart_with(self.new)
        for point in self.chain("vm")["backups"]:
            self.assertEqual(Path(point["file_path"]).parents[2], self.hub.repository)
            qemu.check(point["file_path"])
        self.quick_backup("vm", ["u0/3", "u1/3"])

    def test_a_job_that_ran_when_varve_was_killed_is_cleared_away_in_the_new_place(self):
        self.start("vm", "incremental")
        self.hub.kill()
        self.hub.repository.rename(self.new)
        self.restart_with(self.new)
        self.assertEqual(list(self.new.rglob("*.partial")), [])
        self.assert_goes_on_in_the_new_place()


class Words(HubCase):
    def test_a_relative_directory_is_stored_as_an_absolute_one(self):
        """qcow2_path is the final absolute path"""
        self.hub.stop()
        relative = os.path.relpath(self.dir / "relative") + "/./"
        self.hub.options.update(repository=relative, catalogue=os.path.relpath(self.dir / "new.db"))
        self.hub.restart()
        self.starter.api_url = self.hub.url
        self.register("vm", [MIB])
        job = self.quick_backup("vm", ["u/1"])
        paths = [disk["qcow2_path"] for disk in self.disks(job["backup_id"])]
        self.assertEqual([Path(path).parents[2] for path in paths], [self.dir / "relative"], paths)
        self.assertNotIn("//", paths[0])

    def test_a_closing_slash_names_the_same_directory(self):
        body = {"name": "again", "type": "local", "config": {"path": f"{self.hub.repository}/"}}
        answer = self.hub.api("POST", "/repositories", body)
        self.assertEqual(answer.status, 400, answer)
        self.assertIn("is the directory of another repository", answer.body["error"])


if __name__ == "__main__":
    run.main()
