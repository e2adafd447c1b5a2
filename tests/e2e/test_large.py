#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A disk of 1 TiB: `complete` answers within its time, whatever the disk took before. And a VM of as
many disks as one may have.

The time of `complete` is that of the last commit (bounded by --commit-bytes) and of the checker,
which reads every L2 table and compares every refcount. All 2,048 tables of the disk are touched
here, as by the 100 GiB of changes of the requirement, with less data in each of them.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import qemu, run, scratch  # noqa: E402
from harness.case import MIB, HubCase, rounds  # noqa: E402

TIB = 1 << 40
TABLE_BYTES = 512 << 20  # of the disk, in one L2 table
CLUSTER = 65536
CLUSTERS_PER_TABLE = rounds(4, 128)  # 0.5 GiB, 16 GiB
LIMIT_SECONDS = 15
DISKS_MAX = 128 if os.environ.get("VARVE_SANITIZED") else 1024  # a start must answer in time


class Large(HubCase):
    options = {"space_reserve": "0"}

    def test_complete_of_a_tebibyte_with_changes_everywhere_is_quick(self):
        self.register("huge", [TIB])
        job = self.start("huge")
        handle = self.connect(job)
        data = b"\xa5" * CLUSTER
        for cluster in range(CLUSTERS_PER_TABLE):
            for table in range(TIB // TABLE_BYTES):
                handle.pwrite(data, table * TABLE_BYTES + cluster * 2 * CLUSTER)
        begun = time.monotonic()
        self.complete_ok(job, "u/1", 0)
        seconds = time.monotonic() - begun
        stored = self.disks(job["backup_id"])[0]["bytes_stored"]
        print(f"complete took {seconds:.2f} s; {stored >> 20} MiB in {TIB // TABLE_BYTES} tables", flush=True)
        self.assertLess(seconds, LIMIT_SECONDS)
        self.assertEqual(stored, TIB // TABLE_BYTES * CLUSTERS_PER_TABLE * CLUSTER)
        qemu.check(self.images("huge")[0])


class ManyDisks(HubCase):
    options = {"port_count": 0}  # all exports at one address

    def start_patiently(self, vm_name):
        """A machine that is busy makes so many images late; the answer says to ask again."""
        answer = self.post(vm_name)
        if answer.status == 200:
            return answer.body
        self.assertEqual(answer.body["code"], "answer_is_late", answer)
        [job] = self.hub.get("/backups").body["backups"]
        scratch.wait_until(lambda: self.job(job["backup_id"])["state"] == "running", 60, "the backup has begun")
        return self.job(job["backup_id"])

    def test_varve_ends_and_starts_in_time_while_a_vm_of_the_most_disks_is_backed_up(self):
        self.register("wide", [MIB] * DISKS_MAX)
        job = self.start_patiently("wide")
        self.assertEqual(len(job["disk_results"]), DISKS_MAX)
        handles = [self.connect(job, index) for index in range(0, DISKS_MAX, 16)]
        for handle in handles:
            handle.pwrite(b"\xa5" * CLUSTER, 0)
        begun = time.monotonic()
        self.assertEqual(self.hub.stop(), 0)
        stopped = time.monotonic()
        self.hub.start()
        print(f"stopped in {stopped - begun:.2f} s, started in {time.monotonic() - stopped:.2f} s", flush=True)
        self.assertLess(stopped - begun, LIMIT_SECONDS)
        self.assertLess(time.monotonic() - stopped, LIMIT_SECONDS)
        self.assertEqual(self.job(job["backup_id"])["status"], "failed")
        self.assert_nothing_left()


if __name__ == "__main__":
    run.main()
