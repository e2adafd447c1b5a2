#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""HTTP beyond loopback: a token and TLS, or the word that they are not meant. In a network of the test's own."""

import signal
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import private_network, run, scratch, tls_files  # noqa: E402
from harness.daemon import Daemon, http  # noqa: E402


OTHER_HOST = "192.0.2.7"


def setUpModule():
    why_not = private_network.enter()
    if why_not:
        raise unittest.SkipTest(why_not)
    # A peer that comes from here is not of loopback.
    subprocess.run(["ip", "address", "add", f"{OTHER_HOST}/32", "dev", "lo"], check=True, timeout=20)


class HttpBeyondLoopback(unittest.TestCase):
    def serve(self, said, **options):
        """`said` is the rest of the configuration file."""
        self.dir = self.enterContext(scratch.directory())
        config = self.dir / "varve.toml"
        config.write_text(said)
        self.hub = hub = Daemon(self.dir / "hub", http="0.0.0.0:0", config=config, **options)
        self.addCleanup(hub.close)
        hub.start()
        self.port = hub.ready["http"].rsplit(":", 1)[1]

    def status(self, host="127.0.0.1", **headers):
        url = f"http://{host}:{self.port}/api/v1/backups"
        return http("GET", url, headers=headers).status

    def test_whoever_has_the_token_is_served_under_any_name(self):
        self.serve("allow_plain_http = true\n", api_token="t")
        self.assertEqual(self.status(), 401)
        self.assertEqual(self.status(Authorization="Bearer t", Host="any.example"), 200)

    def test_with_a_token_tls_is_needed_from_other_hosts_and_not_from_loopback(self):
        files = tls_files.Authority(Path(self.enterContext(scratch.directory())) / "ca").server(
            Path(self.enterContext(scratch.directory())))  # fmt: skip
        self.serve("", api_token="t", tls_certificates=files)
        self.assertEqual(self.status(Authorization="Bearer t"), 200)
        self.assertEqual(self.status(OTHER_HOST, Authorization="Bearer t"), 400)
        command = ["curl", "-sS", "--cacert", files / "ca-cert.pem", "--max-time", "20", "-o", "/dev/null", "-w",
                   "%{http_code}", "-H", "Authorization: Bearer t", "--connect-to", f"localhost::{OTHER_HOST}:",
                   f"https://localhost:{self.port}/api/v1/backups"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual(done.stdout, "200", done.stderr)

    def test_whether_other_hosts_may_do_without_tls_waits_for_a_restart(self):
        """New certificates are followed by the same SIGHUP."""
        files = tls_files.Authority(Path(self.enterContext(scratch.directory())) / "ca").server(
            Path(self.enterContext(scratch.directory())))  # fmt: skip
        self.serve("", api_token="t", tls_certificates=files)
        for said, status in (("allow_plain_http = true\n", 400), ("", 400)):
            (self.dir / "varve.toml").write_text(said)
            before = len(self.hub.log)
            self.hub.process.send_signal(signal.SIGHUP)
            scratch.wait_until(lambda: "takes effect while varve runs" in self.hub.log[before:], 10, "the file is read")
            self.assertEqual(self.status(OTHER_HOST, Authorization="Bearer t"), status)
            restart = "changed, but in force only after a restart: allow-plain-http\n" in self.hub.log[before:]
            self.assertEqual(restart, bool(said), self.hub.log[before:])
        (self.dir / "varve.toml").write_text("allow_plain_http = true\n")
        self.hub.stop()
        self.hub.start()
        self.port = self.hub.ready["http"].rsplit(":", 1)[1]
        self.assertEqual(self.status(OTHER_HOST, Authorization="Bearer t"), 200)

    def test_each_of_them_is_missed(self):
        directory = Path(self.enterContext(scratch.directory()))
        files = tls_files.Authority(directory / "ca").server(directory / "tls")
        for options, missed in (
            ({"api_token": "t"}, "--allow-plain-http"),
            ({"tls_certificates": files}, "--allow-no-token"),
        ):
            hub = Daemon(directory / "hub", http="0.0.0.0:0", **options)
            hub.launch()
            self.assertEqual(hub.wait(20), 2)
            self.assertIn(missed, hub.log)

    def test_without_a_token_it_is_said_that_this_is_meant_and_pages_stay_out(self):
        self.serve('allow_no_token = true\nallow_plain_http = true\nhttp_name = ["hub.example"]\n')
        self.assertEqual(self.status(), 200)
        self.assertEqual(self.status(Host="hub.example:8082"), 200)
        self.assertEqual(self.status(Host="evil.example"), 403)
        self.assertEqual(self.status(Origin="http://evil.example"), 403)


if __name__ == "__main__":
    run.main()
