#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The side-by-side comparison: varve, qemu-nbd (at its best, and as the old hub runs it), nbdkit, the
bare sink and fio write the same incompressible data; runs are interleaved and end durable.

Results go to bench/results/: one JSON file a workload, README.md with all tables, and throughput.svg; the
tables of docs/benchmark.md and docs/performance.md are renewed too.
A workload that is measured again replaces its own figures only."""
import argparse
import dataclasses
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "tests"))
import picture  # noqa: E402
import report  # noqa: E402
from runner import Runner  # noqa: E402
from servers import LABELS, Scratch, Servers  # noqa: E402
from workloads import SCALES, WORKLOADS  # noqa: E402

# --quick: an answer after some two minutes, too coarse to be kept.
QUICK_WORKLOADS = ("seq256", "client", "random4k")
QUICK_SERVERS = ("varve", "qemu-best", "fio")
QUICK_ROUNDS, QUICK_SHARE = 2, 4  # a quarter of the bytes


def warm_memory(mib):
    """Touches the memory that page cache and buffers will use: its first touch is slow on a virtual
    machine."""
    held = [bytearray(64 << 20) for _ in range(mib // 64)]
    for block in held:
        block[::4096] = b"\1" * (len(block) // 4096)


def scale_of(name):
    return next((title for title in SCALES if title.replace(" ", "-") == name), None)


def compare_builds(runner, names):
    for name in names:
        if name in WORKLOADS:
            results = runner.workload(WORKLOADS[name], ["varve", "before"])
            print(report.before_and_after(name, results), flush=True)


def arguments():
    scales = [title.replace(" ", "-") for title in SCALES]
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("workloads", nargs="*", help=f"of {', '.join([*WORKLOADS, *scales])} (default: all)")
    parser.add_argument("--build", default=HERE.parent / "build", type=pathlib.Path, help="build directory")
    parser.add_argument("--rounds", type=int, help="counted runs of each server (default 5)")
    parser.add_argument("--servers", help=f"only these of {', '.join(LABELS)}, separated by commas")
    parser.add_argument("--quick", action="store_true",
                        help=f"{QUICK_ROUNDS} rounds of a quarter of the bytes, of {', '.join(QUICK_WORKLOADS)} unless\n"
                             "workloads are named: some two minutes; printed, not kept")
    parser.add_argument("--against", metavar="REVISION",
                        help="measure varve beside a varve built from this revision, or from this tree\n"
                             "without its asserts (no-asserts), and nothing else;\n"
                             "through scripts/bench, which builds it; results are printed, not kept")
    parser.add_argument("--directory", default="/var/tmp", help="where the images go: the disk to measure")
    parser.add_argument("--results", default=HERE / "results", type=pathlib.Path)
    parser.add_argument("--warm-mib", default=4096, type=int, help="memory touched first")
    parser.add_argument("--dry-run", action="store_true", help="say what would be measured, and measure nothing")
    options = parser.parse_args()
    options.workloads = options.workloads or (list(QUICK_WORKLOADS) if options.quick else [*WORKLOADS, *scales])
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else 5)
    for name in options.workloads:
        if name not in WORKLOADS and not scale_of(name):
            parser.error(f"unknown workload {name}; there are {', '.join([*WORKLOADS, *scales])}")
    options.servers = options.servers.split(",") if options.servers else list(QUICK_SERVERS if options.quick else LABELS)
    for name in options.servers:
        if name not in LABELS:
            parser.error(f"unknown server {name}; there are {', '.join(LABELS)}")
    if not os.path.isdir(options.directory):
        parser.error(f"--directory {options.directory} is not a directory")
    if options.against and not options.dry_run and not os.environ.get("VARVE_BEFORE"):
        parser.error("run scripts/bench: it builds the varve that --against names")
    return options


def servers_of(workload, options):
    return [name for name in workload.servers if name in options.servers]


def plan(options):
    """What would be measured, a line for each workload."""
    for name in options.workloads:
        if name in WORKLOADS:
            workload = WORKLOADS[name]
            names = ["varve", "before"] if options.against else servers_of(workload, options)
            yield f"{name}: {workload.title}; {options.rounds} rounds of {', '.join(names) or 'no server'}"
        else:
            yield f"{name}: varve alone; {options.rounds} rounds of {', '.join(SCALES[scale_of(name)])}"


def measure(runner, name, options):
    """The measurements of a workload or scale; prints their table."""
    if name in WORKLOADS:
        workload = WORKLOADS[name]
        if options.quick:
            workload = dataclasses.replace(workload, bytes=workload.bytes // QUICK_SHARE)
        results = runner.workload(workload, servers_of(workload, options))
        print("\n".join(report.figures(name, results)), flush=True)
        return results
    scale = SCALES[scale_of(name)]
    results = runner.interleaved({title: lambda one=one: runner.one("varve", one)
                                  for title, one in scale.items()})
    print("\n".join(report.scale_table(scale_of(name), results)), flush=True)
    return results


def keep(directory):
    """Renews what is made of all results there are."""
    (directory / "README.md").write_text(report.markdown(directory), encoding="utf-8")
    (directory / "throughput.svg").write_text(picture.plot(directory), encoding="utf-8")
    if directory == HERE / "results":
        report.replace_in_document("goals", report.goals_table(directory))
        report.replace_in_document("scales", report.scale_tables(directory))
        report.replace_in_document("figures", report.users_table(directory), report.USERS_DOCUMENT)
    print(f"\nwritten: {directory}/README.md, throughput.svg")


def main():
    options = arguments()
    if options.dry_run:
        print("\n".join(plan(options)))
        return
    facts = report.machine(options.directory)
    warm_memory(options.warm_mib)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    with Scratch(options.directory) as directory:
        runner = Runner(Servers(options.build.resolve(), directory), directory, options.rounds)
        if options.against:
            compare_builds(runner, options.workloads)
            return
        for name in options.workloads:
            results = measure(runner, name, options)
            if not options.quick:
                report.save(options.results / f"{name}.json", facts, options.rounds, results)
    if not options.quick:
        keep(options.results)


if __name__ == "__main__":
    main()
