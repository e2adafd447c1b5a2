#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Fulls into the chain, and what change tracking has missed."""

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import qemu, run, scratch  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.qcow2_bytes import Qcow2Bytes  # noqa: E402
from test_pull import CLUSTER, VM, Pulls  # noqa: E402

SIZE = 32 * MIB


def overwrite(raw, clusters, seed):
    """64 other bytes in each of the clusters."""
    draw = random.Random(seed)
    with open(raw, "r+b") as file:
        for cluster in clusters:
            file.seek(cluster * CLUSTER + draw.randrange(CLUSTER - 64))
            file.write(draw.randbytes(64))


class Tracking(Pulls):
    def setUp(self):
        super().setUp()
        self.raw = self.dir / "source.raw"
        self.raw.write_bytes(random.Random(1).randbytes(SIZE))
        self.listed = self.dir / "areas"
        self.words = ("--disk", f"0={self.raw}")

    def list_changes(self, clusters):
        self.listed.write_text("".join(f"{cluster * CLUSTER} {CLUSTER}\n" for cluster in sorted(clusters)))
        return (*self.words, "--changed", f"0={self.listed}")

    def changed_clusters(self, since):
        target = f"/backups/{self.newest()['backup_id']}/changes"
        found = self.hub.get(target, since=since).body
        return {at // CLUSTER for r in found["ranges"] for at in range(r["offset"], r["offset"] + r["length"], CLUSTER)}

    def miss_100(self):
        """A full, and an incremental whose list leaves out 100 of the clusters that have changed. Returns those."""
        self.pull(*self.words, "--checkpoint", "one")
        draw = random.Random(2)
        changed = draw.sample(range(SIZE // CLUSTER), 150)
        missed, listed = changed[:100], changed[100:]
        overwrite(self.raw, changed, 3)
        self.pull(*self.list_changes(listed), "--since", "one", "--checkpoint", "two")
        return set(missed)

    def test_100_planted_omissions_are_all_found_by_a_full_into_the_chain(self):
        missed = self.miss_100()
        wrong = self.newest()["backup_id"]
        *_, published = self.events(*self.words, "--into-chain", "--checkpoint", "three")
        self.assertEqual((published["backup_type"], published["into_chain"]), ("full", True))
        self.assertEqual(self.changed_clusters(wrong), missed)
        self.assert_newest_equals(self.raw)
        [disk] = self.disks(published["backup_id"])
        self.assertEqual((disk["backup_type"], disk["parent_backup_id"]), ("incremental", wrong))
        self.assertEqual(disk["bytes_stored"], 100 * CLUSTER)
        self.assertEqual(disk["bytes_elided"], SIZE - 100 * CLUSTER)
        self.assertLess(self.stored(), 100 * CLUSTER + MIB)
        self.assertTrue(self.job(published["backup_id"])["into_chain"])

    def test_what_changes_honestly_is_told_from_what_tracking_has_missed(self):
        missed = self.miss_100()
        honest = set(random.Random(4).sample(range(SIZE // CLUSTER), 40))
        overwrite(self.raw, honest, 5)
        words = (*self.list_changes(honest), "--since", "two", "--check-tracking")
        _, refused = self.pull(*self.list_changes(honest), "--since", "one", "--check-tracking", status=11)
        self.assertIn("base is not the parent", refused)
        events = self.events(*words)
        [told] = [event for event in events if event["event"] == "untracked"]
        found = {at // CLUSTER for r in told["ranges"] for at in range(r["offset"], r["offset"] + r["length"], CLUSTER)}
        self.assertEqual(found, missed - honest)
        self.assertEqual(told["bytes"], len(missed - honest) * CLUSTER)
        self.assert_newest_equals(self.raw)

    def test_tracking_that_is_right_is_said_to_have_missed_nothing(self):
        self.pull(*self.words, "--checkpoint", "one")
        overwrite(self.raw, range(5, 25), 6)
        events = self.events(*self.list_changes(range(5, 25)), "--since", "one", "--check-tracking")
        [told] = [event for event in events if event["event"] == "untracked"]
        self.assertEqual((told["count"], told["bytes"]), (0, 0))
        self.assert_newest_equals(self.raw)

    def test_samples_of_what_is_called_clean_find_omissions_and_mend_them(self):
        missed = self.miss_100()
        events = self.events(*self.list_changes([]), "--since", "two", "--sample", "100%")
        [told] = [event for event in events if event["event"] == "untracked"]
        self.assertEqual(told["sampled_clusters"], SIZE // CLUSTER)
        self.assertEqual({r["offset"] // CLUSTER for r in told["ranges"]}, missed)
        self.assert_newest_equals(self.raw)
        *_, published = events
        self.assertEqual(published["backup_type"], "incremental")

    def test_some_samples_are_about_as_many_as_was_asked_for(self):
        self.miss_100()
        _, text = self.pull(*self.list_changes([]), "--since", "two", "--sample", "25%")
        self.assertIn("Do not trust the tracking of this disk", text)
        events = self.events(*self.list_changes([]), "--since", self.newest()["change_id"], "--sample", "25%")
        [told] = [event for event in events if event["event"] == "untracked"]
        self.assertTrue(60 < told["sampled_clusters"] < 200, told)  # of 512; the odds against are 1 : 10^9

    def test_a_rotten_cluster_is_healthy_in_the_newest_point_after_a_full_into_the_chain(self):
        self.pull(*self.words, "--checkpoint", "one")
        image = Qcow2Bytes(self.images(VM)[0])
        at = image.host(7) + 100
        image.write(at, bytes([image.read(at, 1)[0] ^ 1]))
        self.pull(*self.words, "--into-chain")
        self.assert_newest_equals(self.raw)
        self.assertEqual(self.disks(self.newest()["backup_id"])[0]["bytes_stored"], CLUSTER)

    def test_the_first_full_into_a_chain_begins_it(self):
        *_, published = self.events(*self.words, "--into-chain")
        self.assertEqual((published["backup_type"], published["into_chain"]), ("full", False))
        self.assert_newest_equals(self.raw)


class ByHand(HubCase):
    def test_what_is_not_sent_into_the_chain_reads_as_zeroes(self):
        data = random.Random(7).randbytes(4 * MIB)
        self.register("vm", [4 * MIB])
        self.quick_backup("vm", ["u/1"], writes=[(0, data)])
        writes = [(MIB, data[MIB : 2 * MIB]), (3 * MIB + 100, data[:5000])]
        self.quick_backup("vm", ["u/2"], writes=writes, into_chain=True)
        raw = self.dir / "wanted.raw"
        wanted = bytearray(4 * MIB)
        for offset, content in writes:
            wanted[offset : offset + len(content)] = content
        raw.write_bytes(wanted)
        first, second = self.images("vm")
        qemu.verify(second, raw)
        self.assertLess(scratch.allocated_bytes(second), MIB)
        raw.write_bytes(data)
        qemu.verify(first, raw)

    def test_a_full_into_the_chain_gives_the_client_no_change_id(self):
        self.register("vm", [4 * MIB])
        self.quick_backup("vm", ["u/1"], writes=[(0, bytes(5))])
        self.start("vm", into_chain=True)
        self.assertEqual(self.hub.get("/backups/changeid", vm_name="vm", disk_id=0).body["change_id"], "")

    def test_into_chain_belongs_to_a_full(self):
        self.register("vm", [4 * MIB])
        self.quick_backup("vm", ["u/1"], writes=[(0, bytes(5))])
        answer = self.post("vm", "incremental", into_chain=True)
        self.assert_problem(answer, 400, "into_chain needs backup_type 'full'", "into_chain_without_full")


if __name__ == "__main__":
    run.main()
