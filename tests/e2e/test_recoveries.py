#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Restores that somebody works with: private overlays on a point, and points that must stay."""

import errno
import random
import sys
from pathlib import Path

import nbd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import qemu, run, scratch, sources  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402

CLUSTER = 65536


def connected(uri):
    handle = nbd.NBD()
    handle.connect_uri(uri)
    return handle


class Recoveries(HubCase):
    options = {"point_idle": "1s"}

    def restore(self, job, mode="writable", status=201, **more):
        answer = self.hub.api("POST", "/restores", {"backup_id": job, "mode": mode, **more})
        self.assertEqual(answer.status, status, answer)
        return answer.body

    def drop(self, restore_id):
        return self.hub.api("DELETE", f"/restores/{restore_id}")

    def overlays(self):
        return list(self.hub.repository.rglob("*.overlay"))

    def promoted(self, restore_id, path, **more):
        answer = self.hub.api("POST", f"/restores/{restore_id}/promote", {"path": str(path), **more})
        self.assertEqual(answer.status, 202, answer)
        self.assertEqual(answer.body["promotion"]["state"], "copying")

        def promotion():
            return self.hub.get(f"/restores/{restore_id}").body["promotion"]
        scratch.wait_until(lambda: promotion()["state"] != "copying", 60, "the promotion to end")
        return promotion()


class Promoted(Recoveries):
    def test_point_and_overlay_become_one_image_that_stands_alone(self):
        disks = sources.make_sources(self.dir, [16 * MIB])
        self.register("vm", [16 * MIB])
        job, _ = self.client_backup("vm", disks)
        made = self.restore(job["backup_id"], disk_id=0)
        handle = connected(made["nbd_uri"])
        handle.pwrite(b"w" * 100_000, 3 * MIB + 77)
        refused = self.hub.api("POST", f"/restores/{made['restore_id']}/promote", {"path": str(self.dir / "x")})
        self.assert_problem(refused, 409, "restore is in use", "restore_is_in_use")
        handle.flush()
        handle.shutdown()
        scratch.wait_until(lambda: not any(e["connections"] for e in self.exports()), 10, "it is left")
        expected = bytearray(disks[0].path.read_bytes())
        expected[3 * MIB + 77:3 * MIB + 77 + 100_000] = b"w" * 100_000
        raw = self.dir / "expected.raw"
        raw.write_bytes(expected)
        for name in ("alone.qcow2", "alone.raw"):
            ended = self.promoted(made["restore_id"], self.dir / name)
            self.assertEqual((ended["state"], ended["copied_bytes"]), ("completed", 16 * MIB), ended)
            self.assertEqual(ended["format"], Path(name).suffix[1:])
        self.assertEqual(self.drop(made["restore_id"]).status, 200)
        self.assertEqual((self.dir / "alone.raw").read_bytes(), raw.read_bytes())
        qemu.check(self.dir / "alone.qcow2")
        qemu.verify(self.dir / "alone.qcow2", raw)
        self.assertNotIn("backing-filename", qemu.info(self.dir / "alone.qcow2"))
        # The overlay was writable again in between, and the point is what it was.
        qemu.verify(self.images("vm")[0], disks[0].path)

    def test_a_cancelled_promotion_leaves_nothing(self):
        self.register("vm", [256 * MIB])
        job = self.quick_backup("vm", ["u/1"], writes=[(at * MIB, random.randbytes(8 * MIB)) for at in range(0, 256, 8)])
        made = self.restore(job["backup_id"], mode="read-only", disk_id=0)
        path = f"/restores/{made['restore_id']}/promote"
        self.hub.api("POST", path, {"path": str(self.dir / "big.raw")})
        cancelled = self.hub.api("DELETE", path)
        self.assertEqual(cancelled.status, 200, cancelled)
        self.assertEqual(cancelled.body["promotion"]["state"], "cancelled")
        self.assertEqual(list(self.dir.glob("big*")), [])
        self.assert_problem(self.hub.api("DELETE", path), 409, "no promotion is running", "promotion_is_not_running")


class Writable(Recoveries):
    def test_what_is_written_is_read_again_and_the_point_stays_as_it_was(self):
        disks = sources.make_sources(self.dir, [16 * MIB])
        self.register("vm", [16 * MIB])
        job, _ = self.client_backup("vm", disks)
        original = disks[0].path.read_bytes()
        made = self.restore(job["backup_id"], disk_id=0)
        self.assertEqual((made["state"], made["disk_id"], made["expires_at"]), ("ready", 0, None))
        handle = connected(made["nbd_uri"])
        self.assertTrue(handle.pread(16 * MIB, 0) == original)
        handle.pwrite(b"w" * 100_000, 3 * MIB + 77)
        handle.zero(CLUSTER, 0)
        handle.flush()
        expected = bytearray(original)
        expected[3 * MIB + 77:3 * MIB + 77 + 100_000] = b"w" * 100_000
        expected[:CLUSTER] = bytes(CLUSTER)
        self.assertTrue(handle.pread(16 * MIB, 0) == expected)
        handle.shutdown()
        point = connected(self.hub.export_uri(f"vm/disk-0@{job['backup_id']}"))
        self.assertTrue(point.pread(16 * MIB, 0) == original)
        point.shutdown()
        self.assertGreater(self.hub.get(f"/restores/{made['restore_id']}").body["written_bytes"], 0)
        self.assertEqual(self.drop(made["restore_id"]).status, 200)
        self.assertEqual(self.overlays(), [])
        self.assertEqual(self.hub.get("/restores").body, {"restores": [], "count": 0, "total": 0})
        qemu.verify(self.images("vm")[0], disks[0].path)

    def test_what_was_flushed_outlives_a_kill_and_the_name_opens_it_again(self):
        self.register("vm", [MIB])
        [job] = self.points(1)
        made = self.restore(job)
        [disk] = made["disks"]
        handle = connected(disk["nbd_uri"])
        handle.pwrite(b"k" * CLUSTER, 5 * CLUSTER)
        handle.flush()
        self.hub.kill()
        self.hub.start()
        again = self.hub.get(f"/restores/{made['restore_id']}").body
        handle = connected(again["nbd_uri"])
        self.assertEqual(handle.pread(CLUSTER, 5 * CLUSTER), b"k" * CLUSTER)
        self.assertEqual(handle.pread(CLUSTER, 0), b"p" * CLUSTER)
        handle.shutdown()
        # Closed when nobody uses it, and then a clean image.
        scratch.wait_until(lambda: not self.exports(), 20, "the overlay is closed")
        [overlay] = self.overlays()
        qemu.check(overlay)

    def test_an_overlay_moves_with_its_repository(self):
        self.register("vm", [MIB])
        [job] = self.points(1)
        made = self.restore(job)
        handle = connected(made["nbd_uri"])
        handle.pwrite(b"m" * CLUSTER, 0)
        handle.flush()
        handle.shutdown()
        self.assertEqual(self.hub.stop(), 0)
        self.hub.repository = self.hub.repository.rename(self.dir / "elsewhere")
        self.hub.options["repository"] = self.hub.repository
        self.hub.start()
        moved = self.hub.get(f"/restores/{made['restore_id']}").body
        handle = connected(moved["nbd_uri"])
        self.assertEqual(handle.pread(CLUSTER, 0), b"m" * CLUSTER)
        handle.shutdown()
        self.assertEqual(len(self.overlays()), 1)
        self.assertEqual(self.drop(made["restore_id"]).status, 200)
        self.assertEqual(self.overlays(), [])

    def test_a_limit_of_size_refuses_what_is_too_much_and_keeps_the_rest(self):
        self.register("vm", [64 * MIB])
        [job] = self.points(1)
        made = self.restore(job, size_limit_bytes=8 * MIB)
        handle = connected(made["nbd_uri"])
        with self.assertRaises(nbd.Error) as refused:
            for at in range(0, 64 * MIB, MIB):
                handle.pwrite(b"f" * MIB, at)
        self.assertEqual(refused.exception.errnum, errno.ENOSPC)
        self.assertEqual(handle.pread(MIB, 0), b"f" * MIB)
        handle.flush()
        handle.shutdown()
        self.assertLess(self.hub.get(f"/restores/{made['restore_id']}").body["written_bytes"], 40 * MIB)

    def test_all_disks_of_a_backup_are_taken_together(self):
        self.register("vm", [MIB, 2 * MIB])
        [job] = self.points(1, disks=2)
        made = self.restore(job)
        self.assertNotIn("nbd_uri", made)
        self.assertEqual([disk["disk_id"] for disk in made["disks"]], [0, 1])
        self.assertEqual([connected(disk["nbd_uri"]).get_size() for disk in made["disks"]], [MIB, 2 * MIB])
        self.assertEqual(len(self.overlays()), 2)

    def test_the_export_is_not_listed_and_ends_when_the_restore_is_dropped(self):
        self.register("vm", [MIB])
        [job] = self.points(1)
        made = self.restore(job)
        names = []
        handle = nbd.NBD()
        handle.set_opt_mode(True)
        handle.connect_uri(f"nbd://127.0.0.1:{self.hub.nbd_port}")
        handle.opt_list(lambda name, _: names.append(name) and 0 or 0)
        handle.opt_abort()
        self.assertEqual(names, [f"vm/disk-0@{job}"])
        handle = connected(made["nbd_uri"])
        self.assertEqual(self.drop(made["restore_id"]).status, 200)
        with self.assertRaises(nbd.Error):
            handle.pwrite(b"x" * 512, 0)
        with self.assertRaises(nbd.Error):
            connected(made["nbd_uri"])

    def test_what_expires_is_dropped(self):
        self.register("vm", [MIB])
        [job] = self.points(1)
        made = self.restore(job, expires_in_seconds=2)
        self.assertRegex(made["expires_at"], r"^20.*Z$")
        self.assertEqual(len(self.overlays()), 1)
        scratch.wait_until(lambda: self.hub.get("/restores").body["count"] == 0, 20, "it has expired")
        self.assertEqual(self.overlays(), [])


class Points(Recoveries):
    def test_the_point_below_cannot_be_deleted_until_the_restore_is_dropped(self):
        self.register("vm", [MIB])
        jobs = self.points(2)
        for mode in ("writable", "read-only"):
            made = self.restore(jobs[1], mode)
            answer = self.hub.api("DELETE", f"/backups/{jobs[0]}?cascade=true")
            problem = self.assert_problem(answer, 409, "backup is in use", "backup_is_in_use")
            self.assertIn(made["restore_id"], problem["details"])
            self.assertEqual(self.drop(made["restore_id"]).status, 200)
        self.assertEqual(self.hub.api("DELETE", f"/backups/{jobs[0]}?cascade=true").status, 200)

    def test_a_read_only_restore_names_the_point_itself(self):
        self.register("vm", [MIB])
        [job] = self.points(1)
        made = self.restore(job, "read-only", disk_id=0)
        self.assertEqual(made["export_name"], f"vm/disk-0@{job}")
        self.assertEqual(connected(made["nbd_uri"]).pread(CLUSTER, 0), b"p" * CLUSTER)
        self.assertEqual(self.overlays(), [])

    def test_a_backup_goes_on_beside_a_writer_of_a_point(self):
        self.register("vm", [MIB])
        [first] = self.points(1)
        handle = connected(self.restore(first)["nbd_uri"])
        handle.pwrite(b"w" * CLUSTER, 0)
        [second] = self.points(1, first="incremental")
        self.assertEqual(handle.pread(CLUSTER, 0), b"w" * CLUSTER)
        newest = connected(self.hub.export_uri(f"vm/disk-0@{second}"))
        self.assertEqual(newest.pread(CLUSTER, 0), b"p" * CLUSTER)


class Requests(Recoveries):
    def test_what_cannot_be_right_is_refused_and_leaves_nothing(self):
        self.register("vm", [MIB])
        [job] = self.points(1)
        post = lambda **body: self.hub.api("POST", "/restores", body)  # noqa: E731
        self.assert_problem(post(mode="writable"), 400, "backup_id is required", "missing_field")
        self.assert_problem(post(backup_id=job, mode="x"), 400, "mode must be 'read-only' or 'writable'", "invalid_mode")
        self.assert_problem(post(backup_id="backup-none-1", mode="writable"), 404, "backup not found")
        self.assert_problem(post(backup_id=job, mode="writable", disk_id=9), 404, "backup job not found")
        self.assert_problem(post(backup_id=job, mode="writable", expires_in_seconds=0), 400, "invalid request body")
        self.assert_problem(post(backup_id=job, mode="read-only", size_limit_bytes=1), 400, "invalid request body")
        running = self.start("vm", "incremental")["backup_id"]
        self.assert_problem(post(backup_id=running, mode="writable"), 409, "backup has no restore point")
        self.assert_problem(self.drop("restore-none-1"), 404, "restore not found", "restore_not_found")
        self.assertEqual((self.overlays(), self.hub.get("/restores").body["count"]), ([], 0))


if __name__ == "__main__":
    run.main()
