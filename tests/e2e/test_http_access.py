#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Who may use HTTP, and how it is told: TLS, tokens with scopes, the audit log, events, headers.

curl and openssl are the other side.
"""

import json
import os
import subprocess
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run, scratch, tls_files  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.daemon import Daemon, binary  # noqa: E402

SECONDS = 20
CURL_UNTRUSTED = 60


def curl(*words, **more):
    """The finished process; its output is the body and, behind it, the status in a line of its own."""
    command = ["curl", "-sS", "--max-time", str(SECONDS), "-w", "\n%{http_code}", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 10, check=False, **more)


def status(done):
    return int(done.stdout.rsplit("\n", 1)[-1])


def varve(*words, environment=None):
    return subprocess.run([binary(), *map(str, words)], capture_output=True, text=True, timeout=60, check=False,
                          env={**os.environ, **(environment or {})})  # fmt: skip


class ServedCase(unittest.TestCase):
    def serve(self, **options):
        self.dir = self.enterContext(scratch.directory())
        self.hub = Daemon(self.dir / "hub", **options)
        self.addCleanup(self.hub.close)
        return self.hub

    def port(self):
        return self.hub.ready["http"].rsplit(":", 1)[1]

    def https(self, path="/api/v1/backups"):
        return f"https://127.0.0.1:{self.port()}{path}"


class Tls(ServedCase):
    def certified(self, **options):
        hub = self.serve(**options)
        self.authority = tls_files.Authority(self.dir / "authority")
        self.files = self.authority.server(self.dir / "tls")
        hub.options["tls_certificates"] = self.files
        hub.start()

    def s_client(self, *words):
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{self.port()}", *map(str, words)]
        return subprocess.run(command, input="", capture_output=True, text=True, timeout=SECONDS, check=False)

    def test_one_port_serves_https_and_plain_http_on_loopback(self):
        self.certified()
        trusted = curl("--cacert", self.authority.certificate, self.https())
        self.assertEqual((trusted.returncode, status(trusted)), (0, 200), trusted.stderr)
        self.assertEqual(self.hub.get("/backups").status, 200)

    def test_a_certificate_of_another_authority_is_no_use(self):
        self.certified()
        other = tls_files.Authority(self.dir / "other", name="another authority")
        self.assertEqual(curl("--cacert", other.certificate, self.https()).returncode, CURL_UNTRUSTED)

    def test_where_tls_is_required_plain_http_is_told_so(self):
        self.certified(http_tls="require")
        refused = self.hub.get("/backups")
        self.assertEqual((refused.status, refused.body["code"]), (400, "tls_required"))
        self.assertEqual(status(curl("--cacert", self.authority.certificate, self.https())), 200)

    def test_tls_is_1_2_or_later(self):
        self.certified()
        for version, works in (("-tls1_3", True), ("-tls1_2", True), ("-tls1_1", False)):
            done = self.s_client(version, "-CAfile", self.authority.certificate, "-cipher", "DEFAULT@SECLEVEL=0")
            self.assertEqual("Verify return code: 0 (ok)" in done.stdout and done.returncode == 0, works, version)

    def test_a_client_certificate_is_asked_for_when_peers_are_verified(self):
        config = Path(self.enterContext(scratch.directory())) / "varve.toml"
        config.write_text('tls_verify_peer = true\ntls_allowed_name = ["client.*"]\n')
        self.certified(config=config)
        ours = self.authority.client(self.dir / "client")
        other = self.authority.client(self.dir / "another", common_name="someone.else")
        known = ["--cacert", self.authority.certificate]

        def by(files):
            return ["--cert", files / "client-cert.pem", "--key", files / "client-key.pem"]

        self.assertNotEqual(curl(*known, self.https()).returncode, 0)
        self.assertEqual(status(curl(*known, *by(ours), self.https())), 200)
        self.assertEqual(status(curl(*known, *by(other), self.https())), 403)
        cancel = curl(*known, *by(ours), "-X", "POST", self.https("/api/v1/backups/x/cancel"))
        self.assertEqual(status(cancel), 404)
        line = json.loads((self.dir / "hub" / "audit.jsonl").read_text().splitlines()[-1])
        self.assertEqual(line["who"], f"certificate {tls_files.CLIENT_NAME}")

    def test_a_revoked_client_certificate_is_refused(self):
        config = Path(self.enterContext(scratch.directory())) / "varve.toml"
        config.write_text("tls_verify_peer = true\n")
        hub = self.serve(config=config)
        self.authority = tls_files.Authority(self.dir / "authority")
        files = self.authority.server(self.dir / "tls")
        client = self.authority.client(self.dir / "client")
        self.authority.revoke(client / "client-cert.pem", files)
        # Behind the list of another authority: every list of the file counts.
        other = tls_files.Authority(self.dir / "other", name="another authority")
        beside = self.dir / "beside"
        beside.mkdir()
        other.revoke(other.client(self.dir / "others") / "client-cert.pem", beside)
        crl = files / "ca-crl.pem"
        crl.write_text((beside / "ca-crl.pem").read_text() + crl.read_text())
        hub.options["tls_certificates"] = files
        hub.start()
        done = curl("--cacert", self.authority.certificate, "--cert", client / "client-cert.pem",
                    "--key", client / "client-key.pem", self.https())  # fmt: skip
        self.assertNotEqual(done.returncode, 0)

    def test_varve_itself_speaks_https_and_trusts_whom_it_is_told_to(self):
        self.certified(http_tls="require")
        server = f"https://127.0.0.1:{self.port()}"
        known = varve("verify", "--all", "--server", server, "--tls-certificates", self.files)
        self.assertEqual(known.returncode, 0, known.stderr)
        by_environment = varve("verify", "--all", "--server", server,
                               environment={"VARVE_TLS_CERTIFICATES": str(self.files)})  # fmt: skip
        self.assertEqual(by_environment.returncode, 0, by_environment.stderr)
        other = tls_files.Authority(self.dir / "other", name="another authority").server(self.dir / "theirs")
        for distrusted in (["--tls-certificates", other], []):
            done = varve("verify", "--all", "--server", server, *distrusted)
            self.assertEqual(done.returncode, 1)
            self.assertIn("its certificate is not trusted", done.stderr)
        plain = varve("verify", "--all", "--server", server.replace("https", "http"))
        self.assertIn("Write https://", plain.stderr)

    def test_varve_compares_the_name_in_the_certificate_with_the_host(self):
        hub = self.serve()
        authority = tls_files.Authority(self.dir / "authority")
        files = authority.issue(self.dir / "tls", "server", "elsewhere", "serverAuth", "DNS:elsewhere.example")
        hub.options["tls_certificates"] = files
        hub.start()
        done = varve("verify", "--all", "--server", f"https://127.0.0.1:{self.port()}", "--tls-certificates", files)
        self.assertEqual(done.returncode, 1)
        self.assertIn("the certificate must be for 127.0.0.1", done.stderr)

    def test_certificates_that_cannot_be_used_stop_the_start(self):
        hub = self.serve()
        authority = tls_files.Authority(self.dir / "authority")
        files = authority.server(self.dir / "tls")
        (files / "server-key.pem").write_bytes((authority.client(self.dir / "c") / "client-key.pem").read_bytes())
        hub.options["tls_certificates"] = files
        hub.launch()
        self.assertNotEqual(hub.wait(SECONDS), 0)


class Tokens(HubCase):
    def token(self, name, *scopes):
        words = [word for scope in scopes for word in ("--scope", scope)]
        made = varve("token", "add", name, *words, "--file", self.file)
        self.assertEqual(made.returncode, 0, made.stderr)
        return made.stdout.strip()

    def setUp(self):
        super().setUp()
        self.file = self.dir / "hub" / "tokens"

    def ask(self, method, path, token, body=None):
        return self.hub.api(method, path, body, headers={"Authorization": f"Bearer {token}"})

    def test_a_token_does_what_its_scope_says_until_it_is_revoked(self):
        self.assertEqual(self.hub.get("/backups").status, 200)
        self.register("vm", [MIB])
        reader, nightly = self.token("reader", "read"), self.token("nightly", "backup")
        self.assertEqual(self.hub.get("/backups").status, 401)
        self.assertEqual(self.ask("GET", "/backups", reader).status, 200)
        start = {"vm_name": "vm", "backup_type": "full", "repository_id": "1", "client": "external"}
        refused = self.ask("POST", "/backups", reader, start)
        self.assertEqual((refused.status, refused.body["code"]), (403, "scope_missing"))
        self.assertIn("backup", refused.body["hint"])
        job = self.ask("POST", "/backups", nightly, start).body["backup_id"]
        self.assertEqual(self.ask("POST", f"/backups/{job}/cancel", nightly).status, 200)
        self.assertEqual(self.ask("DELETE", f"/backups/{job}", nightly).status, 403)
        self.assertEqual(varve("token", "revoke", "nightly", "--file", self.file).returncode, 0)
        self.assertEqual(self.ask("GET", "/backups", nightly).status, 401)
        self.assertEqual(self.ask("GET", "/backups", reader).status, 200)
        lines = [json.loads(line) for line in (self.dir / "hub" / "audit.jsonl").read_text().splitlines()]
        said = [(line["who"], line.get("operation"), line.get("object"), line["status"]) for line in lines]
        self.assertEqual(said, [("loopback", "putVm", "vm", 201), ("reader", "startBackup", None, 403),
                                ("nightly", "startBackup", job, 200), ("nightly", "cancelBackup", job, 200),
                                ("nightly", "deleteBackup", job, 403)])  # fmt: skip
        for secret in (reader, nightly):
            self.assertNotIn(secret, (self.dir / "hub" / "audit.jsonl").read_text())
            self.assertNotIn(secret[6:], self.file.read_text())
            self.assertNotIn(secret[6:], self.hub.log)

    def test_the_command_says_what_it_cannot_do(self):
        self.token("a", "read")
        twice = varve("token", "add", "a", "--scope", "admin", "--file", self.file)
        self.assertEqual((twice.returncode, twice.stdout), (11, ""))
        self.assertEqual(varve("token", "revoke", "b", "--file", self.file).returncode, 10)
        listed = json.loads(varve("token", "list", "--json", "--file", self.file).stdout)["tokens"]
        self.assertEqual([(token["name"], token["scopes"]) for token in listed], [("a", ["read"])])
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o600)
        self.file.chmod(0o644)
        self.assertEqual(varve("token", "list", "--file", self.file).returncode, 2)

    def test_the_existing_client_goes_on_without_one(self):
        self.register("vm", [MIB])
        self.token("a", "admin")
        self.assertEqual(self.hub.get("/backups/changeid", vm_name="vm").status, 200)
        self.assertEqual(self.hub.api("POST", "/telemetry/backup/x", {}).status, 404)
        self.assertEqual(self.hub.root("/health").status, 200)
        # Who comes through a proxy of this host is not the existing client.
        for header in ("X-Forwarded-For: 192.0.2.7", "X-Real-IP: 192.0.2.7", "Forwarded: for=192.0.2.7", "Via: 1.1 proxy"):
            self.assertEqual(status(curl("-H", header, self.hub.url + "/api/v1/backups/changeid?vm_name=vm")), 401, header)

    def test_a_token_is_not_called_like_those_who_have_none(self):
        for name in ("loopback", "anonymous", "api-token"):
            self.assertEqual(varve("token", "add", name, "--scope", "read", "--file", self.file).returncode, 2, name)

    def listen(self, *words):
        command = ["curl", "-sSN", "--max-time", str(SECONDS), *words, self.hub.url + "/api/v1/events"]
        listener = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.addCleanup(scratch.end_process, listener)
        return listener

    def event(self, listener):
        name = listener.stdout.readline()
        while name.startswith((":", "\n")):
            name = listener.stdout.readline()
        self.assertEqual(name, "event: jobs\n")
        return json.loads(listener.stdout.readline().removeprefix("data: "))

    def test_events_tell_what_runs(self):
        self.register("vm", [MIB])
        listener = self.listen()
        self.assertEqual(self.event(listener)["total"], 0)
        job = self.start("vm")
        event = self.event(listener)
        self.assertEqual([backup["backup_id"] for backup in event["backups"]], [job["backup_id"]])
        self.write_and_complete(job, 0, "u/1", [(0, b"x" * 65536)])
        end = time.monotonic() + SECONDS
        while self.event(listener)["total"]:
            self.assertLess(time.monotonic(), end)

    def test_who_listens_with_a_token_that_is_revoked_hears_no_more(self):
        token = self.token("page", "read")
        listener = self.listen("-H", f"Authorization: Bearer {token}")
        self.assertEqual(self.event(listener)["total"], 0)
        varve("token", "revoke", "page", "--file", self.file)
        self.assertEqual(listener.wait(SECONDS), 0)

    def test_events_do_not_hold_up_the_end_of_the_server(self):
        listener = self.listen()
        self.event(listener)
        begin = time.monotonic()
        self.assertEqual(self.hub.stop(), 0)
        self.assertLess(time.monotonic() - begin, 4)
        self.assertEqual(listener.wait(SECONDS), 0)

    def test_headers_say_what_a_poller_needs(self):
        url = self.hub.url + "/api/v1/backups"
        head = curl("-I", url)
        self.assertEqual(status(head), 200)
        fields = {name.lower(): value for name, _, value in
                  (line.partition(": ") for line in head.stdout.splitlines()) if value}  # fmt: skip
        self.assertEqual(fields["content-length"], str(len(self.hub.get("/backups").text)))
        self.assertRegex(fields["date"], r"^\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$")
        known = curl("-H", f"If-None-Match: {fields['etag']}", url)
        self.assertEqual((status(known), known.stdout), (304, "\n304"))
        self.register("vm", [MIB])
        self.start("vm")
        self.assertEqual(status(curl("-H", f"If-None-Match: {fields['etag']}", url)), 200)

    def test_what_a_post_has_made_is_where_location_says(self):
        self.register("vm", [MIB])
        answer = self.post("vm")
        self.assertEqual(answer.status, 200)
        found = self.hub.root(answer.headers["Location"])
        self.assertEqual(found.body["backup_id"], answer.body["backup_id"])


if __name__ == "__main__":
    run.main()
