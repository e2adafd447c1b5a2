# SPDX-License-Identifier: Apache-2.0
"""Figures of interleaved runs as JSON and as Markdown."""
import json
import os
import pathlib
import platform
import statistics
import subprocess
import time

from servers import LABELS
from workloads import SCALES, WORKLOADS


def machine(directory):
    with open("/proc/cpuinfo", encoding="ascii") as info:
        model = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    kind = subprocess.run(["stat", "-f", "-c", "%T", directory], stdout=subprocess.PIPE, text=True,
                          check=True).stdout.strip()
    return {"cpu": model, "cores": os.cpu_count(), "memory_gib": memory, "kernel": platform.release(),
            "file_system": kind, "qemu": first_line("qemu-nbd", "--version"),
            "nbdkit": first_line("nbdkit", "--version"), "fio": first_line("fio", "--version"),
            "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}


def first_line(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[0]


def save(path, machine_facts, rounds, results):
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine_facts, "rounds": rounds, "results": results}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def load(path):
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def median(runs, member):
    values = [run[member] for run in runs if member in run]
    return statistics.median(values) if values else None


def ratio(results, server, member):
    """The median of varve's figure over the server's, within each round."""
    return statistics.median(mine[member] / theirs[member]
                             for mine, theirs in zip(results["varve"], results[server]))


def spread(runs, member, digits=0):
    values = [run[member] for run in runs if member in run]
    if not values:
        return ""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def verdict(value, goal, at_least):
    met = value >= goal if at_least else value <= goal
    return f"{value:.2f} (goal {'≥' if at_least else '≤'} {goal}{'' if met else ', **not met**'})"


def goals_row(name, results):
    """One row of the goals' table: varve's ratios beside what they must be."""
    workload = WORKLOADS[name]
    cells = [workload.title]
    for server in ("qemu-best", "qemu-hub"):
        cells.append(verdict(ratio(results, server, "mib_s"), workload.goals[server], True)
                     if server in results else "")
    cells.append(verdict(ratio(results, "qemu-best", "cpu_gib"), workload.cpu_goal, False)
                 if "qemu-best" in results else "")
    for server in ("fio", "sink"):
        if server not in results:
            cells.append("")
        elif server in workload.goals:
            cells.append(verdict(ratio(results, server, "mib_s"), workload.goals[server], True))
        else:
            cells.append(f"{ratio(results, server, 'mib_s'):.2f}")
    return "| " + " | ".join(cells) + " |"


def figures(name, results):
    lines = [f"### {WORKLOADS[name].title}", "",
             "| server | MiB/s | CPU s/GiB | peak MiB | p50 µs | p99 µs | p99.9 µs |",
             "|---|---|---|---|---|---|---|"]
    for server, runs in results.items():
        cells = [spread(runs, "mib_s"), spread(runs, "cpu_gib", 2)]
        for member in ("peak_mib", "p50_us", "p99_us", "p999_us"):
            value = median(runs, member)
            cells.append("" if value is None else f"{value:.0f}")
        lines.append(f"| {LABELS[server]} | " + " | ".join(cells) + " |")
    return lines


def before_and_after(name, results):
    """One line: what a change has cost, as medians of the ratios within each round."""
    ratios = {member: [mine[member] / theirs[member]
                       for mine, theirs in zip(results["varve"], results["before"])]
              for member in ("mib_s", "cpu_gib")}
    cells = [f"{statistics.median(values):.3f} ({min(values):.2f}–{max(values):.2f})"
             for values in ratios.values()]
    return (f"{name}: throughput {cells[0]} of before, {spread(results['varve'], 'mib_s')} MiB/s; "
            f"CPU {cells[1]} of before, {spread(results['varve'], 'cpu_gib', 2)} s/GiB; "
            f"{len(results['varve'])} rounds")


def scale_table(title, results):
    base = next(iter(results))
    lines = [f"### The same increment, by {title}", "",
             f"| {title} | MiB/s | against {base} | CPU s/GiB | against {base} | peak MiB |",
             "|---|---|---|---|---|---|"]
    for name, runs in results.items():
        against = [statistics.median(run[m] / first[m] for run, first in zip(runs, results[base]))
                   for m in ("mib_s", "cpu_gib")]
        lines.append(f"| {name} | {spread(runs, 'mib_s')} | {against[0]:.2f} | "
                     f"{spread(runs, 'cpu_gib', 2)} | {against[1]:.2f} | {median(runs, 'peak_mib'):.0f} |")
    return lines


def markdown(directory):
    """The whole report, of all workloads that have results."""
    lines = ["# Figures of scripts/bench", "",
             "Made by `scripts/bench`; do not edit. Medians (smallest–largest) of interleaved runs, both",
             "sides ending durable; ratios are medians of the ratios within each round.", ""]
    records = {name: load(directory / f"{name}.json") for name in WORKLOADS}
    records = {name: record for name, record in records.items() if record}
    lines.append(goals_table(directory))
    for name, record in records.items():
        lines += ["", *figures(name, record["results"]), "", on_what(record)]
    for title in SCALES:
        record = load(directory / f"{title.replace(' ', '-')}.json")
        if record:
            lines += ["", *scale_table(title, record["results"]), "", on_what(record)]
    return "\n".join(lines) + "\n"


def on_what(record):
    facts = record["machine"]
    return (f"{record['rounds']} rounds, {facts['when']}: {facts['cpu']}, {facts['cores']} cores, "
            f"{facts['memory_gib']} GiB, Linux {facts['kernel']}, {facts['file_system']}; {facts['qemu']}; "
            f"{facts['nbdkit']}; {facts['fio']}.")


DOCUMENTS = pathlib.Path(__file__).resolve().parents[1] / "docs"
DOCUMENT = DOCUMENTS / "benchmark.md"  # for those who change varve: every figure beside its goal
USERS_DOCUMENT = DOCUMENTS / "performance.md"


def goals_table(directory):
    lines = ["| workload | × qemu-nbd at its best | × as the hub runs it | CPU per GiB, of qemu-nbd "
             "at its best | × fio | × bare sink |", "|---|---|---|---|---|---|"]
    for name in WORKLOADS:
        record = load(directory / f"{name}.json")
        if record:
            lines.append(goals_row(name, record["results"]))
    return "\n".join(lines)


def users_table(directory):
    """What a user asks first: how much CPU, how near to the disk, how long a request takes, beside qemu-nbd."""
    lines = ["| | CPU s per GiB (qemu-nbd) | of what fio writes | MiB/s (qemu-nbd) | slowest 1 % of requests, ms (qemu-nbd) |",
             "|---|---|---|---|---|"]
    told = None
    for name, workload in WORKLOADS.items():
        record = load(directory / f"{name}.json")
        if name == "zeroes1t" or not record or "qemu-best" not in record["results"]:
            continue  # zeroes move no data that a rate could be of
        told = told or record
        results = record["results"]
        mine, theirs = results["varve"], results["qemu-best"]

        def beside(member, digits, scale=1):
            ours, peers = median(mine, member), median(theirs, member)
            if ours is None:
                return ""
            return f"**{ours / scale:.{digits}f}** ({peers / scale:.{digits}f})"
        fio = f"{ratio(results, 'fio', 'mib_s'):.0%}" if "fio" in results else ""
        p99 = beside("p99_us", 1, 1000)
        lines.append(f"| {workload.title} | {beside('cpu_gib', 2)} | {fio} | {beside('mib_s', 0)} | {p99} |")
    return "\n".join([*lines, "", on_what(told)] if told else lines)


def scale_tables(directory):
    lines = []
    for title in SCALES:
        record = load(directory / f"{title.replace(' ', '-')}.json")
        if record:
            lines += [*scale_table(title, record["results"]), ""]
    return "\n".join(lines).rstrip()


def replace_in_document(name, words, document=DOCUMENT):
    """Puts `words` between the markers <!-- NAME --> and <!-- end of NAME -->."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    text = document.read_text(encoding="utf-8")
    head, rest = text.split(begin)
    tail = rest.split(end)[1]
    document.write_text(f"{head}{begin}\n{words}\n{end}{tail}", encoding="utf-8")
