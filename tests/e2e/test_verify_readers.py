#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`varve verify` reads the content by libqcow too, in a process of its own that may die without harm."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run, scratch  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.daemon import binary  # noqa: E402
from harness.qcow2_bytes import Qcow2Bytes  # noqa: E402

VM = "web01"
CLUSTER = 65536
DAMAGED = 13


class Readers(HubCase):
    options = {"reader_patience": "1s"}

    def setUp(self):
        super().setUp()
        self.register(VM, [16 * MIB + 512])  # the last cluster is a part of one

    def back_up(self, increments=2):
        """A full with zeroes in it, and increments; the ids of the backups."""
        dice = random.Random(5)
        last = (16 * MIB, b"l" * 512)
        ids = [self.quick_backup(VM, ["a/1"], writes=[(0, dice.randbytes(3 * MIB)), (5 * MIB, bytes(MIB)), last])]
        for number in range(increments):
            writes = [(number * CLUSTER, dice.randbytes(CLUSTER)), (2 * MIB + 512, dice.randbytes(2048)), (MIB, bytes(CLUSTER))]
            ids.append(self.quick_backup(VM, [f"a/{number + 2}"], "incremental", writes))
        return [job["backup_id"] for job in ids]

    def verify(self, *words, status=0):
        done = subprocess.run([binary(), "verify", VM, *words, "--server", self.hub.url, "--json"], capture_output=True, text=True,
                              timeout=60, check=False)  # fmt: skip
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        events = [json.loads(line) for line in done.stdout.splitlines()]
        return [event for event in events if event["event"] == "image"]

    def test_both_readers_cover_the_same_bytes_of_a_chain(self):
        self.back_up()
        images = self.verify()
        stored = [50 * CLUSTER - CLUSTER, 2 * CLUSTER, 2 * CLUSTER]  # 48 of 3 MiB, and the last one
        self.assertEqual([image["data_bytes"] for image in images], stored)
        for image, size in zip(images, stored, strict=True):
            self.assertEqual(image["result"], "sound")
            self.assertEqual(image["second_reader"], {"reader": "libqcow", "stored_bytes": size, "covered_bytes": size,
                                                      "damaged_bytes": 0, "damaged": []})  # fmt: skip
        text = subprocess.run([binary(), "verify", VM, "--server", self.hub.url], capture_output=True, text=True, check=True).stdout
        self.assertIn("    libqcow: 3.1 MiB of 3.1 MiB stored compared (100.0 %)\n", text)
        self.assertEqual(self.processes(), [], "no process is left")

    def test_the_catalogue_remembers_what_each_reader_covered(self):
        self.back_up(increments=0)
        self.verify()
        self.hub.stop()
        with sqlite3.connect(self.hub.catalogue) as catalogue:
            [(covered,)] = catalogue.execute("SELECT second_reader ->> 'covered_bytes' FROM verification").fetchall()
        self.assertEqual(covered, 49 * CLUSTER)
        self.hub.start()

    def test_one_of_them_can_be_chosen(self):
        self.back_up(increments=1)
        full, increment = self.verify("--reader", "varve")
        self.assertEqual((full["data_bytes"], full["second_reader"]), (49 * CLUSTER, None))
        full, increment = self.verify("--reader", "libqcow")
        self.assertEqual((full["result"], full["data_bytes"]), ("sound", 0))
        self.assertEqual(full["second_reader"]["covered_bytes"], 49 * CLUSTER)
        self.assertEqual((increment["data_bytes"], increment["zero_bytes"]), (0, CLUSTER), "zeroes are varve's to compare")

    def test_a_flipped_bit_is_found_by_both(self):
        self.back_up()
        image = Qcow2Bytes(self.images(VM, 0)[0])
        at = image.host(5) + 12345
        image.write(at, bytes([image.read(at, 1)[0] ^ 4]))
        for reader in ("both", "varve", "libqcow"):
            with self.subTest(reader):
                found = self.verify("--reader", reader, status=DAMAGED)[0]
                self.assertEqual((found["result"], found["damaged_bytes"]), ("damaged", CLUSTER))
                by = {"varve": found["damaged"], "libqcow": (found["second_reader"] or {}).get("damaged", [])}
                for name, ranges in by.items():
                    expected = [(5 * CLUSTER, CLUSTER, "reads differently")] if reader in (name, "both") else []
                    self.assertEqual([(r["offset"], r["length"], r["what"]) for r in ranges], expected, name)

    def processes(self):
        """Those that libqcow runs in for this server."""
        found = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(status.read_text().rpartition(")")[2].split()[1])
                words = (status.parent / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if parent == self.hub.ready["pid"] and b"read-image" in words:
                found.append(int(status.parent.name))
        return found

    def under_way(self, rate="1M"):
        """A verification whose process waits for its next request, and that process."""
        task = self.hub.api("POST", "/verifications", {"bytes_per_second": int(rate[:-1]) * MIB}).body["verification_id"]
        [process] = scratch.wait_until(self.processes, 10, "libqcow reads")
        return task, process

    def ended(self, task):
        def is_over():
            answer = self.hub.get(f"/verifications/{task}").body
            return answer if answer["state"] != "running" else None

        return scratch.wait_until(is_over, 30, "the verification has ended")

    def test_a_process_that_is_killed_or_stopped_is_a_sentence_and_no_damage(self):
        self.back_up(increments=0)
        for number, sentence in {signal.SIGSEGV: "libqcow was killed by signal 11 (SIGSEGV); it had read ",
                                 signal.SIGSTOP: "libqcow gave no answer for 1 s and was ended; it had read "}.items():  # fmt: skip
            with self.subTest(number.name):
                task, process = self.under_way()
                os.kill(process, number)
                answer = self.ended(task)
                [image] = answer["images"]
                self.assertEqual((answer["state"], answer["damaged_backups"]), ("completed", []))
                self.assertEqual((image["result"], image["data_bytes"]), ("sound", 49 * CLUSTER))
                self.assertIn(sentence, image["second_reader"]["problem"])
                self.assertLess(image["second_reader"]["covered_bytes"], 49 * CLUSTER)
                self.assertEqual(self.processes(), [])
        self.assertEqual(self.hub.get("/verifications").status, 200, "varve goes on")

    def test_what_libqcow_has_not_read_is_read_by_varve_whoever_was_chosen(self):
        self.back_up(increments=0)
        body = {"bytes_per_second": MIB, "readers": ["libqcow"]}
        task = self.hub.api("POST", "/verifications", body).body["verification_id"]
        [process] = scratch.wait_until(self.processes, 10, "libqcow reads")
        os.kill(process, signal.SIGKILL)
        [image] = self.ended(task)["images"]
        self.assertEqual((image["result"], image["data_bytes"]), ("sound", 49 * CLUSTER))

    def test_a_cancellation_ends_the_process(self):
        self.back_up(increments=0)
        task, process = self.under_way()
        os.kill(process, signal.SIGSTOP)
        begun = time.monotonic()
        self.assertEqual(self.hub.api("DELETE", f"/verifications/{task}").body["state"], "cancelled")
        self.assertLess(time.monotonic() - begun, 5)
        self.assertEqual(self.processes(), [])

    def test_the_process_goes_with_a_server_that_is_killed(self):
        self.back_up(increments=0)
        _, process = self.under_way()
        os.kill(process, signal.SIGSTOP)
        self.hub.kill()
        scratch.wait_until(lambda: not self.is_alive(process), 10, "the process has gone")
        self.hub.start()

    def is_alive(self, process):
        try:
            return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def test_an_image_that_libqcow_cannot_read_right_is_not_given_to_it(self):
        self.back_up(increments=0)
        image = Qcow2Bytes(self.images(VM, 0)[0])
        image.write(80, (1 << 5).to_bytes(8, "big"))  # a compatible bit that nobody knows
        [found] = self.verify()
        self.assertEqual(found["result"], "sound")
        self.assertEqual(found["second_reader"]["problem"], "libqcow does not read such images right (compatible bits)")
        self.assertEqual(found["second_reader"]["covered_bytes"], 0)


if __name__ == "__main__":
    run.main()
