#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Real NBD clients writing into a backup job of `varve serve`."""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import writers  # noqa: E402
from harness import qemu, run, scratch  # noqa: E402
from harness.case import HubCase  # noqa: E402


class FullJob(writers.Writers, HubCase):
    """Each client fills the disk of a full backup."""

    backing = False

    def export(self, size):
        self.register("vm", [size])
        if self.backing:
            self.quick_backup("vm", ["u/1"], writes=[(offset, b"\xbb" * 999_999) for offset in (0, 9 << 20, size - 999_999)])
        self.job_object = self.start("vm", "incremental" if self.backing else "full")
        disk = self.job_object["disk_results"][0]
        self.export_name = disk["nbd_export_name"]
        return f"nbd://127.0.0.1:{disk['nbd_port']}/{self.export_name}"

    def finished(self):
        self.complete_ok(self.job_object, "u/2", 0)
        return self.images("vm")[-1]


class ZeroesWithoutHole(HubCase):
    """QEMU zeroes the rest of a target disk with NO_HOLE when it pushes a full backup."""

    def test_are_not_stored(self):
        self.register("vm", [512 << 20])
        job = self.start("vm", "full")
        disk = job["disk_results"][0]
        uri = f"nbd://127.0.0.1:{disk['nbd_port']}/{disk['nbd_export_name']}"
        steps = ["write -P 1 0 16M", *(f"write -z {at}M 31M" for at in range(16, 512, 31)), "read -P 0 16M 16M"]
        writers.command("qemu-io", "-f", "raw", *(word for step in steps for word in ("-c", step)), uri)
        self.complete_ok(job, "u/1", 0)
        self.assertLess(scratch.allocated_bytes(self.images("vm")[-1]), 17 << 20)


class IncrementalJob(FullJob):
    """The same over a backing image that is full of other bytes."""

    backing = True

    def test_nbdcopy_with_destination_is_zero(self):
        """A54 that option would be a lie over a backing image: the default must overwrite it"""
        self.nbdcopy()

    def test_qemu_img_convert_with_target_is_zero(self):
        """A54 likewise"""
        raw = self.source()
        uri = self.export(writers.SIZE)
        writers.command("qemu-img", "convert", "-n", "-S", "0", "-f", "raw", "-O", "raw", raw, uri)
        self.assert_image_equals(raw)

    def test_qemu_io_writes_zeroes_and_discards(self):
        """A41 zeroes over backing, read through the wire and through qemu-img"""
        uri = self.export(writers.SIZE)
        steps = ["-c", "write -z 70000 70000", "-c", "discard 9M 512k", "-c", "read -P 0 70000 70000", "-c", "read -P 0 9M 512k"]
        writers.command("qemu-io", "-f", "raw", *steps, uri)
        image = self.finished()
        qemu.check(image)
        writers.command("qemu-io", "-r", "-f", "qcow2", "-c", "read -P 0 70000 70000", "-c", "read -P 0xbb 0 70000", image)

    def test_fio_verifies_what_it_wrote(self):
        """A40 fio over a backing image"""
        super().test_fio_verifies_what_it_wrote()

    def test_nbdinfo_maps_data_zeroes_and_holes(self):
        """A10 A54 base:allocation covers the whole disk over a backing image too"""
        uri = self.export(writers.SIZE)
        handle = self.handle(uri)
        handle.zero(1 << 20, 0)
        extents = writers.json.loads(writers.command("nbdinfo", "--map", "--json", uri))
        self.assertEqual(sum(extent["length"] for extent in extents), writers.SIZE)
        self.assertTrue(extents[0]["type"] & 2 and extents[0]["length"] >= 15 * 65536, extents[0])

    def test_libnbd_with_requests_in_flight_on_two_connections(self):
        """A40 the model starts from the backing image"""
        uri = self.export(writers.SIZE)
        handle = self.handle(uri)
        handle.zero(32 << 20, 0)
        handle.zero(32 << 20, 32 << 20)
        handle.zero(writers.SIZE - (64 << 20), 64 << 20)
        self.export = lambda size: uri
        super().test_libnbd_with_requests_in_flight_on_two_connections()


class MainPort(HubCase):
    def test_every_export_is_listed_by_name_on_the_main_port(self):
        """A10 A12 nbdinfo --list on 10809's stand-in"""
        self.register("vm", [1 << 20, 2 << 20])
        job = self.start("vm")
        listed = writers.json.loads(
            writers.command("nbdinfo", "--list", "--json", f"nbd://127.0.0.1:{self.hub.nbd_port}")
        )
        found = {entry["export-name"]: entry["export-size"] for entry in listed["exports"]}
        wanted = [disk["nbd_export_name"] for disk in job["disk_results"]]
        self.assertEqual(found, dict(zip(wanted, (1 << 20, 2 << 20))))

    def test_an_unknown_export_is_refused_with_a_text(self):
        """A10 unknown names"""
        uri = f"nbd://127.0.0.1:{self.hub.nbd_port}/nobody"
        done = subprocess.run(["nbdinfo", uri], capture_output=True, text=True, timeout=30, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("nobody", done.stderr)


if __name__ == "__main__":
    run.main()
