#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The recipes of docs/restore.md, as they stand there, on a point that holds an ext4 file system."""

import os
import re
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import machine, run, sources  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402

PAGE = Path(__file__).resolve().parents[2] / "docs" / "restore.md"
SIZE = 32 * MIB


def blocks_of(heading):
    """The commands of a section, block by block."""
    section = PAGE.read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


class Recipes(HubCase):
    def setUp(self):
        if reason := machine.why_not():
            self.skipTest(reason)
        super().setUp()
        path = self.dir / "disk.raw"
        machine.make_disk(path, SIZE, self.dir)
        self.disk = sources.Source(path, SIZE, 2000, sources.vmware_uuid(7))
        self.register("web01", [SIZE])
        self.client_backup("web01", [self.disk])
        [point] = self.hub.get("/points", vm_name="web01", point="latest").body["points"]
        self.uri = point["uris"][0]
        self.work = self.dir / "work"
        self.work.mkdir()

    def run_words(self, words, timeout=60):
        """As a shell reads them; what goes into the background has a second to come up."""
        script = "set -e\n" + words.replace("&\n", ">/dev/null 2>&1 &\nsleep 1\n")
        done = subprocess.run(["sh", "-c", script], cwd=self.work, env={**os.environ, "URI": self.uri}, timeout=timeout,
                              capture_output=True, text=True, check=False)  # fmt: skip
        self.assertEqual(done.returncode, 0, f"{words}\n{done.stdout}{done.stderr}")
        return done.stdout

    def test_a_copy_by_each_tool_equals_the_source(self):
        [block] = blocks_of("With other tools")
        said = [self.run_words(line) for line in block.splitlines()]
        self.assertEqual(len(said), 4)
        self.assertEqual(subprocess.run(["cmp", self.disk.path, self.work / "web01.raw"], check=False).returncode, 0)
        compared = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", self.disk.path, self.work / "web01.qcow2"]
        self.assertEqual(subprocess.run(compared, check=False, capture_output=True).returncode, 0)
        self.assertIn("Images are identical", said[2])
        self.assertRegex(said[3], r"(?m)^ +0 +\d+ +0 +data$")

    def test_one_file_comes_out_of_a_point(self):
        by_7z, by_guestfish, by_device = blocks_of("One file out of a point")
        if Path("/dev/fuse").exists():
            self.addCleanup(subprocess.run, ["fusermount3", "-uqz", self.work / "point"], check=False)
            listed = self.run_words(by_7z)
            self.assertIn("etc/increment", listed)
            self.assertEqual((self.work / "increment").read_text(), "0\n")
        if shutil.which("guestfish"):
            self.assertEqual(self.run_words(by_guestfish, timeout=300), "0\n")
        if Path("/dev/nbd0").exists() and os.geteuid() == 0:
            self.assertIn("0\n", self.run_words(by_device))

    def test_the_uri_needs_no_change(self):
        self.assertEqual(urllib.parse.urlsplit(self.uri).scheme, "nbd")


if __name__ == "__main__":
    run.main()
