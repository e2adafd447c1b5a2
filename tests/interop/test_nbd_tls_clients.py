#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Who gets in by TLS, and real clients inside it, against `varve nbd`.

The ids in the docstrings are the rows of docs/nbd-support.md.  After each case the process must
still serve a fresh connection.
"""

import json
import os
import ssl
import subprocess
import sys
import unittest
from pathlib import Path

import nbd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import image_server, qemu, run, scratch, tls_files  # noqa: E402
from harness.tls_case import *  # noqa: E402, F403  the suites' case, and the wire's words


class Verified(TlsCase):
    """T8: client certificates, and the names that may come in."""

    options = ("--tls=require", "--tls-certificates={dir}/server", "--tls-verify-peer", "--tls-allowed-name=client.*")

    @classmethod
    def options_of(cls):
        cls.revoked = cls.authority.client(cls.dir / "revoked", "client.revoked.test")
        cls.authority.revoke(cls.revoked / "client-cert.pem", cls.server_files)
        return super().options_of()

    def refused(self, certificate, context=None):
        """TLS 1.3 clients learn of it with their first read."""
        with self.assertRaises((ssl.SSLError, ConnectionResetError, Closed)) as refusal:
            wire = self.hello().start_tls(context or self.context(certificate))
            wire.info(NAME)
        return refusal.exception

    def test_certificate_of_an_allowed_name_gets_in(self):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            wire = self.hello().start_tls(self.context(self.client_files, version, version))
            wire.info(NAME, number=GO)
            self.assertEqual(wire.error(FLUSH), 0)

    def test_no_certificate_is_refused(self):
        self.refused(None)

    def test_other_name_is_refused_and_the_log_says_which(self):
        self.refused(self.authority.client(self.dir / "stranger", "stranger.test"))
        self.assert_log_says("stranger.test")
        self.assert_log_says("is not an allowed name")

    def test_revoked_certificate_is_refused(self):
        self.refused(self.revoked)
        self.assert_log_says("revoked")

    def test_certificate_of_another_authority_is_refused(self):
        other = tls_files.Authority(self.dir / "other-authority", "somebody else")
        self.refused(other.client(self.dir / "foreign"))

    def test_server_certificate_is_no_client_certificate(self):
        files = self.authority.issue(self.dir / "wrong-purpose", "client", "client.wrong", "serverAuth")
        self.refused(files)


class StartUp(unittest.TestCase):
    """What a server refuses to start with."""

    def setUp(self):
        self.dir = self.enterContext(scratch.directory())
        self.image = self.dir / "image.qcow2"
        assert image_server.create(self.image, SIZE).returncode == 0

    def refusal(self, *options):
        words = [image_server.binary(), "nbd", str(self.image), *map(str, options)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
        self.assertEqual(done.returncode, 2, done.stderr)
        return done.stderr

    def test_keys_that_others_may_read(self):
        """T9"""
        keys = tls_files.keys_file(self.dir / "keys.psk", {USER: KEY})
        for mode in (0o640, 0o604, 0o620):
            keys.chmod(mode)
            self.assertIn("chmod 0600", self.refusal("-p", 0, "--tls-psk", keys))

    def test_keys_that_are_none(self):
        for text in ("alice\n", "alice:abc\n", "alice:zz\n", ":00\n", "a:00\nbob:\n"):
            keys = tls_files.keys_file(self.dir / "keys.psk", {})
            keys.write_text(text)
            said = self.refusal("-p", 0, "--tls-psk", keys)
            self.assertIn("USER:HEXKEY", said)
            self.assertNotIn("abc", said)
        self.assertIn("No such file", self.refusal("-p", 0, "--tls-psk", self.dir / "none"))

    def test_certificates_that_are_missing_or_broken(self):
        """T8"""
        authority = tls_files.Authority(self.dir / "authority")
        for name in ("ca-cert.pem", "server-cert.pem", "server-key.pem"):
            files = authority.server(self.dir / "server")
            (files / name).write_text("no certificate")
            self.assertIn(name, self.refusal("-p", 0, "--tls-certificates", files))
            (files / name).unlink()
            self.assertIn(name, self.refusal("-p", 0, "--tls-certificates", files))

    def test_tls_without_credentials(self):
        """T3"""
        for mode in ("on", "require"):
            self.assertIn("credentials", self.refusal("-p", 0, f"--tls={mode}"))
        self.assertIn("--tls-certificates", self.refusal("-p", 0, "--tls-verify-peer"))
        self.assertIn("--tls: \"maybe\" is not one of off, on, require", self.refusal("-p", 0, "--tls=maybe"))
        self.assertIn("--allow-address: ", self.refusal("-p", 0, "--allow-address", "10.0.0.0/33"))

    def test_plain_nbd_beyond_loopback(self):
        """T3 L1"""
        keys = tls_files.keys_file(self.dir / "keys.psk", {USER: KEY})
        for options in ((), ("--tls=off",), ("--tls=on", "--tls-psk", keys)):
            self.assertIn("--allow-plain", self.refusal("-p", 0, "-b", "0.0.0.0", *options))


class Clients(TlsCase):
    """Real clients over TCP, with both kinds of credentials."""

    options = ("--tls=require", "--tls-certificates={dir}/server", "--tls-psk={dir}/keys/keys.psk")

    @classmethod
    def setUpClass(cls):
        cls.port = scratch.free_port()
        super().setUpClass()
        cls.raw = cls.dir / "source.raw"
        cls.raw.write_bytes(os.urandom(5 * MIB) + bytes(10 * MIB) + os.urandom(SIZE - 15 * MIB))

    @classmethod
    def serve(cls, options):
        cls.address = ("127.0.0.1", cls.port)
        return super().serve(options)

    def uris(self):
        place = f"127.0.0.1:{self.port}/{NAME}"
        yield f"nbds://{USER}@{place}?tls-psk-file={self.keys}"
        yield f"nbds://localhost:{self.port}/{NAME}?tls-certificates={self.client_files}"

    def qemu_words(self):
        where = f"driver=nbd,host=127.0.0.1,port={self.port},export={NAME},tls-creds=tls0"
        psk = f"tls-creds-psk,id=tls0,dir={self.keys.parent},username={USER},endpoint=client"
        x509 = f"tls-creds-x509,id=tls0,dir={self.client_files},endpoint=client"
        yield psk, where
        yield x509, where

    def check_contents(self):
        with self.hello() as wire:
            wire.start_tls(self.context()).info(NAME, number=GO)
            self.assertEqual(wire.pread(0, SIZE), self.raw.read_bytes())

    def test_nbdcopy_both_ways(self):
        for uri in self.uris():
            with self.subTest(uri=uri):
                run_client("nbdcopy", "--flush", self.raw, uri)
                self.check_contents()
                back = self.dir / "back.raw"
                run_client("nbdcopy", uri, back)
                self.assertEqual(back.read_bytes(), self.raw.read_bytes())

    def test_nbdinfo(self):
        for uri in self.uris():
            with self.subTest(uri=uri):
                told = json.loads(run_client("nbdinfo", "--json", uri))
                self.assertTrue(told["TLS"])
                self.assertEqual(told["exports"][0]["export-size"], SIZE)
                self.assertTrue(told["exports"][0]["can_multi_conn"])
                run_client("nbdinfo", "--map", uri)

    def test_nbdinfo_in_the_clear_is_told_why_not(self):
        """T3"""
        self.assertIn("TLS", run_client("nbdinfo", f"nbd://127.0.0.1:{self.port}/{NAME}", fails=True))

    def test_qemu_img_convert_and_compare(self):
        for credentials, where in self.qemu_words():
            with self.subTest(credentials=credentials):
                source = ["qemu-img", "convert", "-n", "--object", credentials, "--target-image-opts"]
                run_client(*source, "-f", "raw", self.raw, where)
                self.check_contents()
                back = self.dir / "back.raw"
                run_client("qemu-img", "convert", "--object", credentials, "--image-opts", where, "-O", "raw", back)
                self.assertEqual(back.read_bytes(), self.raw.read_bytes())

    def test_qemu_io(self):
        for credentials, where in self.qemu_words():
            steps = ["-c", "write -P 7 100001 300003", "-c", "read -P 7 100001 300003", "-c", "discard 1M 1M", "-c", "flush"]
            run_client("qemu-io", "--object", credentials, "--image-opts", where, *steps)

    def test_libnbd_with_requests_in_flight_on_four_connections(self):
        """X4 K1 through TLS"""
        for uri in self.uris():
            handles = []
            for _ in range(4):
                handle = nbd.NBD()
                handle.set_uri_allow_local_file(True)
                handle.connect_uri(uri)
                handles.append(handle)
            piece = 256 << 10
            data = [os.urandom(piece) for _ in range(64)]
            buffers = [nbd.Buffer.from_bytearray(bytearray(part)) for part in data]
            cookies = [
                (handles[at % 4], handles[at % 4].aio_pwrite(buffer, at * piece)) for at, buffer in enumerate(buffers)
            ]
            for handle, cookie in cookies:
                while not handle.aio_command_completed(cookie):
                    handle.poll(-1)
            self.assertEqual(handles[3].pread(piece * 64, 0), b"".join(data))
            for handle in handles:
                handle.shutdown()

    def test_image_is_sound_afterwards(self):
        self.assertEqual(self.server.stop(), 0)
        qemu.check(self.image)
        type(self).server = self.serve(self.options_of())


if __name__ == "__main__":
    run.main()
