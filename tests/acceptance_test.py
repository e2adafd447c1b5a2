#!/usr/bin/python3
"""docs/acceptance.md names, for each row of the acceptance table, the tests that carry its number.

Run with --write to make the table anew from the tests."""
import ast
import pathlib
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from support import run  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "acceptance.md"
ROW = re.compile(r"\bA([1-9][0-9]?)\b")
ROWS = range(1, 55)
GTEST = re.compile(r"((?://[^\n]*\n\s*)*)TEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\)\s*\{((?:\s*//[^\n]*\n)*)")
NAMED_ROW = re.compile(r"(?<![A-Za-z])A([1-9][0-9]?)(?=[A-Z])")
SUITE_ROW = re.compile(r"///[^\n]*\bA([1-9][0-9]?)\b[^\n]*\n(?:///[^\n]*\n)*class (\w+)")
# What no test of its own proves waits for a later issue, or is the whole suite.
NO_TEST = {
    39: "unchanged data is stored again until checksums and verification come",
    54: "`scripts/test` and `scripts/test --sanitize` run the whole suite",
}
HEAD = """# Acceptance

Which test proves which row of the acceptance table. Made from the tests by
`tests/acceptance_test.py --write`, and checked by the same file in `scripts/test`. A row whose tests
are all expected to fail says "not yet".

| row | proved by |
|---|---|
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
        lines.append(f"| A{row} | {'<br>'.join(words)} |\n")
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

    def test_the_page_says_what_the_tests_say(self):
        self.assertEqual(PAGE.read_text(), table()[1], "run tests/acceptance_test.py --write")


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(table()[1])
    else:
        run.main()
