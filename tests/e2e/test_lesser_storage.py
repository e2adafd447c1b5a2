#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Backups onto a file system that lacks what local ones have: no RENAME_NOREPLACE, no hard links.

A FUSE file system of the tests' own (support/lesser_file_system.cc); skipped, with the reason, where
it cannot be built or mounted.
"""

import os
import signal
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import qemu, run, scratch  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402


class LesserStorage(HubCase):
    """Repository `lesser` lies on the FUSE file system, repository `1` elsewhere."""

    def mount(self, *lacks):
        program = os.environ.get("LESSER_FILE_SYSTEM")
        if not program:
            self.skipTest("built without libfuse3, or LESSER_FILE_SYSTEM is not set")
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            self.skipTest("/dev/fuse cannot be used here")
        self.files, self.path = self.dir / "files", self.dir / "lesser"
        self.files.mkdir()
        self.path.mkdir()
        done = subprocess.run([program, self.files, self.path, *lacks], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            self.skipTest(f"no FUSE mount here: {done.stderr}")
        self.addCleanup(subprocess.run, ["umount", self.path], check=True)
        self.addCleanup(self.hub.close)  # it holds files there
        body = {"id": "lesser", "name": "lesser", "type": "local", "enabled": True, "config": {"path": str(self.path)}}
        answer = self.hub.api("POST", "/repositories", body)
        self.assertEqual(answer.status, 201, answer)
        return answer.body

    def back_up_and_restart(self):
        self.register("vm", [8 * MIB])
        self.quick_backup("vm", ["u/1"], writes=[(0, b"first" * 1000), (4 * MIB, b"\x5a" * MIB)], repository_id="lesser")
        self.quick_backup("vm", ["u/2"], "incremental", writes=[(MIB, b"second" * 1000)], repository_id="lesser")
        images = self.images("vm", repository_id="lesser")
        self.assertEqual(len(images), 2)
        self.hub.kill()
        self.hub.start()
        self.assertEqual(self.images("vm", repository_id="lesser"), images)
        content = bytearray(8 * MIB)
        content[:5000] = b"first" * 1000
        content[4 * MIB : 5 * MIB] = b"\x5a" * MIB
        self.verify(images[0], content)
        content[MIB : MIB + 6000] = b"second" * 1000
        self.verify(images[1], content)
        self.assertEqual(list(self.files.rglob("*.partial")), [])
        self.assertEqual(list(self.files.rglob("*.new")), [])

    def verify(self, image, content):
        raw = self.dir / "expected.raw"
        raw.write_bytes(content)
        qemu.verify(self.files / image.relative_to(self.path), raw)  # below: qemu cannot do without locks

    def test_a_chain_is_written_where_rename_takes_no_flags(self):
        self.mount("--no-rename-flags")
        self.back_up_and_restart()

    def test_a_chain_is_written_where_there_are_no_hard_links_either(self):
        self.mount("--no-rename-flags", "--no-hard-links", "--no-symlinks")
        self.back_up_and_restart()

    def test_a_chain_is_written_without_direct_access_space_ahead_and_locks(self):
        self.mount("--no-rename-flags", "--no-direct", "--no-allocate", "--no-punch", "--no-locks")
        self.back_up_and_restart()

    def test_what_is_missing_is_reported_and_kept(self):
        self.mount("--no-locks", "--no-punch")
        for method, path in (("POST", "/repositories/lesser/test"), ("GET", "/repositories/lesser")):
            answer = self.hub.api(method, path).body
            found = answer.get("repository", answer)["capabilities"]
            missing = {name for name, ability in found.items() if not ability["supported"]}
            self.assertEqual(missing, {"locks", "punch_holes"}, found)
            self.assertTrue(all(found[name]["consequence"] for name in missing), found)

    def test_one_that_does_not_answer_is_unavailable_and_stops_nothing_else(self):
        self.mount()
        self.register("vm", [MIB])
        self.register("other", [MIB])
        self.quick_backup("vm", ["u/1"], repository_id="lesser")
        stuck = self.start("vm", repository_id="lesser")
        server = self.server_of_the_mount()
        self.addCleanup(os.kill, server, signal.SIGCONT)
        os.kill(server, signal.SIGSTOP)

        def cause():
            answer = self.hub.get("/repositories/lesser").body
            return answer.get("repository", answer).get("unavailable_reason", "")

        scratch.wait_until(lambda: "does not answer" in cause(), 40, "the silent repository is unavailable")
        self.quick_backup("other", ["o/1"])
        self.assertEqual(self.post("vm", "incremental", "lesser").status, 503)
        os.kill(server, signal.SIGCONT)
        scratch.wait_until(lambda: not cause(), 40, "the repository is available again")
        self.write_and_complete(stuck, 0, "u/2")
        self.assertEqual(self.job(stuck["backup_id"])["status"], "completed")

    def server_of_the_mount(self):
        """The process behind the FUSE mount."""
        found = subprocess.run(["pgrep", "-f", f"lesser.* {self.files} "], capture_output=True, text=True, check=True)
        [pid] = found.stdout.split()
        return int(pid)

    def test_a_file_system_that_loses_bytes_is_not_registered(self):
        with self.assertRaisesRegex(AssertionError, "find what was written in"):
            self.mount("--wrong-bytes")


if __name__ == "__main__":
    run.main()
