#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A password that varve is given is in no log line, no answer, no line of the audit log, and in no file but
the private one."""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import image_server, run, scratch  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.daemon import binary  # noqa: E402

SECRET = "t0p-s3cret"
READ = ("/vm-contexts", "/vm-contexts/vm", "/backups", "/backups/chain?vm_name=vm", "/points", "/nbd/exports",
        "/repositories", "/restores")  # fmt: skip


class Secrets(HubCase):
    options = {"log_level": "debug"}

    def assert_kept(self, *texts):
        for path in READ:
            self.assertNotIn(SECRET, self.hub.get(path).text, path)
        for job in self.hub.get("/backups").body["backups"]:
            for more in ("", "/disks"):
                self.assertNotIn(SECRET, self.hub.get(f"/backups/{job['backup_id']}{more}").text)
        self.assertNotIn(SECRET, self.hub.root("/metrics").text)
        self.assertNotIn(SECRET, self.hub.log)
        for text in texts:
            self.assertNotIn(SECRET, text)
        self.assertTrue((self.hub.directory / "audit.jsonl").stat().st_size)
        holders = {path.name for path in self.hub.directory.rglob("*")
                   if path.is_file() and SECRET.encode() in path.read_bytes()}  # fmt: skip
        self.assertLessEqual(holders, {"catalogue.db.secrets"})

    def test_that_of_a_registration_goes_to_the_node_and_nowhere_else(self):
        credentials = {"username": "backup", "password": SECRET}
        self.register("vm", [MIB], credentials=credentials)
        self.quick_backup("vm", ["u/1"])
        self.assertEqual(self.node.calls[-1]["vcenter_password"], SECRET)
        self.node.mode = "broken"
        self.assertNotEqual(self.post("vm").status, 200)
        wrong = self.hub.register("vm", [513], credentials=credentials)  # refused: the text repeats what it was given
        self.assertEqual(wrong.status, 400, wrong)
        unread = self.hub.api("PUT", "/vm-contexts/vm", raw=f'{{"credentials":{{"password":"{SECRET}"'.encode())
        self.assertEqual(unread.status, 400, unread)
        self.assert_kept(wrong.text, unread.text)

    def test_that_of_an_nbd_uri_of_a_pull_or_a_restore_is_in_nothing_that_the_server_keeps_or_says(self):
        image = self.dir / "source.qcow2"
        image_server.create(image, MIB)
        server = image_server.ImageServer(image, port=scratch.free_port()).wait()
        self.addCleanup(server.close)
        source = server.uri.replace("nbd://", f"nbd://user:{SECRET}@")
        self.assertIn(SECRET, source)
        for status in (0, 1):
            for words in (("pull", "vm", "--disk", f"0={source}"), ("restore", "vm", "--to", source, "--force")):
                for more in ((), ("--json",)):
                    self.assertNotIn(SECRET, self.run_varve(*words, *more, status=status))
            server.close()  # what fails has a text
        self.assert_kept()

    def test_that_of_a_url_that_is_refused_is_not_repeated(self):
        for words in (("serve", "--node-url"), ("restore", "vm", "--to", "x.raw", "--server")):
            done = subprocess.run([binary(), *words, f"http://u:{SECRET}@127.0.0.1:1"], capture_output=True, text=True,
                                  timeout=20, check=False)  # fmt: skip
            self.assertEqual(done.returncode, 2, done)
            self.assertIn("it has a user name before the host", done.stderr)
            self.assertNotIn(SECRET, done.stdout + done.stderr)

    def run_varve(self, *words, status):
        command = [binary(), *words, "--server", self.hub.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, status, done)
        return done.stdout + done.stderr


if __name__ == "__main__":
    run.main()
