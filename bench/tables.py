# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks of points have in common: workloads that make tables, kept as JSON and put into a document."""
import argparse
import json
import os
import pathlib
import statistics
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))
import report  # noqa: E402
from restore_tools import Tools  # noqa: E402
from servers import Scratch  # noqa: E402


def ratio(results, server, member="mib_s", of="varve"):
    pairs = list(zip(results[of], results[server]))
    return statistics.median(mine[member] / theirs[member] for mine, theirs in pairs)


def verdict(results, server, goal, member="mib_s", at_least=True):
    return report.verdict(ratio(results, server, member), goal, at_least)


def cells(results, member="mib_s", digits=0):
    return " | ".join(report.spread(runs, member, digits) for runs in results.values())


def put_into_document(section, workloads, kept):
    """All tables there are, neighbours of one session with one line about the machine."""
    words, told = [], None
    for name in (name for name in workloads if name in kept):
        on_what = f"A disk of {kept[name]['mib']} MiB; {report.on_what(kept[name])}"
        if told not in (None, on_what):
            words += [told, ""]
        told = on_what
        words += [*kept[name]["lines"], ""]
    report.replace_in_document(section, "\n".join([*words, told or ""]).rstrip())


def main(section, file_name, workloads, about):
    """Runs the workloads that the command line asks for, name -> function of Tools that returns lines."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("workloads", nargs="*", help="default: all")
    parser.add_argument("--build", type=pathlib.Path, default="build-bench")
    parser.add_argument("--directory", type=pathlib.Path, default="/var/tmp", help="where the images go: the disk to measure")
    parser.add_argument("--mib", type=int, default=2048, help="size of the disk that is read (default 2048)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dry-run", action="store_true", help="say what would be measured, and measure nothing")
    options = parser.parse_args()
    for name in options.workloads:
        if name not in workloads:
            parser.error(f"unknown workload {name}; there are {', '.join(workloads)}")
    if not options.directory.is_dir():
        parser.error(f"--directory {options.directory} is not a directory")
    if options.dry_run:
        print(f"{', '.join(options.workloads or workloads)}: {options.rounds} rounds, a disk of {options.mib} MiB")
        return
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    tables = HERE / "results" / file_name
    kept = json.loads(tables.read_text(encoding="utf-8")) if tables.exists() else {}
    facts = report.machine(options.directory)
    for name in options.workloads or workloads:
        with Scratch(options.directory) as directory:
            tools = Tools(options.build.resolve(), directory, options.mib, options.rounds)
            try:
                lines = workloads[name](tools)
            finally:
                tools.close()
        print("\n".join(["", *lines, ""]), flush=True)
        kept[name] = {"lines": lines, "machine": facts, "rounds": options.rounds, "mib": options.mib}
        tables.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    put_into_document(section, workloads, kept)
