#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Healing: what the newest point lacks is named, and `varve pull --repair` sends it again."""

import json
import random
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run  # noqa: E402
from harness.case import MIB  # noqa: E402
from harness.daemon import binary  # noqa: E402
from harness.qcow2_bytes import Qcow2Bytes  # noqa: E402
from test_pull import CLUSTER, VM, Pulls  # noqa: E402

SIZE = 16 * MIB
DAMAGED = 13


class Repairs(Pulls):
    """A full, and two increments that overwrite clusters 20 to 23 and 24 to 27 of it."""

    def setUp(self):
        super().setUp()
        self.raw = self.dir / "source.raw"
        self.raw.write_bytes(random.Random(1).randbytes(SIZE))
        self.words = ("--disk", f"0={self.raw}")
        self.pull(*self.words, "--checkpoint", "one")
        self.increment(range(20, 24), "one", "two")
        self.increment(range(24, 28), "two", "three")
        self.ids = [point["backup_id"] for point in self.chain(VM)["backups"]]

    def overwrite(self, clusters, seed=2):
        draw = random.Random(seed)
        with open(self.raw, "r+b") as file:
            for cluster in clusters:
                file.seek(cluster * CLUSTER)
                file.write(draw.randbytes(CLUSTER))

    def increment(self, clusters, since, checkpoint):
        self.overwrite(clusters)
        listed = self.dir / "areas"
        listed.write_text("".join(f"{cluster * CLUSTER} {CLUSTER}\n" for cluster in clusters))
        self.pull(*self.words, "--changed", f"0={listed}", "--since", since, "--checkpoint", checkpoint)

    def image(self, number, disk=0):
        """Of the newest chain, by position."""
        return Qcow2Bytes(self.chain(VM, disk)["backups"][number]["file_path"])

    def rot(self, *clusters, number=0):
        """A flipped bit in each of these clusters of an image, the full unless said otherwise."""
        image = self.image(number)
        for cluster in clusters:
            at = image.host(cluster) + 12345
            image.write(at, bytes([image.read(at, 1)[0] ^ 4]))

    def verify(self, point=None, status=DAMAGED):
        name = VM if point is None else f"{VM}@{point}"
        done = subprocess.run([binary(), "verify", name, "--server", self.hub.url, "--json"], capture_output=True, text=True,
                              timeout=120, check=False)  # fmt: skip
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    def wanted(self):
        answer = self.hub.get(f"/vm-contexts/{VM.replace(' ', '%20')}/wanted", repository_id=1)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.body

    def wanted_clusters(self, disk=0):
        """What the newest point lacks, as numbers of clusters."""
        [found] = [one for one in self.wanted()["disks"] if one["disk_id"] == disk]
        for r in found["ranges"]:
            self.assertEqual(len(r.get("sums", [])), 0 if r["zero"] else r["length"] // CLUSTER)
        return [at // CLUSTER for r in found["ranges"] for at in range(r["offset"], r["offset"] + r["length"], CLUSTER)]

    def repair(self, *words, status=0):
        events = self.events(*(words or self.words), "--repair", status=status)
        return {event["event"]: event for event in events}

    def clusters_of(self, ranges):
        return [at // CLUSTER for r in ranges for at in range(r["offset"], r["offset"] + r["length"], CLUSTER)]


    def assert_whole(self, older_damaged):
        self.assert_newest_equals(self.raw)
        self.assertEqual(self.wanted_clusters(), [])
        damaged = {backup for image in self.wanted()["damaged_images"] for backup in image["damaged_backups"]}
        self.assertEqual(damaged, set(older_damaged))


class Wanted(Repairs):
    def test_nothing_is_wanted_of_points_that_are_sound_or_were_never_verified(self):
        self.assertEqual((self.wanted()["bytes"], self.wanted()["complete"]), (0, True))
        self.verify(status=0)
        self.assertEqual((self.wanted_clusters(), self.wanted()["damaged_images"]), ([], []))
        self.assertEqual(list(self.repair()), ["nothing_wanted", "still_damaged"])
        _, text = self.pull(*self.words, "--repair")
        self.assertIn(f"nothing is wanted of {VM}", text)
        self.assertEqual([point["backup_id"] for point in self.chain(VM)["backups"]], self.ids)

    def test_exactly_what_the_newest_point_reads_is_wanted_and_not_what_newer_layers_store(self):
        self.rot(7, 8, 30, 21)
        self.rot(22, number=1)
        self.assertEqual(self.wanted_clusters(), [], "nobody has found it yet")
        end = self.verify()
        self.assertEqual(self.wanted_clusters(), [7, 8, 22, 30])
        wanted = self.wanted()
        self.assertEqual((wanted["bytes"], wanted["complete"]), (4 * CLUSTER, True))
        disk = wanted["disks"][0]
        self.assertEqual((disk["backup_id"], disk["change_id"], disk["size_bytes"]), (self.ids[2], "pull/three", SIZE))
        self.assertEqual([r["length"] for r in disk["ranges"]], [2 * CLUSTER, CLUSTER, CLUSTER])
        images = {image["backup_id"]: image for image in wanted["damaged_images"]}
        self.assertEqual(list(images), self.ids[:2])
        self.assertEqual(images[self.ids[0]]["damaged_backups"], self.ids[:2])
        self.assertEqual(images[self.ids[1]]["damaged_backups"], self.ids[1:2])
        self.assertEqual(end["damaged_backups"], self.ids)

    def test_damage_that_newer_layers_have_overwritten_is_no_damage_of_the_points_that_have_it(self):
        self.rot(21, 22)
        end = self.verify()
        self.assertEqual(end["damaged_backups"], self.ids[:1])
        self.assertEqual(self.wanted_clusters(), [])
        [image] = self.wanted()["damaged_images"]
        self.assertEqual((image["damaged_backups"], image["newest_reads_it"]), (self.ids[:1], False))
        self.rot(40)
        self.assertEqual(self.verify()["damaged_backups"], self.ids)

    def test_more_damage_than_a_verification_remembers_is_healed_step_by_step(self):
        rotten = [cluster for cluster in range(0, 256, 2) if cluster not in range(20, 28)]
        rotten += list(range(33, 256, 16))  # three neighbours are one range
        self.rot(*rotten, 20, 22, 24, 26)
        self.verify()
        self.assertEqual((self.wanted_clusters(), self.wanted()["complete"]), (sorted(rotten), True))

    def test_damage_that_a_verification_does_not_remember_is_said_to_be_there(self):
        size = 32 * MIB
        self.raw.write_bytes(random.Random(1).randbytes(size))
        self.pull(*self.words, "--full", "--checkpoint", "one")
        rotten = list(range(0, 512, 2))
        self.rot(*rotten, number=-1)
        self.verify()
        wanted = self.wanted()
        self.assertEqual((self.wanted_clusters(), wanted["complete"]), (rotten[:128], False))
        [image] = wanted["damaged_images"]
        self.assertEqual((image["unnamed_bytes"], image["newest_reads_it"]), (128 * CLUSTER, True))
        done = self.repair()
        self.assertIn("more of the newest point may be damaged", done["warning"]["message"])
        self.assertEqual(self.wanted_clusters(), [])
        _, text = self.pull(*self.words, "--repair", status=1)
        self.assertIn("verify it again", text)
        self.verify()
        wanted = self.wanted()
        self.assertEqual((self.wanted_clusters(), wanted["complete"]), (rotten[128:], True))
        self.repair()
        self.assertEqual((self.wanted_clusters(), self.wanted()["complete"]), ([], True))
        self.assert_newest_equals(self.raw)
        self.assertNotIn(self.newest()["backup_id"], self.verify()["damaged_backups"])

    def test_of_an_unknown_vm_or_repository_nothing_is_said(self):
        self.assert_problem(self.hub.get("/vm-contexts/none/wanted"), 404, "VM context not found for: none")
        answer = self.hub.get(f"/vm-contexts/{VM.replace(' ', '%20')}/wanted", repository_id=7)
        self.assertEqual(answer.status, 404)


class Healed(Repairs):
    def test_a_repair_sends_what_is_wanted_and_nothing_else_and_the_newest_point_is_whole(self):
        self.rot(7, 8, 22)
        self.verify()
        done = self.repair()
        self.assertEqual(self.clusters_of(done["repaired"]["healed"]), [7, 8])
        self.assertEqual(done["repaired"]["changed"], [])
        self.assertEqual(done["still_damaged"]["backups"], sorted(self.ids))
        self.assertNotIn("warning", done)
        newest = self.newest()
        self.assertEqual((newest["backup_id"], newest["change_id"]), (done["published"]["backup_id"], "pull/three"))
        [disk] = self.disks(newest["backup_id"])
        # The rotten cluster has the sum that its manifest states, and is stored all the same.
        self.assertEqual((disk["bytes_received"], disk["bytes_stored"], disk["bytes_elided"]), (2 * CLUSTER, 2 * CLUSTER, 0))
        self.assertEqual(disk["parent_backup_id"], self.ids[2])
        self.assert_whole(self.ids)
        self.assertNotIn(newest["backup_id"], self.verify()["damaged_backups"])
        self.assert_whole(self.ids)
        self.assertNotIn(newest["backup_id"], self.verify("latest")["damaged_backups"])
        self.assertEqual(list(self.repair()), ["nothing_wanted", "still_damaged"])

    def test_a_cluster_that_cannot_be_read_for_its_damaged_table_entry_is_healed_too(self):
        image = self.image(0)
        image.set_entry(9, 0)  # a hole where data was
        self.verify()
        image.set_entry(10, 0x8000_0000_0000_0201)  # no place for a cluster
        self.verify()
        self.assertEqual(self.wanted_clusters(), [9, 10])
        done = self.repair()
        self.assertEqual(self.clusters_of(done["repaired"]["healed"]), [9, 10])
        self.assert_newest_equals(self.raw)
        self.assertEqual(self.wanted_clusters(), [])

    def test_zeroes_that_are_lost_are_healed_as_zeroes(self):
        with open(self.raw, "r+b") as file:
            file.seek(60 * CLUSTER)
            file.write(bytes(2 * CLUSTER))
        listed = self.dir / "zeroed"
        listed.write_text(f"{60 * CLUSTER} {2 * CLUSTER} hole,zero\n")
        self.pull(*self.words, "--changed", f"0={listed}", "--since", "three", "--checkpoint", "four")
        self.image(3).set_entry(60, 0)  # the full's data shows through
        self.verify()
        [found] = self.wanted()["disks"][0]["ranges"]
        self.assertEqual(found, {"offset": 60 * CLUSTER, "length": CLUSTER, "zero": True})
        self.repair()
        self.assert_whole([self.newest()["parent_backup_id"]])
        self.assertEqual(self.disks(self.newest()["backup_id"])[0]["bytes_zeroed"], CLUSTER)

    def test_the_next_incremental_counts_from_the_checkpoint_of_the_point_that_was_repaired(self):
        self.rot(7)
        self.verify()
        self.repair()
        self.increment(range(50, 53), "three", "four")
        self.assert_whole(self.ids)
        self.assertEqual(self.newest()["change_id"], "pull/four")

    def test_what_has_changed_in_the_source_is_named_and_not_sent(self):
        self.rot(7, 8, 9)
        self.verify()
        old = self.raw.read_bytes()
        self.overwrite([8], seed=9)
        done = self.repair()
        self.assertEqual(self.clusters_of(done["repaired"]["healed"]), [7, 9])
        self.assertEqual(self.clusters_of(done["repaired"]["changed"]), [8])
        self.assertEqual(self.wanted_clusters(), [8])
        _, text = self.pull(*self.words, "--repair", status=1)
        self.assertIn("nothing can be healed", text)
        self.assertIn("--into-chain", text)
        self.assertEqual(self.newest()["backup_id"], done["published"]["backup_id"])
        self.assert_no_backup()
        self.raw.write_bytes(old)
        self.repair()
        self.assert_whole([*self.ids, done["published"]["backup_id"]])

    def test_a_full_into_the_chain_heals_too(self):
        self.rot(7, 8)
        self.verify()
        self.overwrite([8], seed=9)
        self.pull(*self.words, "--into-chain", "--checkpoint", "four")
        self.assert_whole(self.ids)
        self.assertNotIn(self.newest()["backup_id"], self.verify()["damaged_backups"])

    def test_damage_of_a_repair_itself_is_wanted_again(self):
        self.rot(7)
        self.verify()
        self.repair()
        self.rot(7, number=3)
        self.verify()
        self.assertEqual(self.wanted_clusters(), [7])
        self.repair()
        self.assert_newest_equals(self.raw)
        self.assertEqual(self.wanted_clusters(), [])

    def test_without_a_manifest_only_a_full_into_the_chain_heals(self):
        self.rot(7)
        self.verify()
        Path(f"{self.image(0).path}.sums").unlink()
        [disk] = self.wanted()["disks"]
        self.assertEqual(disk["ranges"], [{"offset": 7 * CLUSTER, "length": CLUSTER, "zero": False}])
        done = self.repair(status=1)
        self.assertEqual(self.clusters_of(done["repaired"]["unknown"]), [7])
        self.pull(*self.words, "--into-chain")
        self.assert_whole(self.ids)


class Refused(Repairs):
    def test_a_backup_that_runs_is_not_disturbed(self):
        self.rot(7)
        self.verify()
        running = self.hub.api("POST", "/backups", {"vm_name": VM, "repository_id": "1", "backup_type": "full",
                                                    "client": "external"})  # fmt: skip
        _, text = self.pull(*self.words, "--repair", status=11)
        self.assertIn("already", text)
        self.hub.api("POST", f"/backups/{running.body['backup_id']}/cancel", {})
        self.repair()
        self.assert_newest_equals(self.raw)

    def test_a_disk_with_damage_needs_its_source_and_others_need_none(self):
        two = self.disk("two.raw", 5 * MIB + 512, 2)
        self.pull(*self.words, "--disk", f"1={two}", "--full", "--checkpoint", "both")
        image = self.image(0, disk=1)
        image.write(image.host(0) + 1, bytes([image.read(image.host(0) + 1, 1)[0] ^ 1]))
        self.verify()
        self.assertEqual((self.wanted_clusters(0), self.wanted_clusters(1)), ([], [0]))
        _, text = self.pull(*self.words, "--repair", status=11)
        self.assertIn("disk 1 of VM web 01 has damage, and there is no --disk 1=SOURCE", text)
        _, text = self.pull("--disk", f"4={two}", "--repair", status=11)
        self.assertIn("has no disk 4", text)
        self.repair("--disk", f"1={two}")
        self.assert_newest_equals(self.raw, 0)
        self.assert_newest_equals(two, 1)
        self.assertEqual(self.wanted_clusters(1), [])

    def test_the_last_cluster_of_a_disk_is_healed_although_it_is_a_part_of_one(self):
        two = self.dir / "two.raw"
        two.write_bytes(random.Random(3).randbytes(MIB + 512))
        self.pull(*self.words, "--disk", f"1={two}", "--full")
        image = self.image(0, disk=1)
        at = image.host(16) + 100
        image.write(at, bytes([image.read(at, 1)[0] ^ 1]))
        self.verify()
        disk = self.wanted()["disks"][1]
        self.assertEqual([(r["offset"], r["length"]) for r in disk["ranges"]], [(MIB, 512)])
        self.repair("--disk", f"1={two}")
        self.assert_newest_equals(two, 1)

    def test_a_disk_that_grew_since_is_refused(self):
        self.rot(7)
        self.verify()
        disks = [{"disk_id": "disk-0", "capacity_bytes": SIZE + MIB}]
        answer = self.hub.api("PUT", f"/vm-contexts/{VM.replace(' ', '%20')}", {"disks": disks})
        self.assertEqual(answer.status, 200, answer.body)
        _, text = self.pull(*self.words, "--repair", status=11)
        self.assertIn("has changed since the newest point", text)
        self.assert_no_backup()

    def test_what_repair_excludes_is_wrong_usage(self):
        for words in (("--full",), ("--into-chain",), ("--since", "x"), ("--bitmap", "b"), ("--sample", "1%"),
                      ("--check-tracking",), ("--checkpoint", "x"), ("--changed", "0=f"), ("--trim-source",)):  # fmt: skip
            with self.subTest(words):
                _, text = self.pull(*self.words, "--repair", *words, status=2)
                self.assertIn("do not go with it", text)

    def test_of_a_vm_that_nobody_knows_nothing_is_repaired(self):
        command = [binary(), "pull", "none", "--disk", f"0={self.raw}", "--repair", "--server", self.hub.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 10, done.stderr)


if __name__ == "__main__":
    run.main()
