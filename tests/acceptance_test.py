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
# What has no test of its own waits for a later issue, or is the whole suite.
NO_TEST = {
    39: "unchanged data is not stored: comes with checksums and verification",
    54: "`scripts/test` and `scripts/test --sanitize` run the whole suite",
}
HEAD = """# Acceptance

Which test proves which row of the acceptance table. Made from the tests by
`tests/acceptance_test.py --write`, and checked by the same file in `scripts/test`.

| row | proved by |
|---|---|
"""


def python_tests():
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
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


def table():
    proofs = {row: [] for row in ROWS}
    for row, proof in [*python_tests(), *cpp_tests()]:
        if row in proofs and proof not in proofs[row]:
            proofs[row].append(proof)
    lines = []
    for row in ROWS:
        proved = "<br>".join(sorted(proofs[row])) or NO_TEST.get(row, "")
        lines.append(f"| A{row} | {proved} |\n")
    return proofs, HEAD + "".join(lines)


class Acceptance(unittest.TestCase):
    def test_every_row_has_a_test_that_carries_its_number(self):
        proofs, _ = table()
        missing = [f"A{row}" for row in ROWS if not proofs[row] and row not in NO_TEST]
        self.assertEqual(missing, [])

    def test_the_page_says_what_the_tests_say(self):
        self.assertEqual(PAGE.read_text(), table()[1], "run tests/acceptance_test.py --write")


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(table()[1])
    else:
        run.main()
