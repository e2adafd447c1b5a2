#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The handshake and what is negotiated in it, by a raw socket against `varve nbd`.

The ids in the docstrings are the rows of docs/nbd-support.md.  After each case the process must
still serve a fresh connection.
"""

import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run, scratch  # noqa: E402
from harness.conformance import *  # noqa: E402, F403  the suites' case, and the wire's words


class Handshake(Conformance):
    """docs/nbd-support.md, 1 and 2."""

    def test_greeting_comes_before_any_client_byte(self):
        """H1"""
        self.assertEqual(self.connect().receive(18), GREETING)

    def test_unknown_client_flags_and_a_wrong_magic_drop(self):
        """H2 Q18"""
        self.assertTrue(self.hello(flags=4).is_dropped())
        wire = self.hello()
        wire.send(b"x" * 16)
        self.assertTrue(wire.is_dropped())

    def test_end_of_stream_at_every_byte_is_survived(self):
        """H2"""
        talk = struct.pack(">I", 3) + option(GO, info_data(NAME, (3,)))
        for size in range(len(talk)):
            with self.connect() as wire:
                wire.send(talk[:size])

    def test_client_without_fixed_newstyle_may_only_name_an_export(self):
        """H3 Q18"""
        for number in (LIST, GO, STARTTLS, ABORT):
            wire = self.hello(flags=0)
            wire.send(option(number))
            self.assertTrue(wire.is_dropped(), number)

    def test_export_name_is_padded_unless_the_client_says_no(self):
        """H4 O1"""
        for flags in (0, 1, 2, 3):
            wire = self.hello(flags)
            wire.send(option(EXPORT_NAME, NAME.encode()))
            reply = wire.receive(10 if flags & 2 else 134)
            self.assertEqual(reply[:10], struct.pack(">QH", self.size, 0x096D))
            self.assertEqual(reply[10:].strip(b"\0"), b"")
            self.assertEqual(wire.error(FLUSH), 0)

    def test_strings_that_are_no_text_are_refused(self):
        """H5"""
        wire = self.hello()
        for name in (b"\xc3\x28", b"a\0b", b"a" * 4097):
            self.assertEqual(wire.ask(GO, info_data(name))[0], ERR_INVALID)
            other = self.hello()
            other.send(option(EXPORT_NAME, name))
            self.assertTrue(other.is_dropped())

    def test_too_long_an_option_drops_before_its_data(self):
        """H6 Q13"""
        wire = self.hello()
        wire.send(OPTION_MAGIC + struct.pack(">II", GO, 65537))
        self.assertTrue(wire.is_dropped())

    def test_options_are_read_in_full_before_the_reply(self):
        """H7 Q13"""
        wire = self.hello()
        wire.send(option(77, b"x" * 65536)[:-1])
        self.assertTrue(wire.is_quiet())
        wire.send(b"x")
        self.assertEqual(wire.answer()[1], ERR_UNSUP)
        self.assertEqual(wire.ask(STRUCTURED_REPLY)[0], ACK)

    def test_fragmentation_changes_nothing(self):
        """H8"""
        talk = option(STRUCTURED_REPLY) + option(99, b"abc") + option(LIST) + option(INFO, info_data(NAME))
        seen = []
        for step in (1, len(talk)):
            wire = self.hello()
            for at in range(0, len(talk), step):
                wire.send(talk[at : at + step])
            seen.append([wire.answers() for _ in range(4)])
        self.assertEqual(*seen)

    def test_trickle_does_not_extend_the_patience(self):
        """H9 Q11"""
        idle, trickle = self.hello(), self.hello()
        start = time.monotonic()
        trickle.send(OPTION_MAGIC + struct.pack(">II", 99, 60000))
        while time.monotonic() - start < 9:
            self.assertTrue(trickle.is_quiet(0.5))
            trickle.send(b"x")
        self.assertTrue(trickle.is_dropped())
        self.assertTrue(idle.is_dropped())
        self.assertLess(time.monotonic() - start, 13)

    def test_number_of_options_is_bounded(self):
        """H10"""
        wire = self.hello()
        for _ in range(65536 // 1024):
            wire.send(option(99) * 1024)
            for _ in range(1024):
                wire.answer()
        self.assertTrue(wire.is_dropped())

    def test_oldest_handshake_makes_room(self):
        """H11 Q11"""
        waiting = [self.connect() for _ in range(258)]
        for wire in waiting:
            wire.receive(18)
        self.assertTrue(waiting[0].is_dropped())
        self.assertEqual(self.open().error(FLUSH), 0)
        waiting[-1].send(struct.pack(">I", 3))
        self.assertEqual(waiting[-1].ask(99)[0], ERR_UNSUP)

    def test_abort_is_acknowledged_then_the_stream_ends(self):
        """O2 Q6 Q19"""
        wire = self.hello()
        wire.send(option(ABORT, b"data") + b"more that nobody reads" * 1000)
        self.assertEqual(wire.answer(), (ABORT, ACK, b""))
        self.assertTrue(wire.ends())

    def test_list_names_the_export_and_takes_no_data(self):
        """O3 Q16"""
        wire = self.hello()
        entry = struct.pack(">I", len(NAME)) + NAME.encode()
        answers = wire.ask_all(LIST)
        self.assertEqual([kind for kind, _ in answers], [SERVER, ACK])
        self.assertTrue(answers[0][1].startswith(entry))
        self.assertEqual(wire.ask(LIST, b"x"), (ERR_INVALID, "LIST takes no data"))

    def test_unknown_options_are_unsupported(self):
        """O4"""
        wire = self.hello()
        for number in (0, PEEK_EXPORT, 12, 0xFFFFFFFF):
            self.assertEqual(wire.ask(number), (ERR_UNSUP, f"option {number} is not supported"))

    def test_starttls_is_refused_where_tls_is_off(self):
        """O5 T1 Q20"""
        wire = self.hello()
        self.assertEqual(wire.ask(STARTTLS), (ERR_POLICY, "TLS is disabled on this listener"))
        self.assertEqual(wire.ask(STARTTLS, b"x"), (ERR_INVALID, "STARTTLS takes no data"))

    def test_info_says_what_go_says(self):
        """O6 O7 O8 B1 B2 B3 B4 F1 Q9 Q17"""
        for structured, flags in ((False, 0x096D), (True, 0x09ED)):
            wire = self.hello()
            if structured:
                wire.ask(STRUCTURED_REPLY)
            before = wire.info(NAME, (1, 2, 3, 3, 77))
            self.assertEqual(before[0], struct.pack(">QH", self.size, flags))
            self.assertEqual(before[3], struct.pack(">III", 1, CLUSTER, 32 * MIB))
            self.assertEqual(before[1], NAME.encode())
            self.assertIn(2, before)
            self.assertEqual(wire.info(NAME, (1, 2, 3, 3, 77), number=GO), before)
            self.assertEqual(wire.error(FLUSH), 0)

    def test_go_with_no_info_requests(self):
        """O8 K5"""
        wire = self.hello()
        self.assertEqual(set(wire.info(NAME, (), number=GO)), {0, 3})

    def test_malformed_go_is_refused(self):
        """O7"""
        wire = self.hello()
        good = info_data(NAME, (3, 1))
        for data in [good[:size] for size in range(len(good))] + [good + b"x", b"\xff\xff\xff\xff" + good[4:]]:
            self.assertEqual(wire.ask(GO, data), (ERR_INVALID, "malformed GO request"))
        self.assertEqual(wire.ask(INFO), (ERR_INVALID, "malformed INFO request"))

    def test_unknown_name(self):
        """O9 O1 Q16"""
        wire = self.hello()
        for number in (INFO, GO):
            self.assertEqual(wire.ask(number, info_data("x y")), (ERR_UNKNOWN, 'export "x y" does not exist'))
        wire.send(option(EXPORT_NAME, b"x y"))
        self.assertTrue(wire.is_dropped())

    def test_empty_name_means_the_default_export(self):
        """O10"""
        wire = self.hello()
        answers = wire.info("", (), number=GO)
        self.assertEqual(answers[1], NAME.encode())  # told, because it differs
        self.assertEqual(wire.error(FLUSH), 0)

    def test_full_export_says_so(self):
        """O11 X1 Q1"""
        held = [self.open() for _ in range(64)]
        start = time.monotonic()
        wire = self.hello()
        self.assertEqual(
            wire.ask(GO, info_data(NAME)), (ERR_POLICY, f'export "{NAME}" already has 64 connections (limit 64)')
        )
        self.assertLess(time.monotonic() - start, 1)
        other = self.hello()
        other.send(option(EXPORT_NAME, NAME.encode()))
        self.assertTrue(other.is_dropped())
        for one in held:
            self.assertEqual(one.error(FLUSH), 0)
            one.close()
        scratch.wait_until(lambda: self.hello().ask(GO, info_data(NAME))[0] == ACK, 5, "a place is free again")

    def test_structured_reply_may_be_asked_twice(self):
        """O13"""
        wire = self.hello()
        self.assertEqual(wire.ask(STRUCTURED_REPLY)[0], ACK)
        self.assertEqual(wire.ask(STRUCTURED_REPLY)[0], ACK)
        self.assertEqual(wire.ask(STRUCTURED_REPLY, b"x")[0], ERR_INVALID)


class Contexts(Conformance):
    """docs/nbd-support.md, 6, as far as it is negotiated, and O14, O15, O18."""

    def listed(self, wire, *queries):
        answers = wire.ask_all(LIST_META, meta_data(NAME, queries))
        self.assertEqual(answers[-1][0], ACK)
        self.assertTrue(all(data[:4] == bytes(4) for kind, data in answers if kind == META_CONTEXT))
        return tuple(data[4:].decode() for kind, data in answers if kind == META_CONTEXT)

    def test_list_with_and_without_structured_replies(self):
        """O14 M4"""
        wire = self.hello()
        for _ in range(2):
            self.assertEqual(self.listed(wire), CONTEXTS)
            self.assertEqual(self.listed(wire, "base:"), CONTEXTS[:1])
            self.assertEqual(self.listed(wire, "qemu:"), CONTEXTS[1:])
            self.assertEqual(self.listed(wire, "qemu:dirty-bitmap:"), ())
            self.assertEqual(self.listed(wire, "base:allocation", "base:"), CONTEXTS[:1])
            wire.ask(STRUCTURED_REPLY)

    def test_set_needs_structured_replies(self):
        """O15"""
        wire = self.hello()
        self.assertEqual(
            wire.ask(SET_META, meta_data(NAME, CONTEXTS)), (ERR_INVALID, "structured replies must be negotiated first")
        )

    def test_unknown_queries_are_ignored(self):
        """M4 M5"""
        wire = self.hello()
        wire.ask(STRUCTURED_REPLY)
        for query in ("base:", "qemu:", "base:x", "nbdkit:foo", "nocolon", "", "qemu:dirty-bitmap:since-x"):
            self.assertEqual(len(wire.ask_all(SET_META, meta_data(NAME, [query]))), 1, query)

    def test_requests_that_do_not_fit(self):
        """M6"""
        wire = self.hello()
        wire.ask(STRUCTURED_REPLY)
        data = meta_data(NAME, CONTEXTS)
        for size in range(len(data)):
            self.assertEqual(wire.ask(SET_META, data[:size])[0], ERR_INVALID)
        self.assertEqual(wire.ask(SET_META, data + b"x")[0], ERR_INVALID)
        self.assertEqual(wire.ask(SET_META, meta_data(NAME, ["base:"] * 64))[0], ACK)
        self.assertEqual(wire.ask(SET_META, meta_data(NAME, ["base:"] * 65))[0], ERR_TOO_BIG)
        self.assertEqual(wire.ask(LIST_META, meta_data("nobody"))[0], ERR_UNKNOWN)

    def test_ids_are_unique_and_a_context_comes_once(self):
        """M7"""
        wire = self.hello()
        wire.ask(STRUCTURED_REPLY)
        answers = wire.ask_all(SET_META, meta_data(NAME, CONTEXTS + CONTEXTS))
        ids = [data[:4] for kind, data in answers if kind == META_CONTEXT]
        self.assertEqual((len(ids), len(set(ids))), (2, 2))

    def test_set_replaces_the_earlier_set_also_in_failure(self):
        """O15 O18"""
        for second in (meta_data("nobody", CONTEXTS), meta_data(NAME, ["base:"]), b"x"):
            wire = self.hello()
            wire.ask(STRUCTURED_REPLY)
            self.assertEqual(wire.ask(SET_META, meta_data(NAME, CONTEXTS))[0], ACK)
            wire.ask(SET_META, second)
            wire.structured = True
            wire.info(NAME, number=GO)
            self.assert_refused(wire, EINVAL, BLOCK_STATUS, 0, 512)


if __name__ == "__main__":
    run.main()
