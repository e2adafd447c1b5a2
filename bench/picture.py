# SPDX-License-Identifier: Apache-2.0
"""The figures of interleaved runs as a picture: throughput, CPU and latency side by side, as SVG."""
from xml.sax.saxutils import escape

from report import load, median
from servers import LABELS
from workloads import WORKLOADS

COLOURS = {"varve": "#1b7f5c", "qemu-best": "#c98a2b", "qemu-hub": "#b7b7b7", "nbdkit": "#7a8fc2",
           "sink": "#777777", "fio": "#333333"}
# Member of a measurement, title, factor, digits. Throughput has one scale for all workloads; what a request costs differs
# by orders of magnitude between them, so there each has its own.
PANELS = (("mib_s", "MiB/s, durable (longer is better)", 1, 0),
          ("cpu_gib", "CPU s per GiB (shorter is better)", 1, 2),
          ("p99_us", "slowest 1 % of requests, ms (shorter is better)", 1 / 1000, 1))
NAMES, PANEL, GAP, BAR, ROW = 90, 250, 60, 11, 16
LEFT = 8
WIDTH = LEFT + NAMES + len(PANELS) * (PANEL + GAP)


def plot(directory):
    """A group for each workload, a bar for each server; a thin line spans the smallest and the largest run."""
    records = {name: load(directory / f"{name}.json") for name in WORKLOADS if name != "zeroes1t"}
    records = {name: record for name, record in records.items() if record}
    fastest = largest(records.values(), PANELS[0][0], PANELS[0][2])
    top, body = 54, legend(54, records)
    top += ROW * len(body) + 14
    for index, (_, title, _, _) in enumerate(PANELS):
        body.append(text(panel_left(index), top, title, weight="bold"))
    top += 10
    for name, record in records.items():
        body.append(text(LEFT, top + 14, WORKLOADS[name].title, weight="bold"))
        top += 20
        most = {member: largest([record], member, factor) for member, _, factor, _ in PANELS[1:]}
        most[PANELS[0][0]] = fastest
        for server, runs in record["results"].items():
            body.append(text(LEFT + NAMES - 8, top + 9, server, anchor="end"))
            for index, panel in enumerate(PANELS):
                body += bar(panel_left(index), top, server, runs, panel, most)
            top += ROW
        top += 8
    head = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top + 6}" font-family="sans-serif" '
            'font-size="11">', f'<rect width="{WIDTH}" height="{top + 6}" fill="white"/>',
            text(LEFT, 20, "Backup data written over NBD into QCOW2, beside other servers", size=15, weight="bold"),
            text(LEFT, 38, said_of(records))]
    return "\n".join([*head, *body, "</svg>"]) + "\n"


def panel_left(index):
    return LEFT + NAMES + index * (PANEL + GAP)


def largest(records, member, factor):
    return max((run[member] * factor for record in records for runs in record["results"].values()
                for run in runs if member in run), default=1)


def legend(top, records):
    servers = {server for record in records.values() for server in record["results"]}
    lines = []
    for server in (name for name in LABELS if name in servers):
        y = top + ROW * len(lines)
        lines.append(f'<rect x="{LEFT}" y="{y}" width="{BAR}" height="{BAR}" fill="{COLOURS[server]}"/>'
                     + text(LEFT + 18, y + 9, LABELS[server] if server == LABELS[server] else f"{server}: {LABELS[server]}"))
    return lines


def bar(left, top, server, runs, panel, most):
    member, _, factor, digits = panel
    value = median(runs, member)
    if value is None:
        return []
    values = [run[member] * factor for run in runs if member in run]
    wide = PANEL / most[member]
    least, greatest, middle = min(values) * wide, max(values) * wide, value * factor * wide
    y = top + BAR / 2
    return [f'<rect x="{left}" y="{top}" width="{middle:.1f}" height="{BAR}" fill="{COLOURS[server]}"/>',
            f'<path d="M{left + least:.1f} {y}H{left + greatest:.1f}" stroke="#000" stroke-width="1"/>',
            text(left + max(greatest, middle) + 4, top + 9, f"{value * factor:.{digits}f}")]


def said_of(records):
    if not records:
        return ""
    record = next(iter(records.values()))
    facts = record["machine"]
    return (f"Medians of {record['rounds']} interleaved runs, the line spans the smallest and the largest; {facts['cpu']}, "
            f"{facts['cores']} cores, {facts['memory_gib']} GiB, Linux {facts['kernel']}, {facts['when'][:10]}")


def text(x, y, words, anchor="start", weight="normal", size=11):
    return (f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" font-weight="{weight}" '
            f'font-size="{size}">{escape(words)}</text>')
