#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The licence is there, and every file of source says it in the form that tools read (spdx.dev/ids)."""
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from harness import run  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINE = "SPDX-License-Identifier: Apache-2.0"
# How a comment begins, by the end of the name; where there is no such end, a script by its first line.
COMMENT = {
    ".cc": "//", ".h": "//", ".js": "//", ".mjs": "//", ".css": "/*", ".html": "<!--", ".sql": "--",
    ".py": "#", ".sh": "#", ".pm": "#", ".build": "#", "meson_options.txt": "#", ".yaml": "#", ".yml": "#", ".toml": "#",
    ".service.in": "#", ".socket.in": "#", ".sysusers": "#", ".tmpfiles": "#", ".supp": "#", ".bash": "#", ".fish": "#",
}  # fmt: skip


def files():
    """What git knows; without git, what is there and was not built."""
    asked = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False)
    if asked.returncode == 0:
        return [ROOT / name for name in asked.stdout.splitlines() if name[0] != "." and (ROOT / name).is_file()]
    found = []
    for path in ROOT.rglob("*"):
        top = path.relative_to(ROOT).parts[0]
        if path.is_file() and not top.startswith(("build", ".")):
            found.append(path)
    return found


def comment_of(path):
    """What begins a comment in that file; None for one that is no source."""
    if "corpus" in path.parts:
        return None
    for ending, comment in COMMENT.items():
        if path.name.endswith(ending):
            return comment
    with open(path, "rb") as file:
        return "#" if file.read(2) == b"#!" else None


class Licence(unittest.TestCase):
    def test_the_text_is_that_of_apache_2_0(self):
        text = (ROOT / "LICENSE").read_text()
        self.assertIn("Apache License\n                           Version 2.0, January 2004", text)
        self.assertIn("END OF TERMS AND CONDITIONS", text)

    def test_every_source_says_so_in_its_first_comment(self):
        without = []
        for path in files():
            comment = comment_of(path)
            if comment is None:
                continue
            head = path.read_text(errors="replace").splitlines()[:2]
            if not any(line.startswith(f"{comment} {LINE}") for line in head):
                without.append(str(path.relative_to(ROOT)))
        self.assertEqual(without, [], f"their first line, or the second one after #!, is to be: {LINE}")


if __name__ == "__main__":
    run.main()
