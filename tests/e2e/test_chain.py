#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Chains and generations."""

import subprocess
import sys
from pathlib import Path

import nbd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import qemu, run, scratch, sources  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.daemon import binary  # noqa: E402


class Chains(HubCase):
    def test_an_empty_chain_is_an_answer_not_an_error(self):
        """A28 no points"""
        self.register("vm", [MIB])
        chain = self.chain("vm")
        self.assertEqual((chain["chain_id"], chain["backups"], chain["backup_count"]), ("", [], 0))

    def test_three_points_are_listed_in_order_with_parents_for_each_disk(self):
        """A28 full + 2, disk 1 too"""
        self.register("vm", [MIB, 2 * MIB])
        jobs = self.points(3, disks=2)
        for disk, size in ((0, MIB), (1, 2 * MIB)):
            chain = self.chain("vm", disk)
            self.assertEqual([point["backup_id"] for point in chain["backups"]], jobs)
            self.assertEqual([point.get("parent_backup_id") or "" for point in chain["backups"]], ["", *jobs[:2]])
            self.assertEqual((chain["full_backup_id"], chain["latest_backup_id"]), (jobs[0], jobs[2]))
            self.assertEqual((chain["backup_count"], chain["disk_id"], chain["generation"]), (3, disk, 1))
            self.assertEqual(chain["chain_id"], f"{chain['vm_context_id']}-disk{disk}-chain")
            files = [point["file_path"] for point in chain["backups"]]
            self.assertEqual([Path(path).stem for path in files], [p["image_id"] for p in chain["backups"]])
            used = [scratch.allocated_bytes(path) for path in files]
            self.assertEqual([point["allocated_bytes"] for point in chain["backups"]], used)
            self.assertEqual(chain["allocated_bytes"], sum(used))
            self.assertEqual(chain["total_size_bytes"], sum(point["total_bytes"] for point in chain["backups"]))
            self.assertEqual(qemu.info(files[-1])["virtual-size"], size)

    def test_both_urls_and_all_ways_to_name_the_vm_agree(self):
        """A28 both URL forms"""
        self.register("vm", [MIB])
        self.points(2)
        by_query = self.chain("vm")
        self.assertEqual(self.hub.get("/backups/vm/chain").body, by_query)
        self.assertEqual(self.hub.get("/backups/chain", vm_context_id=by_query["vm_context_id"]).body, by_query)
        self.assertEqual(self.hub.get("/backups/vm/chain", repository_id="1", disk_id=0, generation=1).body, by_query)

    def test_wrong_questions_are_refused(self):
        """A28 errors of 2.6"""
        self.assert_problem(self.hub.get("/backups/chain"), 400, "vm_context_id or vm_name is required")
        self.assert_problem(self.hub.get("/backups/chain", vm_name="nobody"), 404, "VM not found")
        self.register("vm", [MIB])
        self.assert_problem(self.hub.get("/backups/chain", vm_name="vm", disk_id="x"), 400, "invalid disk_id")

    def test_ten_points_compare_at_every_one(self):
        """A38 full + 9"""
        disks = sources.make_sources(self.dir, [32 * MIB])
        self.register("vm", [32 * MIB])
        for number in range(10):
            self.client_backup("vm", disks, "incremental" if number else "full")
            disks[0].advance(number)
        self.assert_points_equal_sources("vm", disks)
        self.assertEqual(len(qemu.backing_chain(self.images("vm")[-1])), 10)

    def test_a_chain_of_128_points_is_written_verified_and_read_at_its_newest(self):
        expected = bytearray(16 * MIB)
        self.register("vm", [len(expected)])
        for number in range(128):
            # Neighbours overlap by half a cluster, so that most clusters are joined from two points.
            writes = [(number * 65536 + 32768, bytes([number + 1]) * 65536)]
            for offset, data in writes:
                expected[offset : offset + len(data)] = data
            self.quick_backup("vm", [f"u/{number}"], "incremental" if number else "full", writes)
        raw = self.dir / "expected.raw"
        raw.write_bytes(expected)
        newest = self.images("vm")[-1]
        self.assertEqual(len(qemu.backing_chain(newest)), 128)
        qemu.verify(newest, raw)
        for command in (["verify", "vm"], ["restore", "vm", "--to", str(self.dir / "restored.raw")]):
            subprocess.run([binary(), *command, "--server", self.hub.url], check=True, capture_output=True, timeout=60)
        self.assertEqual((self.dir / "restored.raw").read_bytes(), expected)

    def test_a_running_incremental_says_what_changed_since_each_point_below_it(self):
        """M2 M3: by libnbd, while the job runs"""
        self.register("vm", [MIB])
        [old] = self.points(1)  # of a generation that the new jobs do not stand on
        jobs = []
        for number, kind in enumerate(("full", "incremental", "incremental")):
            writes = [(number * 65536, bytes([number + 1]) * 65536)]
            jobs.append(self.quick_backup("vm", [f"c/{number + 2}"], kind, writes)["backup_id"])
        running = self.start("vm", "incremental")
        handle = nbd.NBD()
        contexts = [f"qemu:dirty-bitmap:since-{job}" for job in jobs]
        for name in (*contexts, f"qemu:dirty-bitmap:since-{old}", "qemu:allocation-depth", "base:allocation"):
            handle.add_meta_context(name)
        [target] = self.targets(running)
        handle.set_export_name(target.export)
        handle.connect_tcp(target.host, str(target.port))
        self.assertTrue(all(handle.can_meta_context(name) for name in contexts))
        self.assertFalse(handle.can_meta_context(f"qemu:dirty-bitmap:since-{old}"))
        handle.pwrite(b"q" * 65536, 5 * 65536)
        found = {}
        handle.block_status(MIB, 0, lambda name, _, entries, __: found.update({name: entries}))
        per_cluster = {name: [entry for length, entry in zip(entries[::2], entries[1::2]) for _ in range(length // 65536)]
                       for name, entries in found.items()}  # fmt: skip
        for name, changed in zip(contexts, ([1, 2, 5], [2, 5], [5])):
            self.assertEqual([at for at, dirty in enumerate(per_cluster[name]) if dirty], changed, name)
        self.assertEqual(per_cluster["qemu:allocation-depth"][:6], [4, 3, 2, 0, 0, 1])
        handle.shutdown()

    def test_a_failed_full_is_no_parent(self):
        """A8 only a failed full: 400"""
        self.register("vm", [MIB])
        job = self.start("vm")
        self.hub.api("POST", f"/backups/{job['backup_id']}/cancel")
        self.assert_problem(self.post("vm", "incremental"), 400, "no previous backup found", "no_parent")


class Generations(HubCase):
    def test_each_full_opens_a_generation_and_old_ones_stay_addressable(self):
        """A29 full, incr, full, incr"""
        self.register("vm", [MIB])
        jobs = self.points(2) + self.points(2)
        newest = self.chain("vm")
        self.assertEqual((newest["generation"], newest["full_backup_id"]), (2, jobs[2]))
        self.assertEqual([point["backup_id"] for point in newest["backups"]], jobs[2:])
        self.assertEqual([point["backup_id"] for point in self.chain("vm", generation=1)["backups"]], jobs[:2])


if __name__ == "__main__":
    run.main()
