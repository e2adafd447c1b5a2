#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""tests/acceptance.md says what each row of the acceptance table asks for, and which tests carry its number.

Run with --write to make the table anew from the tests."""
import ast
import pathlib
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from harness import run  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "tests" / "acceptance.md"
ROW = re.compile(r"\bA([1-9][0-9]?)\b")
ROWS = range(1, 55)
GTEST = re.compile(r"((?://[^\n]*\n\s*)*)TEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\)\s*\{((?:\s*//[^\n]*\n)*)")
NAMED_ROW = re.compile(r"(?<![A-Za-z])A([1-9][0-9]?)(?=[A-Z])")
SUITE_ROW = re.compile(r"///[^\n]*\bA([1-9][0-9]?)\b[^\n]*\n(?:///[^\n]*\n)*class (\w+)")
# What the users of the service that varve replaces rely on, row by row.
TEXT = {
    1: "The HTTP layer checks, calls the engine and formats; it contains no code for files, ports or sockets.",
    2: "`POST /backups` makes its checks in the documented order, with the documented texts, statuses and codes; "
       "unknown members are ignored.",
    3: "A job has one disk for each registered disk, by ascending index, with VMware's key and the exact size.",
    4: "The rows of job and disks are durable before the node is called; a kill inside the call leaves a failed job, "
       "not none.",
    5: "POST, GET and list show the same backup object, with all members and their types.",
    6: "The node is called once per job, with every field filled and all disks in one `nbd_targets`.",
    7: "A node that refuses, hangs or drops the call ends the start within 15 s, with a 500, and leaves no port, file, "
       "export or running job.",
    8: "The parent of an incremental is the newest published point of that VM, repository and disk.",
    9: "varve starts no other program and needs none of qemu's.",
    10: "An export is served, with its flags and sizes, before POST answers, and takes many connections at once.",
    11: "Each disk gets the lowest port of the range that is free and can be bound; ports of other programs are "
        "skipped, and all come back at every kind of end.",
    12: "Every export can be reached by its own port and by its name on the main port.",
    13: "With no configuration, repository `1` exists and takes backups.",
    14: "A start that fails at any step leaves no port, export or file, and the job as failed.",
    15: "A client that dies, a timeout, a storage error or a cancel leaves nothing of the job; the newest point stays, "
        "and the next job works.",
    16: "A full image has the header that qemu-img would write, in all fields that are meant to be equal.",
    17: "An incremental image is an overlay on the right parent, with a size of its own; a disk that grew reads zero "
        "beyond its parent.",
    18: "Client 1.0.1 works: change ids by path and key, `complete` without `disk_id`, no telemetry.",
    19: "The client with telemetry works: its early `completed`, its open first connection.",
    20: "Telemetry `completed`, and `complete` of one disk of several, leave the job running.",
    21: "The change id that is given out follows the ten rows of docs/jobs.md (Change ids); every value is a string, "
        "and constant while the job runs.",
    22: "Names of jobs, exports, images and VMs are safe, unique for ever, and give the client the right disk index.",
    23: "What `complete` has answered with 200 survives a kill right after it.",
    24: "`complete` may be repeated; another change id, an unknown disk and a disk without a connection are refused.",
    25: "Change ids are kept byte for byte, and each backup replaces the one before.",
    26: "A VM is found by its registered name, or by an inventory name that only one has; registrations follow the "
        "documented rules.",
    27: "The catalogue is one SQLite file whose views have the documented columns; older files are lifted to the "
        "present schema.",
    28: "The chain of a disk is shown in order, with parents, count, full and latest, by both URLs.",
    29: "Each full opens a generation, and the older ones can still be asked for.",
    30: "Deleting removes rows and files, honours dependents, immutability and retention, and is finished after a "
        "crash.",
    31: "All filters of the list combine; the newest comes first.",
    32: "Statistics, telemetry, repositories, VM contexts, exports, ports, health, metrics and the description of the "
        "API answer as documented.",
    33: "Every error is one complete problem document, and every time is UTC.",
    34: "Files lie and are named as documented, where operators' scripts look for them.",
    35: "After a kill at any moment published points are whole, unfinished jobs are failed, and the next job works.",
    36: "A full backup, end to end, equals its source in content and size.",
    37: "An incremental, end to end, equals its source, and stores the changes only.",
    38: "In a chain of ten points each one equals its source.",
    39: "A disk that is sent again with the same bytes costs metadata only.",
    40: "Writes at any byte offset, over any backing, lose no byte.",
    41: "Zeroes and trims over a parent never uncover its data.",
    42: 'While a full runs the change id is `""`, and its image stands alone.',
    43: "A VM has one job at a time; other VMs continue.",
    44: "A client that sends telemetry and no data is given up.",
    45: "A connection may stay idle for the whole job; one that breaks may come back within the grace, after which the "
        "job fails.",
    46: "A full, broken or read-only disk reaches the client as an error, fails its job, and touches no other.",
    47: "A damaged, missing, foreign or locked parent refuses the start with its reason.",
    48: "A job can be cancelled once and again; an ended or unknown one is refused.",
    49: "Zeroes that the client has only sampled are counted and reported.",
    50: "All disks of a job are published, or none.",
    51: "The client's pattern is written no slower than into `qemu-nbd -f qcow2 --shared 10 -t`, both ending durable.",
    52: "The addresses can be chosen, are loopback by default, and nothing else listens.",
    53: "The examples of the documents are executed.",
    54: "The whole suite runs, under the sanitizers too, and with the tools of libnbd and qemu.",
}
# What no test of its own proves waits for a later issue, or is the whole suite.
NO_TEST = {
    39: "unchanged data is stored again until write elision comes",
    54: "`scripts/test` and `scripts/test --sanitize` run the whole suite",
}
HEAD = """# Acceptance

What varve must do for those who used the service before it, and the tests that prove it. Made by
`tests/test_acceptance.py --write` from the texts in it and the numbers in the tests, and checked by the same
file in `scripts/test`. A row whose tests are all expected to fail says "not yet".

## The scripted scenario

`tests/e2e/test_scenario.py` goes through these steps in one command.

1. Two sparse disks of 5 GiB and 1 GiB, with data across the borders of clusters and of the client's workers.
2. A full backup by the emulated client; content, sizes and `qemu-img check` of every image.
3. About 1 % changes, then an incremental: each disk is told its own change id, and stores 10 % of the full at most.
4. Until there are five points: both chains in order, and every older point still equals its saved source.
5. A second full hands out no change id and has no parent; the first generation still holds.
6. kill -9 in mid-copy, between the two `complete`, and right after the last 200; each time backups continue.
7. Steps 2 to 4 with client 1.0.1, through the main port.
8. The client's pattern beside `qemu-nbd`, interleaved and timed to durability; the ratio is printed.

## The rows

| row | requirement | proved by |
|---|---|---|
"""


def is_expected_to_fail(test):
    return any(getattr(decorator, "attr", "") == "expectedFailure" for decorator in test.decorator_list)


def python_tests(expected_to_fail=False):
    """(row, test) of the tests that must pass, or of those that must fail."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                if is_expected_to_fail(node) != expected_to_fail:
                    continue
                for row in ROW.findall(ast.get_docstring(node) or ""):
                    yield int(row), f"`{path.relative_to(ROOT)}` {node.name}"


def cpp_tests():
    for path in sorted((ROOT / "tests").rglob("*.cc")):
        text = path.read_text()
        of_suite = {suite: row for row, suite in SUITE_ROW.findall(text)}
        for before, suite, name, after in GTEST.findall(text):
            rows = ROW.findall(before + after) + NAMED_ROW.findall(name)
            for row in rows + ([of_suite[suite]] if suite in of_suite else []):
                yield int(row), f"`{path.relative_to(ROOT)}` {suite}.{name}"


def by_row(tests):
    rows = {row: [] for row in ROWS}
    for row, test in tests:
        if row in rows and test not in rows[row]:
            rows[row].append(test)
    return rows


def table():
    proofs = by_row([*python_tests(), *cpp_tests()])
    missing = by_row(python_tests(expected_to_fail=True))
    lines = []
    for row in ROWS:
        words = sorted(proofs[row]) or [NO_TEST.get(row, "")]
        if missing[row]:
            words.append(f"not yet: {', '.join(sorted(missing[row]))}")
        lines.append(f"| A{row} | {TEXT[row]} | {'<br>'.join(words)} |\n")
    return proofs, HEAD + "".join(lines)


class Acceptance(unittest.TestCase):
    def test_every_row_has_a_test_that_carries_its_number(self):
        proofs, _ = table()
        missing = [f"A{row}" for row in ROWS if not proofs[row] and row not in NO_TEST]
        self.assertEqual(missing, [])

    def test_a_test_that_is_expected_to_fail_proves_nothing(self):
        for row, test in python_tests(expected_to_fail=True):
            line = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"| A{row} |"))
            self.assertIn("not yet: ", line.partition(test)[0], line)

    def test_every_row_has_a_text(self):
        self.assertEqual(list(TEXT), list(ROWS))

    def test_the_page_says_what_the_tests_say(self):
        self.assertEqual(PAGE.read_text(), table()[1], "run tests/test_acceptance.py --write")


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(table()[1])
    else:
        run.main()
