#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Restore points as exports: read by other people's clients, by name, without preparation."""

import json
import os
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import nbd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import qemu, run, scratch, sources  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402

CLUSTER = 65536
NAME = "Büro @2 web"  # a registered name may have blanks, '@' and letters of any script


def run_tool(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def open_export(uri, *contexts):
    handle = nbd.NBD()
    for name in contexts:
        handle.add_meta_context(name)
    handle.connect_uri(uri)
    return handle


class Points(HubCase):
    options = {"point_idle": "1s"}

    def uri(self, vm_name, disk, point, unix=False):
        name = urllib.parse.quote(f"{vm_name}/disk-{disk}@{point}")
        if unix:
            return f"nbd+unix:///{name}?socket={self.hub.ready['nbd_socket']}"
        return f"nbd://127.0.0.1:{self.hub.nbd_port}/{name}"

    def canonical_name(self, vm_name, disk, point):
        handle = nbd.NBD()
        handle.set_opt_mode(True)
        handle.set_full_info(True)
        handle.connect_uri(self.uri(vm_name, disk, point))
        handle.opt_info()
        name = handle.get_canonical_export_name()
        handle.opt_abort()
        return name

    def assert_unknown(self, vm_name, disk, point):
        with self.assertRaises(nbd.Error):
            open_export(self.uri(vm_name, disk, point))

    def open_points(self):
        return [export for export in self.exports() if export["kind"] == "point"]


class Reading(Points):
    def setUp(self):
        directory = self.enterContext(scratch.directory())
        self.options = {**self.options, "nbd_socket": directory / "nbd.sock"}
        super().setUp()

    def test_each_point_reads_like_its_source_by_nbdcopy_and_qemu_img(self):
        """A full and four incrementals with zeroes, trims and awkward edges, two disks, both transports"""
        disks = sources.make_sources(self.dir, [16 * MIB, 3 * MIB + 512])
        self.register(NAME, [disk.size for disk in disks])
        for number in range(5):
            self.client_backup(NAME, disks, "incremental" if number else "full")
            for disk in disks:
                disk.advance(number, fraction=0.05)
        for index, disk in enumerate(disks):
            points = self.chain(NAME, index)["backups"]
            self.assertEqual(len(points), 5)
            for at, point in enumerate(points):
                expected = disk.content_at(point["change_id"])
                uri = self.uri(NAME, index, point["backup_id"], unix=at % 2 == 1)
                copy = self.dir / "copy.raw"
                run_tool("nbdcopy", uri, copy)
                run_tool("cmp", expected, copy)
                run_tool("qemu-img", "compare", "-f", "raw", "-F", "raw", expected, uri)
                copy.unlink()

    def test_nothing_can_be_written_and_several_connections_are_offered(self):
        self.register("vm", [MIB])
        [job] = self.points(1)
        info = json.loads(run_tool("nbdinfo", "--json", self.uri("vm", 0, job)))["exports"][0]
        self.assertTrue(info["is_read_only"] and info["can_multi_conn"])
        handle = open_export(self.uri("vm", 0, job))
        with self.assertRaises(nbd.Error):
            handle.pwrite(b"x" * 512, 0)
        self.assertEqual(handle.pread(CLUSTER, 0), b"p" * CLUSTER)
        handle.shutdown()


class Names(Points):
    def test_latest_and_a_time_are_names_of_the_newest_point_until_then(self):
        self.register(NAME, [MIB])
        first, = self.points(1, vm_name=NAME)
        completed = self.job(first)["completed_at"]
        time.sleep(1.1)  # times have seconds
        second, = self.points(1, vm_name=NAME, first="incremental")
        for alias, job in (("latest", second), (completed, first), ("2100-01-01T00:00:00Z", second), (second, second)):
            self.assertEqual(self.canonical_name(NAME, 0, alias), f"{NAME}/disk-0@{job}")
        for nothing in ("2001-01-01T00:00:00Z", "backup-other-1", "", "newest"):
            self.assert_unknown(NAME, 0, nothing)
        self.assert_unknown(NAME, 1, "latest")
        self.assert_unknown("vm", 0, "latest")

    def test_list_has_every_point_with_what_it_is_and_no_alias(self):
        self.register(NAME, [MIB, 2 * MIB])
        jobs = self.points(3, disks=2, vm_name=NAME)
        listed = json.loads(run_tool("nbdinfo", "--list", "--json", f"nbd://127.0.0.1:{self.hub.nbd_port}"))["exports"]
        wanted = {f"{NAME}/disk-{disk}@{job}" for job in jobs for disk in (0, 1)}
        self.assertEqual({export["export-name"] for export in listed}, wanted)
        self.assertEqual(len(listed), 6)
        for export in listed:
            self.assertRegex(export["description"], r"^disk [01] of .*, (full|incremental) of 20\S+Z, \d+ bytes, \d+ stored$")

    def test_a_port_of_a_running_backup_opens_no_point(self):
        self.register("vm", [MIB])
        [job] = self.points(1)
        [target] = self.targets(self.start("vm", "incremental"))
        handle = nbd.NBD()
        handle.set_export_name(f"vm/disk-0@{job}")
        with self.assertRaises(nbd.Error):
            handle.connect_tcp(target.host, str(target.port))


class Changes(Points):
    def test_what_differs_from_each_older_point_applied_to_it_gives_this_one(self):
        """M3 by libnbd; the base is copied and patched with the dirty ranges only"""
        disks = sources.make_sources(self.dir, [16 * MIB])
        self.register("vm", [16 * MIB])
        for number in range(4):
            self.client_backup("vm", disks, "incremental" if number else "full")
            disks[0].advance(number, fraction=0.05)
        points = self.chain("vm")["backups"]
        contents = [disks[0].content_at(point["change_id"]).read_bytes() for point in points]
        for new in range(1, 4):
            for old in range(new):
                context = f"qemu:dirty-bitmap:since-{points[old]['backup_id']}"
                handle = open_export(self.uri("vm", 0, points[new]["backup_id"]), context)
                self.assertTrue(handle.can_meta_context(context))
                found = []
                handle.block_status(16 * MIB, 0, lambda name, _, entries, __: found.extend(entries))
                patched, at, dirty_bytes = bytearray(contents[old]), 0, 0
                for length, dirty in zip(found[::2], found[1::2]):
                    if dirty & 1:
                        patched[at:at + length] = handle.pread(length, at)
                        dirty_bytes += length
                    at += length
                handle.shutdown()
                self.assertEqual(at, 16 * MIB)
                self.assertLess(dirty_bytes, 16 * MIB)
                self.assertTrue(patched == contents[new], f"{old} -> {new}")

    def test_the_api_says_in_pages_what_differs_between_any_two_points(self):
        """Two generations: applied to the older point it gives the newer one"""
        disks = sources.make_sources(self.dir, [16 * MIB])
        self.register("vm", [16 * MIB])
        for number, kind in enumerate(("full", "incremental", "incremental", "full", "incremental")):
            if number:
                disks[0].advance(number, fraction=0.05)
            self.client_backup("vm", disks, kind)
        points = [point for generation in (1, 2) for point in self.chain("vm", generation=generation)["backups"]]
        contents = [disks[0].content_at(point["change_id"]).read_bytes() for point in points]
        for new in range(1, 5):
            handle = open_export(self.uri("vm", 0, points[new]["backup_id"]))
            for old in range(new):
                patched, ranges = bytearray(contents[old]), self.all_changes(points[new], points[old])
                for item in ranges:
                    data = handle.pread(item["length"], item["offset"])
                    self.assertTrue(not item["zero"] or not any(data))
                    patched[item["offset"]:item["offset"] + item["length"]] = data
                self.assertTrue(patched == contents[new], f"{old} -> {new}")
                whole = sum(item["length"] for item in ranges) == 16 * MIB
                self.assertEqual(whole, old < 3 <= new, f"{old} -> {new}")
            handle.shutdown()

    def all_changes(self, new, old):
        ranges, offset, pages = [], 0, 0
        while offset is not None:
            answer = self.hub.get(f"/backups/{new['backup_id']}/changes", since=old["backup_id"], limit=7, offset=offset)
            self.assertEqual(answer.status, 200, answer)
            self.assertLessEqual(answer.body["count"], 7)
            self.assertEqual(answer.body["bytes"], sum(item["length"] for item in answer.body["ranges"]))
            ranges += answer.body["ranges"]
            offset, pages = answer.body["next_offset"], pages + 1
        self.assertLess(pages, 10_000)
        return ranges

    def test_only_an_older_point_of_the_same_disk_can_be_compared(self):
        self.register("vm", [MIB])
        self.register("other", [MIB])
        old, new = self.points(2)
        [other] = self.points(1, vm_name="other")
        ask = lambda job, **query: self.hub.get(f"/backups/{job}/changes", **query)  # noqa: E731
        for since in (new, other):
            self.assert_problem(ask(new, since=since), 409, "points cannot be compared", "points_not_comparable")
        self.assert_problem(ask(old, since=new), 409, "points cannot be compared", "points_not_comparable")
        self.assert_problem(ask("backup-none-1", since=old), 404, "backup not found", "backup_not_found")
        self.assert_problem(ask(new, since=old, disk_id=9), 404, "backup job not found", "job_not_found")


class Life(Points):
    def test_a_point_is_open_while_it_is_read_and_closed_when_nobody_reads(self):
        self.register("vm", [MIB])
        [job] = self.points(1)
        self.assertEqual(self.open_points(), [])
        handles = [open_export(self.uri("vm", 0, "latest")) for _ in range(3)]
        handles[0].pread(CLUSTER, 0)
        [shown] = self.open_points()
        self.assertEqual((shown["name"], shown["backup_id"], shown["connections"]), (f"vm/disk-0@{job}", job, 3))
        self.assertEqual((shown["read_only"], shown["size_bytes"], shown["bytes_read"]), (True, MIB, CLUSTER))
        self.assertEqual(open_export(shown["uris"][0]).get_size(), MIB)
        time.sleep(2.5)  # longer than a point stays open without readers
        self.assertEqual(handles[1].pread(CLUSTER, 0), b"p" * CLUSTER)
        for handle in handles:
            handle.shutdown()
        scratch.wait_until(lambda: not self.open_points(), 20, "the point is closed")

    def test_a_point_that_is_read_cannot_be_deleted_and_can_afterwards(self):
        self.register("vm", [MIB])
        [job] = self.points(1)
        handle = open_export(self.uri("vm", 0, job))
        self.assert_problem(self.hub.api("DELETE", f"/backups/{job}"), 409, "backup is in use", "backup_is_in_use")
        self.assertEqual(handle.pread(CLUSTER, 0), b"p" * CLUSTER)
        handle.shutdown()
        scratch.wait_until(lambda: self.open_points()[0]["connections"] == 0, 20, "the reader has left")
        self.assertEqual(self.hub.api("DELETE", f"/backups/{job}").status, 200)
        self.assert_unknown("vm", 0, job)
        self.assertEqual(self.open_points(), [])

    def test_a_backup_of_the_same_vm_runs_beside_its_readers(self):
        disks = sources.make_sources(self.dir, [16 * MIB])
        self.register("vm", [16 * MIB])
        self.client_backup("vm", disks)
        before = disks[0].path.read_bytes()
        handle = open_export(self.uri("vm", 0, "latest"))
        disks[0].advance(7)
        self.client_backup("vm", disks, "incremental")
        self.assertTrue(handle.pread(16 * MIB, 0) == before)
        handle.shutdown()
        run_tool("qemu-img", "compare", "-f", "raw", "-F", "raw", disks[0].path, self.uri("vm", 0, "latest"))

    def test_varve_ends_while_a_point_is_read(self):
        self.register("vm", [MIB])
        self.points(1)
        handle = open_export(self.uri("vm", 0, "latest"))
        begun = time.monotonic()
        self.assertEqual(self.hub.stop(), 0)
        self.assertLess(time.monotonic() - begun, 10)
        with self.assertRaises(nbd.Error):
            handle.pread(512, 0)

    def test_a_point_whose_file_is_gone_is_refused_with_the_cause(self):
        self.register("vm", [MIB])
        jobs = self.points(2)
        base = self.images("vm")[0]
        away = base.rename(base.with_suffix(".away"))
        with self.assertRaises(nbd.Error):
            open_export(self.uri("vm", 0, jobs[1]))
        self.assertRegex(self.hub.log, f'"vm/disk-0@{jobs[1]}" could not be opened: .*{base.name}')
        away.rename(base)
        self.assertEqual(open_export(self.uri("vm", 0, jobs[1])).get_size(), MIB)


class Hidden(Points):
    options = {"export_access": "name"}

    def test_where_names_are_secrets_points_are_neither_listed_nor_opened_by_a_made_up_name(self):
        self.register("vm", [MIB])
        [job] = self.points(1)
        listed = run_tool("nbdinfo", "--list", "--json", f"nbd://127.0.0.1:{self.hub.nbd_port}")
        self.assertEqual(json.loads(listed)["exports"], [])
        self.assert_unknown("vm", 0, job)
        self.assert_unknown("vm", 0, "latest")


class Many(Points):
    def test_thousands_of_points_are_listed_in_time(self):
        """10,000 points within 2 s: rows are copied into the catalogue while varve is down"""
        self.register("vm", [MIB])
        [job] = self.points(1)
        self.assertEqual(self.hub.stop(), 0)
        import sqlite3

        with sqlite3.connect(self.hub.catalogue) as catalogue:
            copy_rows(catalogue, job, 10_000)
        self.hub.start()
        begun = time.monotonic()
        handle = nbd.NBD()
        handle.set_opt_mode(True)
        handle.connect_uri(f"nbd://127.0.0.1:{self.hub.nbd_port}")
        names = set()
        handle.opt_list(lambda name, _: names.add(name) and 0 or 0)
        seconds = time.monotonic() - begun
        handle.opt_abort()
        print(f"{len(names)} points listed in {seconds:.2f} s", flush=True)
        self.assertEqual(len(names), 10_001)
        # What the sanitizers add is not what the goal is about.
        self.assertLess(seconds, 6 if os.environ.get("VARVE_SANITIZED") else 2)


def copy_rows(catalogue, job, count):
    """`count` more jobs with a point each, like `job`."""
    for table, key in (("job", "id"), ("job_disk", "job_id"), ("point", "image_id")):
        rows = catalogue.execute(f"PRAGMA table_info({table})").fetchall()
        columns = [row[1] for row in rows if not (row[5] and row[2].upper() == "INTEGER")]
        image = catalogue.execute("SELECT image_id FROM job_disk WHERE job_id = ?", (job,)).fetchone()[0]
        original = catalogue.execute(f"SELECT {', '.join(columns)} FROM {table} WHERE {key} = ?",
                                     (image if table == "point" else job,)).fetchone()  # fmt: skip
        copies = []
        for number in range(count):
            copy = [value.replace(job, f"{job}-c{number}").replace(image, f"{image}-c{number}")
                    if isinstance(value, str) else value for value in original]  # fmt: skip
            if table == "job_disk":
                copy[columns.index("export_name")] += f"-c{number}"
            if table == "point":
                copy[columns.index("position")] = number + 1
                copy[columns.index("parent_image_id")] = f"{image}-c{number - 1}" if number else image
            copies.append(copy)
        marks = ", ".join("?" for _ in columns)
        catalogue.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", copies)


if __name__ == "__main__":
    run.main()
