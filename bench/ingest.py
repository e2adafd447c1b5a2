#!/usr/bin/python3
"""The side-by-side comparison: varve, qemu-nbd (at its best, and as the old hub runs it), nbdkit, the
bare sink and fio write the same incompressible data; runs are interleaved and end durable.

Results go to bench/results/: one JSON file a workload, README.md with all tables, and throughput.svg; the
summaries of docs/performance.md are renewed too.
A workload that is measured again replaces its own figures only."""
import argparse
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "tests"))
import report  # noqa: E402
from runner import Runner  # noqa: E402
from servers import Scratch, Servers  # noqa: E402
from workloads import SCALES, WORKLOADS  # noqa: E402


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


def main():
    scales = [title.replace(" ", "-") for title in SCALES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("workloads", nargs="*", help=f"of {', '.join([*WORKLOADS, *scales])} (default: all)")
    parser.add_argument("--build", default=HERE.parent / "build", type=pathlib.Path, help="build directory")
    parser.add_argument("--rounds", default=5, type=int, help="counted runs of each server (default 5)")
    parser.add_argument("--servers", help="only these, separated by commas")
    parser.add_argument("--against", metavar="REVISION",
                        help="measure varve beside a varve built from this revision, and nothing else;\n"
                             "through scripts/bench, which builds it; results are printed, not kept")
    parser.add_argument("--directory", default="/var/tmp", help="where the images go: the disk to measure")
    parser.add_argument("--results", default=HERE / "results", type=pathlib.Path)
    parser.add_argument("--warm-mib", default=4096, type=int, help="memory touched first")
    options = parser.parse_args()
    chosen = options.workloads or [*WORKLOADS, *scales]
    for name in chosen:
        if name not in WORKLOADS and not scale_of(name):
            parser.error(f"unknown workload {name}")
    if options.against and not os.environ.get("VARVE_BEFORE"):
        parser.error("run scripts/bench: it builds the varve that --against names")
    facts = report.machine(options.directory)
    warm_memory(options.warm_mib)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    with Scratch(options.directory) as directory:
        runner = Runner(Servers(options.build.resolve(), directory), directory, options.rounds)
        if options.against:
            compare_builds(runner, chosen)
            return
        for name in chosen:
            if name in WORKLOADS:
                workload = WORKLOADS[name]
                names = options.servers.split(",") if options.servers else workload.servers
                results = runner.workload(workload, [n for n in names if n in workload.servers])
                print("\n".join(report.figures(name, results)), flush=True)
            else:
                scale = SCALES[scale_of(name)]
                results = runner.interleaved({title: lambda one=one: runner.one("varve", one)
                                              for title, one in scale.items()})
                print("\n".join(report.scale_table(scale_of(name), results)), flush=True)
            report.save(options.results / f"{name}.json", facts, options.rounds, results)
    (options.results / "README.md").write_text(report.markdown(options.results), encoding="utf-8")
    (options.results / "throughput.svg").write_text(report.plot(options.results), encoding="utf-8")
    if options.results == HERE / "results":
        report.replace_in_document("goals", report.goals_table(options.results))
        report.replace_in_document("scales", report.scale_tables(options.results))
    print(f"\nwritten: {options.results}/README.md, throughput.svg")


if __name__ == "__main__":
    main()
