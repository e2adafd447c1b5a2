#!/usr/bin/python3
"""Section 8 of the NBD reference (TLS), from a raw socket and by real clients, against `varve nbd`.

The ids in the docstrings are the rows of docs/nbd-support.md.  After each case the process must
still serve a fresh connection.
"""

import json
import os
import ssl
import struct
import subprocess
import sys
import time
import unittest
from pathlib import Path

import nbd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import image_server, qemu, run, scratch, tls_files  # noqa: E402
from support.nbd_wire import *  # noqa: E402, F403  the wire's words are this file's vocabulary

MIB = 1 << 20
SIZE = 32 * MIB
NAME = "vm/disk-0@p"
USER, KEY = "backup-vm-1", bytes(range(32))
NO_TLS_1_0 = "DEFAULT:@SECLEVEL=0"  # OpenSSL itself would not offer what we want to see refused


def run_client(*words, fails=False):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode != 0) == fails, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


class TlsCase(unittest.TestCase):
    """One image, served under `options` for all cases of a class; certificates for everybody."""

    options = ()
    port = None

    @classmethod
    def setUpClass(cls):
        cls.dir = cls.enterClassContext(scratch.directory())
        cls.authority = tls_files.Authority(cls.dir / "authority")
        cls.server_files = cls.authority.server(cls.dir / "server")
        cls.client_files = cls.authority.client(cls.dir / "client")
        cls.keys = tls_files.keys_file(cls.dir / "keys" / "keys.psk", {USER: KEY, "other": KEY[::-1]})
        cls.image = cls.dir / "image.qcow2"
        assert image_server.create(cls.image, SIZE).returncode == 0
        cls.address = str(cls.dir / "nbd.sock")
        cls.server = cls.serve(cls.options_of())

    @classmethod
    def options_of(cls):
        return [str(word).format(dir=cls.dir) for word in cls.options]

    @classmethod
    def serve(cls, options):
        place = {"port": cls.port} if cls.port else {"socket_path": cls.address}
        server = image_server.ImageServer(cls.image, export=NAME, options=options, **place)
        cls.addClassCleanup(server.close)

        def greets():
            assert server.process.poll() is None, server.log
            try:
                with Wire(cls.address) as wire:
                    return wire.receive(18)
            except OSError:
                return None

        scratch.wait_until(greets, 20, "a greeting")
        return server

    def tearDown(self):
        with self.hello() as wire:  # whatever the case did
            self.assertEqual(wire.ask(ABORT)[0], ACK)

    def connect(self):
        wire = Wire(self.address)
        self.addCleanup(wire.close)
        return wire

    def hello(self, flags=3):
        return self.connect().hello(flags)

    def context(self, certificate=None, oldest=ssl.TLSVersion.TLSv1_2, newest=ssl.TLSVersion.TLSv1_3):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.authority.certificate)
        context.minimum_version, context.maximum_version = oldest, newest
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # T12: an end without close-notify is one
        if certificate:
            context.load_cert_chain(certificate / "client-cert.pem", certificate / "client-key.pem")
        return context

    def secure(self, certificate=None):
        return self.hello().start_tls(self.context(certificate))

    def assert_log_says(self, text):
        scratch.wait_until(lambda: text in self.server.log, 5, f"{text!r} in the log")


class Off(TlsCase):
    def test_starttls_is_a_matter_of_policy(self):
        """T1 O5: never TLS_REQD, and everything else is served"""
        wire = self.hello()
        self.assertEqual(wire.ask(STARTTLS), (ERR_POLICY, "TLS is disabled on this listener"))
        self.assertEqual(wire.ask(STARTTLS, b"x"), (ERR_INVALID, "STARTTLS takes no data"))
        self.assertEqual(wire.ask(GO, info_data("nobody"))[0], ERR_UNKNOWN)
        wire.info(NAME, number=GO)
        self.assertEqual(wire.error(FLUSH), 0)


class On(TlsCase):
    options = ("--tls=on", "--tls-certificates={dir}/server", "--tls-psk={dir}/keys/keys.psk")

    def test_plain_clients_are_served_and_upgraded(self):
        """T2"""
        wire = self.hello()
        self.assertEqual(len(wire.ask_all(LIST)), 2)
        wire.info(NAME)
        wire.start_tls(self.context())
        self.assertEqual([data[4:].decode() for kind, data in wire.ask_all(LIST) if kind == SERVER], [NAME])
        wire.info(NAME, number=GO)
        wire.pwrite(5, b"secret")
        self.assertEqual(wire.pread(0, 12), b"\0" * 5 + b"secret\0")
        with self.connect().transmission(NAME) as plain:
            self.assertEqual(plain.pread(5, 6), b"secret")

    def test_names_that_nobody_may_see_in_the_clear_want_tls(self):
        """T2: unknown names too, so that none can be probed; inside TLS they are unknown"""
        wire = self.hello()
        self.assertEqual(wire.ask(INFO, info_data("nobody"))[0], ERR_TLS_REQD)
        self.assertEqual(wire.ask(GO, info_data("nobody"))[0], ERR_TLS_REQD)
        wire.start_tls(self.context())
        self.assertEqual(wire.ask(GO, info_data("nobody"))[0], ERR_UNKNOWN)
        other = self.hello()
        other.send(option(EXPORT_NAME, b"nobody"))
        self.assertTrue(other.is_dropped())

    def test_second_starttls_is_invalid(self):
        """T4"""
        wire = self.secure()
        self.assertEqual(wire.ask(STARTTLS)[0], ERR_INVALID)
        self.assertEqual(wire.ask(STARTTLS, b"x")[0], ERR_INVALID)
        wire.info(NAME, number=GO)

    def test_everything_negotiated_in_the_clear_is_forgotten(self):
        """T5 Q15: CVE-2021-3716"""
        for option_ in (STRUCTURED_REPLY, EXTENDED_HEADERS):
            wire = self.hello()
            self.assertEqual(wire.ask(option_)[0], ACK)
            self.assertEqual(len(wire.ask_all(SET_META, meta_data(NAME, ("base:allocation",)))), 2)
            wire.start_tls(self.context())
            self.assertEqual(wire.ask(SET_META, meta_data(NAME, ("base:allocation",)))[0], ERR_INVALID)
            reported = wire.info(NAME, number=GO)[0]
            self.assertEqual(int.from_bytes(reported[8:10], "big"), 0x096D)  # F1: without structured replies
            (reply,) = wire.do(READ, 0, 512)
            self.assertIsNone(reply.type)
            self.assertEqual(wire.error(BLOCK_STATUS, 0, 512), EINVAL)

    def test_extended_headers_in_the_clear_are_forgotten(self):
        """T5 X-7: else STRUCTURED_REPLY would be refused, and requests be read with other headers"""
        wire = self.hello()
        self.assertEqual(wire.ask(EXTENDED_HEADERS)[0], ACK)
        wire.start_tls(self.context())
        self.assertEqual(wire.ask(STRUCTURED_REPLY)[0], ACK)
        wire.info(NAME, number=GO)
        self.assertEqual(wire.error(FLUSH), 0)

    def test_structured_replies_are_asked_for_again(self):
        """T5"""
        wire = self.hello()
        self.assertEqual(wire.ask(STRUCTURED_REPLY)[0], ACK)
        wire.start_tls(self.context())
        self.assertEqual(wire.ask(STRUCTURED_REPLY)[0], ACK)
        self.assertEqual(len(wire.ask_all(SET_META, meta_data(NAME, ("base:allocation",)))), 2)
        wire.info(NAME, number=GO)
        wire.structured = True
        self.assertIsNotNone(wire.do(READ, 0, 512)[0].type)
        self.assertEqual(sum(length for length, _ in wire.status(0, SIZE)[1]), SIZE)

    def test_bytes_behind_starttls_drop(self):
        """T6 Q15: whatever an attacker puts there, it is neither answered nor remembered"""
        for behind in (option(STRUCTURED_REPLY), option(GO, info_data(NAME)), b"x", b"\x16\x03\x01"):
            wire = self.hello()
            wire.send(option(STARTTLS) + behind)
            self.assertTrue(wire.is_dropped(), behind)
        self.assert_log_says("bytes behind STARTTLS arrived before its reply")

    def test_plaintext_behind_the_acknowledgement_is_never_taken_for_an_option(self):
        """T6 T7: it fails the TLS handshake, and the reason is logged"""
        wire = self.hello()
        self.assertEqual(wire.ask(STARTTLS)[0], ACK)
        wire.send(option(GO, info_data(NAME)))
        heard = bytearray()
        try:
            while part := wire.socket.recv(4096):
                heard += part
        except ConnectionResetError:
            pass
        self.assertNotIn(b"\x00\x03\xe8\x89\x04\x55\x65\xa9", heard)  # the magic of an option reply
        self.assert_log_says("TLS handshake failed:")

    def test_silence_after_starttls_drops(self):
        """T7 H9: also when single bytes trickle in"""
        silent, trickling = self.hello(), self.hello()
        for wire in (silent, trickling):
            self.assertEqual(wire.ask(STARTTLS)[0], ACK)
        start = time.monotonic()
        hello = b"\x16\x03\x01\x02\x00\x01" + bytes(200)
        while not self.has_ended(trickling):
            self.assertLess(time.monotonic() - start, 13)
            try:
                trickling.send(hello[:1])
            except (BrokenPipeError, ConnectionResetError):
                break
            hello = hello[1:]
            time.sleep(0.2)
        self.assertTrue(silent.is_dropped())
        self.assertGreater(time.monotonic() - start, 8)
        self.assertLess(time.monotonic() - start, 13)

    @staticmethod
    def has_ended(wire):
        try:
            return wire.socket.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    def test_old_versions_are_refused(self):
        """T3 Q20: TLS 1.0 and 1.1"""
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            context = self.context(oldest=version, newest=version)
            context.set_ciphers(NO_TLS_1_0)
            with self.assertRaises(ssl.SSLError) as refused:
                self.hello().start_tls(context)
            self.assertIn("PROTOCOL_VERSION", str(refused.exception).upper().replace(" ", "_"))

    def test_both_versions_are_served(self):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            wire = self.hello().start_tls(self.context(oldest=version, newest=version))
            self.assertEqual(wire.socket.version(), version.name.replace("_", "."))
            wire.info(NAME, number=GO)
            wire.pwrite(MIB, bytes([3]) * 300_000)
            self.assertEqual(wire.pread(MIB, 300_000), bytes([3]) * 300_000)

    def test_close_notify_comes_before_the_end(self):
        """T12: after DISC, and after ABORT"""
        wire = self.secure()
        self.assertEqual(wire.ask(ABORT)[0], ACK)
        self.assertEqual(wire.socket.recv(1), b"")  # an end without close-notify would raise SSLEOFError
        wire = self.secure()
        wire.info(NAME, number=GO)
        wire.send(request(DISC))
        self.assertEqual(wire.socket.recv(1), b"")

    def test_missing_close_notify_is_tolerated(self):
        """T12 D1"""
        wire = self.secure()
        wire.info(NAME, number=GO)
        wire.pwrite(2 * MIB, b"kept")
        before = self.server.log.count("ended:")
        os.close(wire.socket.detach())
        time.sleep(0.2)
        self.assertEqual(self.server.log.count("ended:"), before)
        with self.connect().transmission(NAME) as plain:
            self.assertEqual(plain.pread(2 * MIB, 4), b"kept")

    def test_fragmentation_changes_nothing(self):
        """H8 inside TLS: one byte a record, and many options in one"""
        wire = self.secure()
        for byte in option(GO, info_data(NAME, (3,))):
            wire.send(bytes([byte]))
        self.assertEqual(wire.answers()[-1][0], ACK)
        self.assertEqual(wire.error(FLUSH), 0)
        wire = self.secure()
        wire.send(option(LIST) + option(STRUCTURED_REPLY) + option(GO, info_data(NAME)) + request(READ, 0, 100_000))
        wire.answers(), wire.answers(), wire.answers()
        self.assertEqual(wire.reply().type, HOLE)


class Require(TlsCase):
    options = ("--tls=require", "--tls-certificates={dir}/server", "--tls-psk={dir}/keys/keys.psk")

    def test_nothing_is_answered_in_the_clear(self):
        """T3"""
        wire = self.hello()
        everything = [LIST, PEEK_EXPORT, INFO, GO, STRUCTURED_REPLY, LIST_META, SET_META, EXTENDED_HEADERS, 77]
        for number in everything:
            for data in (b"", info_data(NAME)):
                answer = wire.ask(number, data)
                self.assertEqual(answer, (ERR_TLS_REQD, "TLS is required on this listener"), number)
        self.assertEqual(wire.ask(STARTTLS, b"x")[0], ERR_INVALID)
        wire.start_tls(self.context())
        wire.info(NAME, number=GO)
        self.assertEqual(wire.error(FLUSH), 0)

    def test_abort_is_acknowledged(self):
        """T3 Q6"""
        wire = self.hello()
        self.assertEqual(wire.ask(ABORT)[0], ACK)
        self.assertTrue(wire.ends())

    def test_export_name_drops(self):
        """T3 O1"""
        for flags in (2, 3):
            wire = self.hello(flags)
            wire.send(option(EXPORT_NAME, NAME.encode()))
            self.assertTrue(wire.is_dropped())

    def test_starttls_is_never_offered_to_a_client_without_fixed_newstyle(self):
        """H3"""
        wire = self.hello(flags=2)
        wire.send(option(STARTTLS))
        self.assertTrue(wire.is_dropped())

    def test_tls_required_is_not_said_inside_tls(self):
        """T4"""
        wire = self.secure()
        for number in (LIST, PEEK_EXPORT, STRUCTURED_REPLY, LIST_META, 77):
            self.assertNotEqual(wire.ask(number)[0], ERR_TLS_REQD)

    def libnbd(self, user, key):
        handle = nbd.NBD()
        handle.set_tls(nbd.TLS_REQUIRE)
        handle.set_tls_username(user)
        handle.set_tls_psk_file(str(tls_files.keys_file(self.dir / "mine" / f"{user}.psk", {user: key})))
        handle.set_export_name(NAME)
        handle.connect_unix(self.address)
        return handle

    def test_pre_shared_key_opens_and_picks_aes(self):
        """T9 T10 Q25: an unmodified libnbd, which would rather have ChaCha20"""
        handle = self.libnbd(USER, KEY)
        data = os.urandom(3 * MIB)
        handle.pwrite(data, 4 * MIB)
        self.assertEqual(handle.pread(len(data), 4 * MIB), data)
        self.assertTrue(handle.get_tls_negotiated())
        handle.shutdown()
        self.assert_log_says('AES-128-GCM)')
        self.assertNotIn("CHACHA", self.server.log)

    def test_wrong_key_and_unknown_user_are_refused(self):
        """T9 T7"""
        for user, key in ((USER, KEY[::-1]), ("nobody", KEY)):
            with self.assertRaises(nbd.Error):
                self.libnbd(user, key)
        self.assert_log_says("TLS handshake failed:")

    def test_users_come_and_go_while_the_server_runs(self):
        """T9: the file is read again; one that others may read lets nobody in"""
        with self.assertRaises(nbd.Error):
            self.libnbd("late", KEY)
        tls_files.keys_file(self.keys, {USER: KEY, "late": KEY})
        self.libnbd("late", KEY).shutdown()
        with self.assertRaises(nbd.Error):
            self.libnbd("other", KEY[::-1])
        self.keys.chmod(0o640)
        with self.assertRaises(nbd.Error):
            self.libnbd("late", KEY)
        self.assert_log_says("chmod 0600")
        self.keys.chmod(0o600)
        self.libnbd("late", KEY).shutdown()

    def test_a_file_of_psktool_is_understood(self):
        """T9"""
        run_client("psktool", "-u", "carol", "-p", self.keys)
        self.keys.chmod(0o600)
        (line,) = [line for line in self.keys.read_text().splitlines() if line.startswith("carol:")]
        self.libnbd("carol", bytes.fromhex(line.split(":")[1])).shutdown()


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
        self.assertIn("--tls: \"maybe\" is none of off, on, require", self.refusal("-p", 0, "--tls=maybe"))
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
