#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Names of jobs, exports, images and contexts: safe everywhere, and what the client reads out of them."""

import hashlib
import random
import re
import sys
import unicodedata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run  # noqa: E402
from harness.case import MIB, HubCase, rounds  # noqa: E402

TABLE = {  # docs/jobs.md, "Names"
    "pgtest1": "pgtest1",
    "Web Server 01": "Web_Server_01-2fd50c",
    "x-disk3-y": "x_disk3-y-5647bb",
    "disk3": "_disk3-e8e9e7",
    "Büro-Server": "B_ro-Server-c313e0",
    "データベース": "_-24be0b",
    "a" * 80: "a" * 33 + "-0f45e8",
}
RANDOM_NAMES = rounds(60, 1000)
PIECES = ["disk", "-disk", "-", ".", "_", " ", "/", "%2F", "?", "#", ",", ":", "é", "漢", "😀", "7", "a", "Z", "disk9-", "'", '"', "\\"]


def safe(name):
    """The four rules of docs/jobs.md, "Names", written again."""
    text = re.sub(r"[^A-Za-z0-9._-]+", "_", name)
    text = re.sub(r"^disk(?=\d)", "_disk", text)
    text = re.sub(r"-disk(?=\d)", "_disk", text)
    text = re.sub(r"^[.-]+", "_", text)
    if text == name and len(text) <= 40:
        return text
    return f"{text[:33] or 'vm'}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def random_name(dice):
    """1 to 255 bytes of UTF-8 without control characters, rich in what hurts."""
    text = "".join(dice.choice(PIECES) for _ in range(dice.randrange(1, 30)))
    text += "".join(chr(dice.randrange(0x20, 0x3000)) for _ in range(dice.randrange(0, 6)))
    text = "".join(letter for letter in text if unicodedata.category(letter)[0] != "C")
    return text.encode()[:255].decode(errors="ignore") or "x"


class Names(HubCase):
    def start_once(self, name):
        self.register(name, [MIB, MIB], vm_path="/DC1/vm/inventory")
        job = self.start(name)
        self.assertEqual(self.hub.api("POST", f"/backups/{job['backup_id']}/cancel").status, 200)
        return job

    def check_names(self, name, job, expected_safe):
        escaped = re.escape(expected_safe)
        self.assertEqual(job["vm_name"], name)
        self.assertRegex(job["backup_id"], rf"^backup-{escaped}-\d{{10}}(-\d+)?$")
        self.assertLessEqual(len(job["backup_id"]), 64)
        self.assertNotRegex(job["backup_id"], r"-disk\d+-")
        self.assertRegex(job["vm_context_id"], rf"^ctx-{escaped}-\d{{8}}-\d{{6}}$")
        self.assertLessEqual(len(job["vm_context_id"]), 64)
        for index, disk in enumerate(job["disk_results"]):
            self.assertRegex(disk["nbd_export_name"], rf"^{escaped}-\d{{10}}(-\d+)?-disk{index}$")
            self.assertLessEqual(len(disk["nbd_export_name"]), 64)
            image = rf"^backup-{escaped}-disk{index}-\d{{8}}-\d{{6}}(-\d+)?\.qcow2$"
            self.assertRegex(Path(disk["qcow2_path"]).name, image)
        self.assertEqual([target.disk_index for target in self.targets(job)], [0, 1])

    def test_the_examples_of_the_table_come_out_as_written(self):
        """A22 the table's examples"""
        for name, wanted in TABLE.items():
            with self.subTest(name=name):
                self.assertEqual(safe(name), wanted, "the test's own rules")
                self.check_names(name, self.start_once(name), wanted)

    def test_any_name_gives_ids_that_the_client_reads_correctly(self):
        """A22 property over random UTF-8; the client's two patterns"""
        dice = random.Random(22)
        for name in {random_name(dice) for _ in range(RANDOM_NAMES)}:
            with self.subTest(name=name):
                self.check_names(name, self.start_once(name), safe(name))

    def test_two_jobs_in_one_second_get_different_names(self):
        """A22 two POSTs in one second; export names are unique for ever"""
        self.register("vm", [MIB])
        jobs = []
        for _ in range(4):
            jobs.append(self.start("vm"))
            self.hub.api("POST", f"/backups/{jobs[-1]['backup_id']}/cancel")
        for names in (
            [job["backup_id"] for job in jobs],
            [job["disk_results"][0]["nbd_export_name"] for job in jobs],
            [job["disk_results"][0]["qcow2_path"] for job in jobs],
        ):
            self.assertEqual(len(set(names)), len(jobs), names)

    def test_names_that_no_vm_may_have_are_refused(self):
        """A22 A26 PUT rules: control characters, length"""
        for name in ("a\x01b", "a\x7fb", "x" * 256):
            with self.subTest(name=name):
                self.assert_problem(self.hub.register(name, [MIB], vm_path="/DC1/vm/x"), 400, "invalid vm context")


if __name__ == "__main__":
    run.main()
