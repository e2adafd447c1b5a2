#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every rule that code and tests cite has a row in its document, every test that a row names exists, and so
does every document and heading that a file names."""
import ast
import pathlib
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from harness import run  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
FAMILIES = {
    "docs/qcow2-rules.md": "HD FB HX VR LT WP CP RF LM DU PU LK BC LQ".split(),
    "docs/nbd-support.md": "H O F C P M B T L X X- D K Q".split(),
    "tests/acceptance.md": ["A"],
}
ALSO_TABLES = {"L1", "L2"}  # of an image
OF_OTHERS = {"doc/proto.md"}  # the NBD protocol
FOLDERS = "api app bench contrib docs engine io nbd qcow tests".split()
SUFFIXES = {".cc", ".h", ".py", ".build", ".md"}
CITED = re.compile(r"(?<![\w.%&*/-])([A-Z]{1,2}-?)([0-9]{1,2})(?![\w.])")
RANGE = re.compile(r"(?<![\w-])([A-Z]{1,2})([0-9]{1,2})[–-]\1([0-9]{1,2})(?![\w.])")
IN_A_NAME = re.compile(r"(?<![A-Za-z0-9])([A-Z][a-z]?)([0-9]{1,2})(?=[A-Z][a-z])")
ROW = re.compile(r"^\| ([A-Z]{1,2}-?[0-9]{1,2}) \| .* \| (.*) \|$", re.M)
GTEST = re.compile(r"TEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\)")
DOCUMENT = re.compile(r"(?<![\w./-])((?:[\w.-]+/)*[\w-]+\.md)\b")
HEADING = re.compile(r'([\w/-]+\.md), (?:"([^"]+)"|([0-9]+))')
NEXT_LINE = re.compile(r"\n\s*(?:///?|#)?\s*")


def files():
    """(path, text) of what people write: no results, and nothing that was built."""
    paths = set(ROOT.glob("*.*")) | set((ROOT / "scripts").glob("*"))
    for folder in FOLDERS:
        paths |= {path for path in (ROOT / folder).rglob("*.*") if path.suffix in SUFFIXES}
    for path in sorted(paths):
        if path.is_file() and (path.suffix in SUFFIXES or path.parent.name == "scripts"):
            yield path, path.read_text()


def ids(text):
    found = {family + number for family, number in CITED.findall(text)}
    found |= {family.upper() + number for family, number in IN_A_NAME.findall(text)}
    for family, first, last in RANGE.findall(text):
        found |= {f"{family}{number}" for number in range(int(first), int(last) + 1)}
    return found


def rows(page):
    return dict(ROW.findall((ROOT / page).read_text()))


def known_tests():
    """Names of tests, as the rows write them: of GoogleTest and of unittest, their suites and their files."""
    names = set()
    for path in (ROOT / "tests").rglob("*.cc"):
        for suite, test in GTEST.findall(path.read_text()):
            names |= {suite, f"{suite}.{test}"}
    for path in (ROOT / "tests").rglob("*.py"):
        names.add(path.name)
        for group in ast.walk(ast.parse(path.read_text())):
            if isinstance(group, ast.ClassDef):
                tests = {node.name for node in group.body if isinstance(node, ast.FunctionDef)}
                names |= {group.name} | tests | {f"{group.name}.{test}" for test in tests}
                names |= {f"{path.name} {test}" for test in tests}
    return names


def tests_of(cell):
    yield from re.findall(r"`(\w+(?:\.\w+)?…?)`", cell)
    for file, test in re.findall(r"`(?:[\w/]+/)?(\w+\.py)` (test_\w+)", cell):
        yield f"{file} {test}"


def exists(test, known):
    return any(name.startswith(test[:-1]) for name in known) if test.endswith("…") else test in known


class Rules(unittest.TestCase):
    def test_every_id_has_a_row(self):
        page_of = {family: page for page, families in FAMILIES.items() for family in families}
        written = {page: rows(page) for page in FAMILIES}
        missing = []
        for path, text in files():
            for name in ids(text) - ALSO_TABLES:
                page = page_of.get(name.rstrip("0123456789"))
                if page and name not in written[page]:
                    missing.append(f"{path.relative_to(ROOT)}: {name} has no row in {page}")
        self.assertEqual(sorted(missing), [])

    def test_every_row_names_tests_that_exist(self):
        known, missing = known_tests(), []
        for page in FAMILIES:
            for name, cell in rows(page).items():
                missing += [f"{page}: {name} is shown by {test}" for test in tests_of(cell) if not exists(test, known)]
                if not cell.strip():
                    missing.append(f"{page}: {name} names no test, nor — for none")
        self.assertEqual(missing, [])


class Documents(unittest.TestCase):
    def setUp(self):
        self.documents = {path: text for path, text in files() if path.suffix == ".md"}

    def named(self, path, name):
        """From the root or from the file that names it; without a folder it may be anywhere."""
        places = [ROOT / name, (path.parent / name).resolve()]
        return next((place for place in self.documents if place in places or place.name == name), None)

    def test_no_file_names_a_document_that_is_not_in_the_tree(self):
        missing = [f"{path.relative_to(ROOT)} names {name}" for path, text in files()
                   for name in set(DOCUMENT.findall(text)) - OF_OTHERS if not self.named(path, name)]  # fmt: skip
        self.assertEqual(missing, [])

    def test_every_heading_that_a_file_names_is_there(self):
        missing = []
        for path, text in files():
            for name, heading, number in HEADING.findall(NEXT_LINE.sub(" ", text)):
                if name in OF_OTHERS:
                    continue
                document = self.named(path, name)
                headings = re.findall(r"^##+ (?:([0-9]+)\. )?(.*)$", self.documents.get(document, ""), re.M)
                if not any(number == found[0] if number else heading == found[1] for found in headings):
                    missing.append(f"{path.relative_to(ROOT)}: {name} has no heading {heading or number}")
        self.assertEqual(missing, [])


if __name__ == "__main__":
    run.main()
