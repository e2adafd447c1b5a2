#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""TLS by a raw socket against `varve nbd`.

The ids in the docstrings are the rows of docs/nbd-support.md.  After each case the process must
still serve a fresh connection.
"""

import os
import ssl
import sys
import time
from pathlib import Path

import nbd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run, tls_files  # noqa: E402
from harness.tls_case import *  # noqa: E402, F403  the suites' case, and the wire's words


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
        self.assert_log_says("client sent data after STARTTLS before our reply")

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


if __name__ == "__main__":
    run.main()
