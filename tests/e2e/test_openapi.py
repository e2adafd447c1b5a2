#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What others say of /openapi.json: Redocly's linter, and a validator of the OpenAPI 3.1 schema."""

import json
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run, scratch  # noqa: E402
from harness.daemon import Daemon  # noqa: E402

# Versions that are known to run on Node 20; another one may ask for a newer Node, or other rules.
LINTER, VALIDATOR = "@redocly/cli@2.77.0", "@seriousme/openapi-schema-validator@2.11.0"
RULES = Path(__file__).resolve().parent / "redocly.yaml"
INSTALL_SECONDS = 240


class OpenApi(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not shutil.which("npm") or not shutil.which("node"):
            raise unittest.SkipTest("no npm here: the validators are Node programs")
        cls.dir = cls.enterClassContext(scratch.directory())
        install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--engine-strict", "--no-save"]
        done = subprocess.run([*install, "--prefix", cls.dir, LINTER, VALIDATOR], capture_output=True, text=True,
                              timeout=INSTALL_SECONDS, cwd=cls.dir, check=False)  # fmt: skip
        if done.returncode != 0:
            raise unittest.SkipTest(f"the validators cannot be installed: {done.stderr.strip()[:300]}")
        hub = Daemon(cls.dir / "hub")
        cls.addClassCleanup(hub.close)
        hub.start()
        cls.document = cls.dir / "openapi.json"
        cls.document.write_text(hub.root("/openapi.json").text)

    def tool(self, name, *words):
        command = [self.dir / "node_modules" / ".bin" / name, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=self.dir, check=False,
                              env={"PATH": "/usr/local/bin:/usr/bin:/bin", "REDOCLY_TELEMETRY": "off",
                                   "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "HOME": str(self.dir)})  # fmt: skip

    def lint(self, document):
        return self.tool("redocly", "lint", "--config", RULES, "--format", "json", document)

    def test_the_linter_finds_nothing(self):
        found = self.lint(self.document)
        said = json.loads(found.stdout)
        self.assertEqual(said["totals"]["errors"], 0, found.stdout)
        self.assertEqual(said["totals"]["warnings"], 0, found.stdout)
        self.assertEqual(found.returncode, 0, found.stderr)

    def test_the_validator_of_the_schema_takes_it(self):
        said = json.loads(self.tool("validate-api", self.document).stdout)
        self.assertTrue(said["valid"], said)

    def test_both_would_say_no(self):
        broken = json.loads(self.document.read_text())
        broken["paths"]["/api/v1/backups"]["get"]["parameters"][0]["in"] = "nowhere"
        path = self.dir / "broken.json"
        path.write_text(json.dumps(broken))
        self.assertNotEqual(self.lint(path).returncode, 0)
        self.assertFalse(json.loads(self.tool("validate-api", path).stdout)["valid"])


if __name__ == "__main__":
    run.main()
