#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Compares varve with `qemu-nbd -f qcow2 --shared 10 -t` under the existing client's pattern.

Both ends are durable: SIGTERM and fsync for qemu-nbd, the answer to `complete` for varve.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from harness import scratch, side_by_side, sources  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size-mib", type=int, default=2048, help="size of the disk")
    parser.add_argument("--data", type=float, default=0.5, help="part of the disk that holds data")
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each side")
    options = parser.parse_args()
    with scratch.directory("varve-compare-") as directory:
        disk = sources.make_sources(directory, [options.size_mib << 20], data_fraction=options.data)[0]
        print(side_by_side.compare(directory, disk, options.runs).text())


if __name__ == "__main__":
    main()
