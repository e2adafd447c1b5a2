#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The client's pattern into varve is no slower than into qemu-nbd."""

import os
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run, scratch, side_by_side, sources  # noqa: E402
from harness.case import MIB  # noqa: E402

RUNS = 3
NOISE = 0.9  # three short runs on a shared machine; bench/compare.py measures properly


class Throughput(unittest.TestCase):
    @unittest.skipIf(os.environ.get("VARVE_SANITIZED"), "a sanitizer's speed says nothing")
    def test_the_clients_pattern_is_no_slower_than_into_qemu_nbd(self):
        """A51 both ending durable, interleaved, medians"""
        with scratch.directory() as directory:
            disk = sources.make_sources(directory, [768 * MIB], data_fraction=0.4)[0]
            result = side_by_side.compare(directory, disk, RUNS)
        print(result.text())
        self.assertGreater(result.ratio, NOISE, result.text())


if __name__ == "__main__":
    run.main()
