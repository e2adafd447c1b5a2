#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Who may see and open what of `varve serve`: TLS, jobs as users, secret names, addresses."""

import re
import ssl
import subprocess
import sys
import unittest
import urllib.parse
from pathlib import Path

import nbd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run, scratch, tls_files  # noqa: E402
from harness.case import HubCase  # noqa: E402
from harness.daemon import binary  # noqa: E402
from harness.nbd_wire import *  # noqa: E402, F403  the wire's words are this file's vocabulary

MIB = 1 << 20
KEY, OTHER_KEY = bytes(range(32)), bytes(range(32, 64))
ALICE = "alice"  # a user who is no job


class AccessCase(HubCase):
    """Two jobs under `options`; {files} in an option is a directory with keys and certificates."""

    options = {}

    def setUp(self):
        self.files = self.enterContext(scratch.directory())
        self.keys = tls_files.keys_file(self.files / "keys.psk", {ALICE: KEY})
        self.authority = tls_files.Authority(self.files / "authority")
        self.authority.server(self.files / "server")
        self.options = {name: str(value).format(files=self.files) for name, value in self.options.items()}
        super().setUp()
        for vm_name in ("one", "two"):
            self.register(vm_name, [MIB])
        self.one, self.two = self.start("one"), self.start("two")

    @staticmethod
    def name(job):
        return job["disk_results"][0]["nbd_export_name"]

    @staticmethod
    def port(job):
        return job["disk_results"][0]["nbd_port"]

    def hello(self, port=None):
        wire = Wire(("127.0.0.1", port or self.hub.nbd_port))
        self.addCleanup(wire.close)
        return wire.hello()

    def secure(self, port=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.authority.certificate)
        return self.hello(port).start_tls(context)

    @staticmethod
    def listed(wire):
        return [data[4 : 4 + int.from_bytes(data[:4], "big")].decode() for kind, data in wire.ask_all(LIST) if kind == SERVER]

    def libnbd(self, user, key, export, port=None):
        handle = nbd.NBD()
        handle.set_tls(nbd.TLS_REQUIRE)
        handle.set_tls_username(user)
        handle.set_tls_psk_file(str(tls_files.keys_file(self.files / f"{user}.psk", {user: key})))
        handle.set_export_name(export)
        handle.connect_tcp("127.0.0.1", str(port or self.hub.nbd_port))
        return handle

    def libnbd_list(self, user, key):
        handle = nbd.NBD()
        handle.set_tls(nbd.TLS_REQUIRE)
        handle.set_tls_username(user)
        handle.set_tls_psk_file(str(tls_files.keys_file(self.files / f"{user}.psk", {user: key})))
        handle.set_opt_mode(True)
        handle.connect_tcp("127.0.0.1", str(self.hub.nbd_port))
        names = []
        handle.opt_list(lambda name, _: names.append(name) or 0)
        handle.opt_abort()
        return names

    def uris(self, job):
        (export,) = [e for e in self.hub.get("/nbd/exports").body["exports"] if e["name"] == self.name(job)]
        return export["uris"]


class Default(AccessCase):
    def test_everything_is_as_the_existing_clients_need_it(self):
        """T1: plain NBD, every export listed, nbd:// everywhere"""
        wire = self.hello()
        self.assertEqual(self.listed(wire), sorted([self.name(self.one), self.name(self.two)]))
        self.assertEqual(wire.ask(STARTTLS)[0], ERR_POLICY)
        self.assertRegex(self.name(self.one), r"^one-\d+-disk0$")
        self.assertTrue(self.one["nbd_targets_string"].startswith("2000:nbd://127.0.0.1:"))
        for uri in self.uris(self.one):
            self.assertTrue(uri.startswith("nbd://"), uri)


class Secret(AccessCase):
    options = {"export_access": "name"}

    def test_names_are_secrets_and_open_what_they_name(self):
        """A secret that opens, and not listed; the existing client's patterns still hold"""
        name = self.name(self.one)
        self.assertRegex(name, r"^one-\d+-[a-z2-7]{20}-disk0$")
        self.assertNotEqual(name.split("-")[2], self.name(self.two).split("-")[2])
        wire = self.hello()
        self.assertEqual(self.listed(wire), [])
        guess = re.sub(r"-[a-z2-7]{20}-", "-", name)
        self.assertEqual(wire.ask(GO, info_data(guess))[0], ERR_UNKNOWN)
        self.assertEqual(wire.ask(GO, info_data(""))[0], ERR_UNKNOWN)
        wire.info(name, number=GO)
        wire.pwrite(0, b"x")
        port = self.hello(self.port(self.one))
        self.assertEqual(port.ask(GO, info_data(""))[0], ERR_UNKNOWN)
        self.assertEqual(port.ask(GO, info_data(self.name(self.two)))[0], ERR_UNKNOWN)
        port.info(name, number=GO)

    def test_whole_backup_under_a_secret_name(self):
        self.write_and_complete(self.one, 0, "u/1", [(0, b"kept")])
        self.wait_for_status(self.one["backup_id"], "completed")

    def test_long_names_leave_room(self):
        vm_name = "a" * 40
        self.register(vm_name, [MIB])
        name = self.name(self.start(vm_name))
        self.assertLessEqual(len(name), 64)
        self.assertRegex(name, r"^a+-\d+-[a-z2-7]{20}-disk0$")


class Owned(AccessCase):
    options = {"tls": "on", "tls_psk": "{files}/keys.psk", "export_access": "owner"}

    def setUp(self):
        super().setUp()
        self.user, self.other = self.one["backup_id"], self.two["backup_id"]
        tls_files.keys_file(self.keys, {ALICE: KEY, self.user: KEY, self.other: OTHER_KEY})

    def test_a_job_sees_and_opens_its_own_and_nothing_else(self):
        """T9 T11: an ingest export takes writes from its job only"""
        self.assertEqual(self.libnbd_list(self.user, KEY), [self.name(self.one)])
        self.assertEqual(self.libnbd_list(self.other, OTHER_KEY), [self.name(self.two)])
        handle = self.libnbd(self.user, KEY, self.name(self.one))
        handle.pwrite(b"mine", 0)
        handle.shutdown()
        for name in (self.name(self.two), "nobody"):
            with self.assertRaises(nbd.Error) as refused:
                self.libnbd(self.user, KEY, name)
            self.assertIn("No such file", str(refused.exception))
        with self.assertRaises(nbd.Error):
            self.libnbd(self.user, KEY, self.name(self.two), self.port(self.two))
        self.libnbd(self.user, KEY, "", self.port(self.one)).shutdown()

    def test_others_see_nothing(self):
        """T11 T2: users who are no jobs, and clients in the clear"""
        self.assertEqual(self.libnbd_list(ALICE, KEY), [])
        with self.assertRaises(nbd.Error):
            self.libnbd(ALICE, KEY, self.name(self.one))
        with self.assertRaises(nbd.Error):
            self.libnbd(self.user, OTHER_KEY, self.name(self.one))
        wire = self.hello()
        self.assertEqual(self.listed(wire), [])
        for name in (self.name(self.one), "nobody"):
            self.assertEqual(wire.ask(GO, info_data(name))[0], ERR_TLS_REQD)
            self.assertEqual(wire.ask(LIST_META, meta_data(name))[0], ERR_TLS_REQD)
        wire.send(option(EXPORT_NAME, self.name(self.one).encode()))
        self.assertTrue(wire.is_dropped())

    def test_the_log_warns_that_tls_can_be_stripped(self):
        """T2"""
        self.assertIn("an active attacker can strip it", self.hub.log)


class SharedKey(AccessCase):
    options = {"tls": "require", "tls_psk": "{files}/keys.psk", "tls_certificates": "{files}/server"}

    def test_users_who_are_no_jobs_see_all_and_jobs_their_own(self):
        """T9 T11 with one key for a whole site"""
        user = self.one["backup_id"]
        tls_files.keys_file(self.keys, {ALICE: KEY, user: KEY, "backup-gone-1": KEY})
        self.assertEqual(self.libnbd_list(ALICE, KEY), sorted([self.name(self.one), self.name(self.two)]))
        self.assertEqual(self.libnbd_list(user, KEY), [self.name(self.one)])
        self.assertEqual(self.libnbd_list("backup-gone-1", KEY), [])

    def test_addresses_say_that_tls_is_needed(self):
        """L10 T3: nbds:// in the API, also on the ports, which want TLS too"""
        target = self.one["nbd_targets_string"]
        self.assertTrue(target.startswith(f"2000:nbds://127.0.0.1:{self.port(self.one)}/"), target)
        uris = self.uris(self.one)
        self.assertEqual(len(uris), 2)
        for uri in uris:
            place = urllib.parse.urlsplit(uri)
            self.assertEqual(place.scheme, "nbds")
            self.assertEqual(self.hello(place.port).ask(LIST)[0], ERR_TLS_REQD)
            self.assertIn(self.name(self.one), self.listed(self.secure(place.port)))

    def test_whole_backup_inside_tls(self):
        """through the data thread of the export, with FLUSH and a read back"""
        for job in (self.one, self.two):
            handle = self.libnbd(ALICE, KEY, self.name(job))
            handle.pwrite(b"kept" * 1000, 12345)
            handle.flush()
            self.assertEqual(handle.pread(4000, 12345), b"kept" * 1000)
            self.complete_ok(job, "u/1", 0)
            self.wait_for_status(job["backup_id"], "completed")


class UnixSocket(AccessCase):
    options = {"nbd_socket": "{files}/our socket", "tls": "on", "tls_psk": "{files}/keys.psk", "tls_certificates": "{files}/server"}

    def test_its_address_is_in_the_api_and_is_understood(self):
        """L10 L3"""
        uri = self.uris(self.one)[-1]
        self.assertTrue(uri.startswith(f"nbds+unix:///{self.name(self.one)}?socket={self.files}/our%20socket"), uri)
        certificates = f"{uri}&tls-certificates={self.files}/server"
        done = subprocess.run(["nbdinfo", "--size", certificates], capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual(done.stdout.strip(), str(MIB), done.stderr)


class PlainPorts(AccessCase):
    options = {"tls": "require", "tls_psk": "{files}/keys.psk", "ports_tls": "off"}

    def test_a_mode_belongs_to_a_listener(self):
        """T1 T3: the tunnel's ports stay plain beside a main port that wants TLS"""
        self.assertTrue(self.one["nbd_targets_string"].startswith("2000:nbd://"))
        self.assertEqual([urllib.parse.urlsplit(uri).scheme for uri in self.uris(self.one)], ["nbd", "nbds"])
        self.hello(self.port(self.one)).info(self.name(self.one), number=GO)
        self.assertEqual(self.hello().ask(LIST)[0], ERR_TLS_REQD)


class OneListener(AccessCase):
    options = {"nbd": "127.0.0.1:0,tls=require", "tls": "off", "tls_psk": "{files}/keys.psk"}

    def test_a_listener_may_have_a_mode_of_its_own(self):
        self.assertEqual(self.hello().ask(LIST)[0], ERR_TLS_REQD)
        self.hello(self.port(self.one)).info(self.name(self.one), number=GO)


class StartUp(unittest.TestCase):
    def refusal(self, *options):
        with scratch.directory() as directory:
            state = ["--repository", directory / "r", "--catalogue", directory / "c.db", "--http", "127.0.0.1:0", "--ports", "none"]
            words = [binary(), "serve", *map(str, state), *map(str, options)]
            done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertEqual(list(directory.iterdir()), [], "nothing is touched")
            return done.stderr

    def test_what_would_put_plain_nbd_on_a_network(self):
        """L1 T3 Q24"""
        self.assertIn("--nbd 0.0.0.0:0: this is not a loopback address", self.refusal("--nbd", "0.0.0.0:0"))
        self.assertIn("--nbd [::]:0", self.refusal("--nbd", "127.0.0.1:0", "--nbd", "[::]:0,tls=on"))

    def test_what_would_put_http_without_a_token_on_a_network(self):
        refusal = self.refusal("--nbd", "127.0.0.1:0", "--http", "0.0.0.0:0")
        self.assertIn("--http 0.0.0.0:0: this is not a loopback address", refusal)
        self.assertIn("--api-token", refusal)
        self.assertIn("--allow-no-token", refusal)
        for http in ("[::]:0", "192.0.2.1:8082"):
            self.assertIn("--api-token", self.refusal("--nbd", "127.0.0.1:0", "--http", http, "--allow-plain"))

    def test_tls_without_credentials(self):
        """T3"""
        self.assertIn("credentials", self.refusal("--nbd", "127.0.0.1:0", "--tls", "require"))
        self.assertIn("--tls-psk", self.refusal("--nbd", "127.0.0.1:0", "--export-access", "owner"))


class Elsewhere(AccessCase):
    options = {"allow_address": "192.0.2.0/24"}

    def test_other_addresses_are_turned_away(self):
        for port in (self.hub.nbd_port, self.port(self.one)):
            with Wire(("127.0.0.1", port)) as wire:
                self.assertTrue(wire.is_dropped())
        self.assertIn("not an allowed address", self.hub.log)


if __name__ == "__main__":
    run.main()
