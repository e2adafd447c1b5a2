#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Where varve's CPU time goes, a row a workload: samples of perf (package linux-perf), by what the
thread was doing. Replaces the table between the markers "profile" in docs/benchmark.md."""
import argparse
import collections
import os
import pathlib
import re
import signal
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "tests"))
import report  # noqa: E402
from servers import Scratch, Servers, make_overlay, wait_until  # noqa: E402
from workloads import WORKLOADS  # noqa: E402

# The first that matches, from the innermost frame outwards, says what a sample was for.
KINDS = [
    ("first touch of memory", r"clear_page|clear_huge|folio_zero|anonymous_page|huge_pmd|handle_mm_fault"),
    ("copying from and to the socket", r"_copy_(to|from)_iter|copy_user|skb_copy_datagram|simple_copy_to_iter"),
    ("the socket", r"unix_stream|tcp_|sock_|io_recv|io_send|inet_|skb_|net_rx|napi"),
    ("page cache", r"filemap|folio_|page_cache|iomap_write|ext4_buffered|ext4_da_|generic_perform_write"),
    ("fsync", r"fsync|fdatasync|sync_file_range|jbd2"),
    ("allocating file space", r"fallocate"),
    ("the disk write", r"io_write|blk_|submit_bio|nvme|virtio|virtblk|iowrite|ext4_dio|iomap_dio|bio_"),
    ("interrupts and softirqs", r"softirq|irq|tasklet"),
    ("waiting and waking", r"schedule|finish_task_switch|io_cqring_wait|futex|wake_up|try_to_wake"),
    ("io_uring", r"io_uring|io_submit|io_issue|io_req|io_cqe|__io_"),
]


def kind_of(frames):
    """`frames`: (symbol, dso) from the innermost outwards."""
    if not frames:
        return "other"
    symbol, dso = frames[0]
    if "varve" in dso:
        found = re.search(r"\b(qcow|nbd|io)::", symbol)
        return f"varve, {found.group(1)}/" if found else "varve, other"
    if ".so" in dso:
        return "varve, libraries"
    for symbol, _ in frames:
        for kind, pattern in KINDS:
            if re.search(pattern, symbol):
                return kind
    return "other kernel"


def samples(data):
    text = subprocess.run(["perf", "script", "-i", data, "-F", "ip,sym,dso"], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True, check=True).stdout
    for stack in text.split("\n\n"):
        frames = re.findall(r"^\s*[0-9a-f]+ (.*) \((.*)\)$", stack, re.MULTILINE)
        if frames:
            yield frames


def profile(servers, directory, name):
    workload = WORKLOADS[name]
    image = directory / "profile.qcow2"
    make_overlay(image, servers.parent(workload.parent, workload.size), workload.size)
    socket, data = servers.socket_for(image), directory / "perf.data"
    recorder = subprocess.Popen(["perf", "record", "-q", "-e", "cpu-clock", "-F", "2000", "-g", "-o", data,
                                 servers.varve["varve"], "nbd", "-k", socket, image], stderr=subprocess.DEVNULL)
    wait_until(socket.exists, "no server")
    subprocess.run([servers.load, "--unix", socket, "--bytes", str(workload.bytes), *workload.load],
                   check=True, stdout=subprocess.DEVNULL)
    child = int(subprocess.run(["pgrep", "-P", str(recorder.pid)], stdout=subprocess.PIPE, text=True,
                               check=True).stdout.split()[0])
    os.kill(child, signal.SIGTERM)
    recorder.wait(60)
    counts = collections.Counter(kind_of(frames) for frames in samples(data))
    data.unlink()
    image.unlink()
    return counts


def table(counts_by_name):
    kinds = collections.Counter()
    for counts in counts_by_name.values():
        total = sum(counts.values())
        kinds.update({kind: count / total for kind, count in counts.items()})
    columns = [kind for kind, weight in kinds.most_common() if weight / len(counts_by_name) >= 0.005]
    lines = ["| part of the CPU time, % | " + " | ".join(counts_by_name) + " |",
             "|---" * (len(counts_by_name) + 1) + "|"]
    for kind in columns:
        cells = [f"{100 * counts[kind] / sum(counts.values()):.0f}" for counts in counts_by_name.values()]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    names = [name for name, one in WORKLOADS.items() if one.disks == 1 and not one.tcp]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("workloads", nargs="*", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--build", default=HERE.parent / "build-bench", type=pathlib.Path)
    parser.add_argument("--directory", default="/var/tmp")
    options = parser.parse_args()
    with Scratch(options.directory) as directory:
        servers = Servers(options.build.resolve(), directory)
        counts = {name: profile(servers, directory, name) for name in options.workloads or names}
    print(table(counts))
    report.replace_in_document("profile", table(counts))


if __name__ == "__main__":
    main()
