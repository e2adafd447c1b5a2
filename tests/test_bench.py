#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""scripts/bench says at once what it does not understand: before it builds, which takes minutes."""
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from harness import run  # noqa: E402

BENCH = pathlib.Path(__file__).resolve().parent.parent / "scripts" / "bench"
SECONDS = 20  # far less than a build


def bench(*arguments):
    return subprocess.run([BENCH, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=SECONDS, check=False)


class Bench(unittest.TestCase):
    def test_help_needs_no_build(self):
        for section in ((), ("restore",), ("pull",), ("verify",), ("proof",)):
            done = bench(*section, "--help")
            self.assertEqual(done.returncode, 0, done.stdout)
            self.assertIn("--rounds", done.stdout)

    def test_unknown_names_are_refused_with_those_there_are(self):
        for arguments, known in ((("seq256", "--servers", "varve,qemu"), "qemu-best"), (("sequential",), "seq256"),
                                 (("restore", "writing"), "sequential")):
            done = bench(*arguments)
            self.assertEqual(done.returncode, 2, done.stdout)
            self.assertIn("unknown", done.stdout)
            self.assertIn(known, done.stdout)

    def test_a_dry_run_says_what_would_be_measured(self):
        done = bench("--quick", "--dry-run", "--servers", "varve,fio")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("seq256: sequential 256 KiB × 16, Unix socket; 2 rounds of varve, fio", done.stdout)


if __name__ == "__main__":
    run.main()
