#!/usr/bin/python3
"""HTTP beyond loopback: a token, or the word that none is meant. In a network of the test's own."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import private_network, run, scratch  # noqa: E402
from harness.daemon import Daemon, http  # noqa: E402


def setUpModule():
    why_not = private_network.enter()
    if why_not:
        raise unittest.SkipTest(why_not)


class HttpBeyondLoopback(unittest.TestCase):
    def serve(self, **options):
        self.dir = self.enterContext(scratch.directory())
        hub = Daemon(self.dir / "hub", http="0.0.0.0:0", **options)
        self.addCleanup(hub.close)
        hub.start()
        self.port = hub.ready["http"].rsplit(":", 1)[1]

    def status(self, **headers):
        url = f"http://127.0.0.1:{self.port}/api/v1/backups"
        return http("GET", url, headers=headers).status

    def test_whoever_has_the_token_is_served_under_any_name(self):
        self.serve(api_token="t")
        self.assertEqual(self.status(), 401)
        self.assertEqual(self.status(Authorization="Bearer t", Host="any.example"), 200)

    def test_without_a_token_it_is_said_that_this_is_meant_and_pages_stay_out(self):
        config = Path(self.enterContext(scratch.directory())) / "varve.toml"
        config.write_text('allow_no_token = true\nhttp_name = ["hub.example"]\n')
        self.serve(config=config)
        self.assertEqual(self.status(), 200)
        self.assertEqual(self.status(Host="hub.example:8082"), 200)
        self.assertEqual(self.status(Host="evil.example"), 403)
        self.assertEqual(self.status(Origin="http://evil.example"), 403)


if __name__ == "__main__":
    run.main()
