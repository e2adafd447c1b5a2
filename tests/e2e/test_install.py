#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What `meson install` places; and, with VARVE_PACKAGE=1 (scripts/test --package), the package in a fresh Debian."""

import os
import re
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run, scratch  # noqa: E402
from harness.daemon import ROOT, binary  # noqa: E402

PACKAGE_SECONDS = 3000


class Installed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        build = Path(binary()).resolve().parents[1]
        if not (build / "build.ninja").exists():
            raise unittest.SkipTest("the binary lies in no build directory")
        context = scratch.directory()
        cls.root = context.__enter__()
        cls.addClassCleanup(context.__exit__, None, None, None)
        words = ["meson", "install", "-C", str(build), "--no-rebuild", "--destdir", str(cls.root)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        cls.files = {path.name: path for path in cls.root.rglob("*") if path.is_file()}

    def test_everything_that_a_service_needs_is_there(self):
        for name in ("varve", "varve.service", "varve.socket", "varve-nbd.socket", "varve.toml", "LICENSE", "install.md"):
            self.assertIn(name, self.files)
        for place in ("sysusers.d/varve.conf", "tmpfiles.d/varve.conf", "bash-completion/completions/varve",
                      "fish/vendor_completions.d/varve.fish", "zsh/vendor-completions/_varve"):  # fmt: skip
            self.assertEqual(len(list(self.root.rglob(place))), 1, place)

    def test_each_verb_has_a_page_and_the_program_runs(self):
        words = set(re.findall(r"^  (\w+) ", self.said("--help"), re.M))
        pages = {name[len("varve-"):-2] for name in self.files if name.startswith("varve-") and name.endswith(".1")}
        self.assertEqual(words, pages)
        self.assertIn("varve.1", self.files)
        self.assertIn("varve.toml.5", self.files)
        self.assertRegex(self.said("version"), r"^varve \d")

    def test_no_file_that_is_no_program_can_be_run_or_be_written_by_others(self):
        for name, path in self.files.items():
            mode = path.stat().st_mode & 0o777
            self.assertEqual(mode & 0o022, 0, path)
            if name != "varve":
                self.assertEqual(mode & 0o111, 0, path)

    def said(self, *words):
        program = next(path for path in self.root.rglob("bin/varve"))
        return subprocess.run([program, *words], capture_output=True, text=True, timeout=30, check=True).stdout


@unittest.skipUnless(os.environ.get("VARVE_PACKAGE"), "builds the package: scripts/test --package")
class Package(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        context = scratch.directory()
        directory = context.__enter__()
        cls.addClassCleanup(context.__exit__, None, None, None)
        cls.package = cls.script("package", directory).splitlines()[-1]

    @staticmethod
    def script(name, argument):
        words = [ROOT / "scripts" / name, argument]
        done = subprocess.run(words, capture_output=True, text=True, timeout=PACKAGE_SECONDS, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def test_it_is_installed_upgraded_removed_and_purged_in_a_fresh_debian(self):
        self.assertIn("ok: purge\n", self.script("try-package", self.package))

    def test_its_service_runs_under_the_systemd_of_a_machine(self):
        self.assertIn("ok: killed, it is started again\n", self.script("try-service", self.package))


if __name__ == "__main__":
    run.main()
