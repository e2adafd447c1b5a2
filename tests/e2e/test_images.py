#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Images and their neighbours on disk."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import qemu, run, sources  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402


class Images(HubCase):
    def test_a_full_image_has_the_header_qemu_img_would_write(self):
        """A16 field by field"""
        size = 5 * MIB + 512
        self.register("vm", [size])
        self.points(1)
        image = self.images("vm")[0]
        qemu.check(image)
        facts = qemu.info(image)
        self.assertEqual((facts["format"], facts["virtual-size"], facts["cluster-size"]), ("qcow2", size, 65536))
        data = facts["format-specific"]["data"]
        self.assertEqual(
            (data["compat"], data["lazy-refcounts"], data["refcount-bits"], data["corrupt"], data["compression-type"]),
            ("1.1", False, 16, False, "zlib"),
        )
        self.assertNotIn("backing-filename", facts)
        header = image.read_bytes()[:112]
        self.assertEqual(header[:8], b"QFI\xfb\0\0\0\3")
        self.assertEqual(header[72:88], bytes(16), "incompatible and compatible features")
        self.assertEqual(int.from_bytes(header[88:96], "big"), 1 << 62, "the seal bit")
        self.assertEqual(int.from_bytes(header[100:104], "big"), 112)

    def test_an_incremental_is_an_overlay_with_both_backing_lines(self):
        """A17 relative name, format, explicit size"""
        self.register("vm", [3 * MIB])
        self.points(3)
        files = self.images("vm")
        text = qemu.info_text(files[1])
        self.assertRegex(text, rf"(?m)^backing file: {files[0].name} ")
        self.assertRegex(text, r"(?m)^backing file format: qcow2$")
        self.assertRegex(text, r"(?m)^ *lazy refcounts: false$")
        self.assertRegex(text, r"(?m)^ *corrupt: false$")
        self.assertEqual(qemu.info(files[2])["virtual-size"], 3 * MIB)
        self.assertEqual(qemu.backing_chain(files[2]), [path.name for path in reversed(files)])
        for path in files:
            qemu.check(path)

    def test_a_moved_repository_still_opens(self):
        """A17 A34 BC1"""
        self.register("vm", [MIB])
        self.points(2)
        self.assertEqual(self.hub.stop(), 0)
        moved = self.hub.repository.rename(self.dir / "elsewhere")
        newest = sorted(moved.glob("ctx-vm-*/disk-0/backup-*.qcow2"), key=lambda path: path.stat().st_mtime)[-1]
        self.assertEqual(len(qemu.backing_chain(newest)), 2)
        qemu.check(newest)

    def test_a_grown_disk_reads_zero_beyond_its_parent(self):
        """A17 capacity that is no multiple of a cluster"""
        disks = sources.make_sources(self.dir, [8 * MIB])
        self.register("vm", [8 * MIB])
        self.client_backup("vm", disks)
        disks[0].advance(1)
        os.truncate(disks[0].path, 12 * MIB + 512)
        self.assertEqual(self.hub.register("vm", [12 * MIB + 512]).status, 200)
        self.client_backup("vm", disks, "incremental")
        self.assert_points_equal_sources("vm", disks)

    def test_a_shrunk_disk_gets_a_standalone_image_with_a_warning(self):
        """A17 disk_shrunk"""
        self.register("vm", [8 * MIB])
        self.points(1)
        self.hub.register("vm", [4 * MIB])
        job = self.quick_backup("vm", ["u0/9"], "incremental")
        self.assertIn("disk_shrunk", [warning["code"] for warning in self.job(job["backup_id"])["warnings"]])
        disk = self.disks(job["backup_id"])[0]
        self.assertEqual(disk["backup_type"], "full")
        self.assertNotIn("backing-filename", qemu.info(disk["qcow2_path"]))

    def test_files_lie_where_the_operators_glob_looks(self):
        """A34 images, sidecars, chain.json, vm.json, link"""
        self.register("pgtest1", [MIB, MIB])
        self.points(2, disks=2, vm_name="pgtest1")
        root = self.hub.repository
        for index in (0, 1):
            found = sorted(root.glob(f"ctx-pgtest1-*/disk-{index}/backup-*.qcow2"))
            self.assertEqual(found, sorted(self.images("pgtest1", index)))
            for image in found:
                self.check_sidecar(image, index)
            self.check_chain_file(found[0].parent / "chain.json", index)
        vm = json.loads(next(root.glob("ctx-pgtest1-*/vm.json")).read_text())
        self.assertNotIn("s3cret-pw", json.dumps(vm))
        link = root / "pgtest1-disk-2000" / "latest.qcow2"
        self.assertTrue(link.is_symlink())
        self.assertRegex(qemu.info_text(link), r"(?m)^backing file: ")
        self.assertEqual(link.resolve(), self.images("pgtest1", 0)[-1].resolve())

    def check_sidecar(self, image, index):
        sidecar = json.loads(Path(f"{image}.json").read_text())
        self.assertEqual((sidecar["backup_id"], sidecar["disk_id"]), (image.stem, index))
        self.assertEqual(sidecar["size_bytes"], image.stat().st_size)
        self.assertEqual(sidecar["total_bytes"], MIB)
        self.assertEqual(sidecar["qcow2_info"]["cluster_size"], 65536)
        self.assertEqual(sidecar["metadata"]["vmware_info"]["vmware_disk_id"], f"disk-{2000 + index}")
        self.assertEqual(len(sidecar["varve"]["job_images"]), 2)

    def check_chain_file(self, path, index):
        chain = json.loads(path.read_text())
        api = self.chain("pgtest1", index)
        self.assertEqual(chain["backup_ids"], [point["image_id"] for point in api["backups"]])
        self.assertEqual((chain["disk_id"], chain["total_backups"]), (index, 2))

    def test_modes_are_0755_and_0644(self):
        """A34 modes"""
        self.register("vm", [MIB])
        self.points(1)
        image = self.images("vm")[0]
        self.assertEqual(image.stat().st_mode & 0o777, 0o644)
        self.assertEqual(image.parent.stat().st_mode & 0o777, 0o755)


if __name__ == "__main__":
    run.main()
