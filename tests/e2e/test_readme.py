#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""README's commands, executed as they are printed, in a network and a directory of the test's own."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import private_network, run, scratch, sources  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.daemon import ROOT, binary  # noqa: E402

FENCE = "```"
# Whole programs of their own, and what would use the machine's own state directory.
NOT_HERE = ("scripts/install-packages",)
# Names that only an example has, and what they are in this test.
BACKUP_ID = "backup-web01-1759913694"
BACKUP = r"backup-web01-\d+"
TOOLS = ("nbdcopy", "nbdinfo", "nbdsh", "psktool", "qemu-img", "qemu-system-x86_64")
PAGE = "http://127.0.0.1:8082/"


def setUpModule():
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    why_not = f"not installed: {missing}" if missing else private_network.enter()
    if why_not:
        raise unittest.SkipTest(why_not)


def fenced(wanted):
    """The text between fences that name this language."""
    pieces = re.split(rf"^{FENCE}(\w*)\n", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    return [text for language, text in zip(pieces[1::4], pieces[2::4]) if language == wanted]


def blocks():
    """Commands for a reader without VMware."""
    return [text for text in fenced("") if not text.startswith(NOT_HERE)]


def is_server(line):
    """Serves until a signal, so that its reader opens another terminal."""
    words = line.split("#")[0].split()
    foreground = {"--run", "--fork", "--list", "["}.isdisjoint(words)
    return len(words) > 1 and words[0].endswith("varve") and words[1] in ("serve", "nbd") and foreground


class Readme(unittest.TestCase):
    def setUp(self):
        self.dir = self.enterContext(scratch.directory())
        (self.dir / "build" / "app").mkdir(parents=True)
        (self.dir / "build" / "app" / "varve").symlink_to(binary())
        (self.dir / "scripts").symlink_to(ROOT / "scripts")
        self.socket = Path("/tmp/monday.sock")
        self.assertFalse(self.socket.exists(), "another program's")
        self.environment = {
            **os.environ,
            "PATH": f"{self.dir}/build/app:/usr/bin:{os.environ['PATH']}",
            "HOME": str(self.dir),
        }
        # One shell for all, as a reader has: variables stay.
        self.script = ["set -euo pipefail"]
        self.servers = []
        self.addCleanup(self.end_servers)

    def bash(self, text):
        """Runs `text` after what was set before; commands of earlier blocks are not repeated."""
        settings = "\n".join(self.script)
        done = subprocess.run(
            ["bash", "-c", f"{settings}\n{text}"], cwd=self.dir, env=self.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, f"{text}\n{done.stdout}{done.stderr}")
        self.script += [line for line in text.splitlines() if re.match(r"^\w+=\S+$", line)]
        return done.stdout

    def serve(self, line):
        log = self.dir / f"server-{len(self.servers)}.log"
        with open(log, "wb") as file:
            command = ["bash", "-c", f"exec {line}"]
            process = subprocess.Popen(command, cwd=self.dir, env=self.environment, stdout=file, stderr=file)
        self.servers.append(process)

        def serves():
            self.assertIsNone(process.poll(), f"{line}\n{log.read_text()}")
            return "is ready" in log.read_text() or "serving" in log.read_text()

        scratch.wait_until(serves, 30, f"{line} serves")
        return process

    def end_servers(self):
        for process in self.servers:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                self.assertEqual(process.wait(30), 0)
        self.servers.clear()

    def run_block(self, text):
        """Server lines keep running beside the lines that follow them."""
        pending = []
        output = ""
        for line in text.splitlines():
            if not is_server(line):
                pending.append(line)
                continue
            output += self.bash("\n".join(pending))
            pending = []
            self.serve(line)
        return output + self.bash("\n".join(pending))

    def block(self, beginning):
        return next(text for text in blocks() if beginning in text)

    def make_first_backup(self):
        self.run_block(self.block("varve serve --repository"))
        return self.run_block(self.block("varve vm add web01"))

    def test_every_block_is_executed_here_or_named_as_left_out(self):
        tested = ["varve serve --repository", "--checkpoint monday\n", "--since monday", "varve create", "psktool", "varve check monday",
                  "varve rebuild", "varve restore", "varve verify"]  # fmt: skip
        for text in blocks():
            self.assertTrue(any(beginning in text for beginning in tested), text)

    def test_a_newcomers_first_ten_minutes_work_as_printed(self):
        begun = time.monotonic()
        self.make_first_backup()
        listed = self.run_block(self.block("--since monday"))
        self.assertEqual((listed.count(" full "), listed.count(" incremental ")), (1, 1), listed)
        booted = self.run_block(self.block("varve restore"))
        self.assertIn("It is Tuesday.", booted)
        self.assertIn("completed: 2 images", self.run_block(self.block("varve verify")))
        self.assertLess(time.monotonic() - begun, 60)
        self.bash("qemu-img compare -f raw disk.raw -F qcow2 restored.qcow2")
        with urllib.request.urlopen(PAGE, timeout=10) as page:
            self.assertIn("text/html", page.headers["Content-Type"])

    def test_an_older_point_is_restored_by_its_time_or_id(self):
        self.make_first_backup()
        first = json.loads(self.bash("varve list web01 --json"))
        self.run_block(self.block("--since monday"))
        backup_id = re.search(BACKUP, json.dumps(first))[0]
        self.bash(f"varve restore web01@{backup_id} --to monday.raw")
        self.assertIn(b"It is Monday.", (self.dir / "monday.raw").read_bytes()[:512])

    def test_one_image_is_served_checked_and_served_with_tls(self):
        self.bash("scripts/demo-disk disk.raw")
        listed = self.run_block(self.block("varve create"))
        self.assertIn("monday", listed)
        self.end_servers()
        self.run_block(self.block("psktool"))
        self.end_servers()
        check = self.block("varve check monday").splitlines()
        self.assertIn("monday.qcow2: clean", self.bash(check[0]))

    def test_a_backup_is_checked_by_its_id_and_the_catalogue_rebuilt(self):
        self.make_first_backup()
        job_id = re.search(BACKUP, self.bash("varve list web01"))[0]
        (self.dir / "varve.toml").write_text('repository = "points"\ncatalogue = "varve.db"\n')
        check = self.block("varve check monday").splitlines()[1].partition("#")[0]
        self.assertIn(": clean", self.bash(check.replace(BACKUP_ID, job_id) + " --config varve.toml"))
        self.end_servers()
        for path in self.dir.glob("varve.db*"):
            path.unlink()
        rebuild = self.block("varve rebuild").partition("#")[0]
        said = self.bash(rebuild.replace("/backup/repository", "points").strip() + " --catalogue varve.db")
        self.assertIn("1 VM, 1 backup, 1 image ", said)


class Vmware(HubCase):
    """The way with VMware, whose node and client are the tests' own."""

    SIZE_IN_README, SIZE = "40G", 64 * MIB

    def setUp(self):
        config = self.enterContext(scratch.directory()) / "varve.toml"
        [settings] = fenced("toml")
        config.touch(0o600)
        config.write_text(settings[settings.index("[secrets") :])
        self.options = {"config": config}
        super().setUp()

    def test_a_full_and_an_incremental_work_as_printed(self):
        [commands] = fenced("sh")
        [disk] = sources.make_sources(self.dir, [self.SIZE])
        self.node.on_start = self.starter
        environment = {**os.environ, "VARVE_URL": self.hub.url, "PATH": f"{Path(binary()).parent}:{os.environ['PATH']}"}
        for line in commands.strip().replace(self.SIZE_IN_README, str(self.SIZE)).splitlines():
            self.starter.plan_for([disk])
            done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, timeout=120,
                                  check=False)  # fmt: skip
            self.assertEqual(done.returncode, 0, f"{line}\n{done.stdout}{done.stderr}{self.hub.log[-3000:]}")
            disk.advance(seed=len(self.node.calls))
        types = [backup["backup_type"] for backup in self.hub.get("/backups", status="completed").body["backups"]]
        self.assertEqual(types, ["incremental", "full"])
        self.assertEqual([call["vcenter_user"] for call in self.node.calls], ["backup", "backup"])


if __name__ == "__main__":
    run.main()
