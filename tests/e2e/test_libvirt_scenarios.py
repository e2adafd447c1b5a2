#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What virtnbdbackup puts libvirt domains through in its own tests (t/*.bats), for `varve pull libvirt:DOMAIN`.

Change tracking that is lost, trims, zeroes that nothing tells of, and disks of other kinds.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import libvirt, qemu, run, scratch, sources  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.daemon import binary  # noqa: E402
from test_libvirt import CLUSTER, SIZES, VM, Domains  # noqa: E402

DISCARDS = libvirt.DISK.replace("type='{format}'", "type='{format}' discard='unmap'")
LOST = "a full backup is made"


class Scenarios(Domains):
    def expect(self, kind, warning="", words=()):
        """A pull of that kind, equal to the flat copies; warned of once or not at all. Returns what was said."""
        events = self.pull(*words)
        self.assertEqual(self.published(events)["backup_type"], kind, events)
        self.assertEqual(len(self.warnings(events)), 1 if warning else 0, events)
        self.assertIn(warning, "".join(self.warnings(events)))
        self.assert_newest_equals(self.flat)
        return events

    def change(self, index, *commands):
        """qemu-io commands of the guest; the flat copy gets them too, with a discard as zeroes."""
        self.session.write(VM, index, [*commands, "flush"])
        self.change_flat(index, *commands)

    def change_flat(self, index, *commands):
        zeroing = [command.replace("discard ", "write -z ") for command in commands]
        words = [word for command in zeroing for word in ("-c", command)]
        subprocess.run(["qemu-io", "-f", "raw", *words, self.flat[index]], check=True, capture_output=True)

    def change_image(self, index, *commands):
        """The same, of a domain that is off."""
        words = [word for command in commands for word in ("-c", command)]
        self.session.run("qemu-io", "-f", "qcow2", *words, self.images[index])
        self.change_flat(index, *commands)

    def shut_down(self):
        self.session.virsh("destroy", VM, "--graceful")

    def remove_bitmap(self, index):
        [checkpoint] = self.session.checkpoints(VM)
        self.session.run("qemu-img", "bitmap", "--remove", self.images[index], checkpoint)

    def monitor(self, command, **arguments):
        text = json.dumps({"execute": command, "arguments": arguments})
        return json.loads(self.session.virsh("qemu-monitor-command", VM, text))["return"]

    def done(self, events, index=0):
        return [event for event in events if event["event"] == "done"][index]

    def stored(self, index=0):
        return scratch.allocated_bytes(self.chain(VM, index)["backups"][-1]["file_path"])

    def clusters_that_are_stored(self, image):
        return {cluster for extent in qemu.extents(image) if extent["data"] and not extent["zero"]
                for cluster in range(extent["start"] // CLUSTER, (extent["start"] + extent["length"]) // CLUSTER)}  # fmt: skip

    def clusters_that_hold_something(self, raw):
        content = raw.read_bytes()
        return {at // CLUSTER for at in range(0, len(content), CLUSTER) if any(content[at : at + CLUSTER])}


class LostTracking(Scenarios):
    """cbtmiss.bats, and what its neighbours in libvirt do."""

    def test_a_bitmap_that_was_removed_while_the_machine_was_off(self):
        self.define()
        self.expect("full")
        self.write()
        self.shut_down()
        self.remove_bitmap(0)
        self.session.start(VM)
        self.expect("full", LOST)
        self.write()
        self.expect("incremental")

    def test_a_bitmap_that_was_removed_from_a_machine_that_is_still_off(self):
        self.define()
        self.expect("full")
        self.write()
        self.shut_down()
        self.remove_bitmap(1)
        self.expect("full", LOST)
        self.session.start(VM)
        self.write()
        self.expect("full")
        self.write()
        self.expect("incremental")

    def test_a_bitmap_that_was_removed_under_a_running_machine(self):
        self.define()
        self.expect("full")
        self.write()
        [checkpoint] = self.session.checkpoints(VM)
        [node] = {node["node-name"] for node in self.monitor("query-named-block-nodes")
                  if node["drv"] == "qcow2" and node["file"] == str(self.images[1])}  # fmt: skip
        self.monitor("block-dirty-bitmap-remove", node=node, name=checkpoint)
        self.expect("full", LOST)
        self.write()
        self.expect("incremental")
        self.assertEqual(len(self.session.checkpoints(VM)), 1)

    def test_a_checkpoint_that_somebody_deleted(self):
        self.define()
        self.expect("full")
        self.write()
        [checkpoint] = self.session.checkpoints(VM)
        self.session.virsh("checkpoint-delete", VM, checkpoint)
        self.expect("full", LOST)
        self.write()
        self.expect("incremental")

    def test_a_checkpoint_whose_description_alone_was_deleted_is_told_to_libvirt_again(self):
        self.define()
        self.expect("full")
        for restart in (False, True):
            self.write()
            [checkpoint] = self.session.checkpoints(VM)
            self.session.virsh("checkpoint-delete", VM, checkpoint, "--metadata")
            if restart:
                self.shut_down()
                self.session.start(VM)
            self.expect("incremental")
            self.assertEqual(len(self.session.checkpoints(VM)), 1)

    def test_an_incremental_without_its_full(self):
        self.define()
        self.expect("full")
        self.write()
        newest = self.published(self.expect("incremental"))["backup_id"]
        self.assertEqual(self.hub.api("DELETE", f"/backups/{newest}").status, 200)
        self.write()
        self.expect("full", LOST)  # the changes since the full went with the checkpoint
        self.write()
        self.expect("incremental")


class Trims(Scenarios):
    """fstrim.bats and fstrimsmall.bats."""

    def test_a_large_trim_reads_zero_and_takes_no_room(self):
        with mock.patch.object(libvirt, "DISK", DISCARDS):
            self.define()
        self.change(0, f"write -P 7 0 {16 * MIB}", f"write -P 8 {20 * MIB} {MIB}")
        self.expect("full")
        self.assertGreater(self.stored(), 17 * MIB)
        self.change(0, f"discard 0 {16 * MIB}", f"write -P 9 {MIB} {CLUSTER}")
        done = self.done(self.expect("incremental"))
        self.assertEqual(done["data_bytes"], CLUSTER)
        self.assertGreaterEqual(done["zero_bytes"], 15 * MIB)
        self.assertLess(self.stored(), MIB)
        self.change(0, f"discard {20 * MIB} {MIB}")
        self.expect("full", words=("--full",))
        self.assertLess(self.stored(), 4 * MIB)
        self.shut_down()
        self.change_image(0, f"discard {20 * MIB - CLUSTER} {2 * CLUSTER}", f"write -P 3 {MIB + 100} 1000")
        self.expect("incremental")

    def test_small_trims_and_writes_over_each_other(self):
        image, size = self.images[0], 20 * MIB
        self.flat[0].unlink()
        subprocess.run(["truncate", "-s", str(size), self.flat[0]], check=True)
        image.unlink()
        qemu.create(image, size)
        self.session.own(image.parent)
        self.change_image(0, "write -P 1 15M 256k", "write -P 2 17M 256k")
        self.define()
        self.expect("full")
        for commands, data_bytes in ((("write -P 3 1M 64k",), CLUSTER),
                                     (("write -P 4 1M 64k", "write -z 2M 64k", "write -z 3M 64k"), CLUSTER),
                                     (("write -z 64k 64k", "write -P 5 127k 64k"), 2 * CLUSTER),
                                     (("write -P 6 5000k 64k", "write -z 5012k 64k"), 2 * CLUSTER),
                                     (("write -z 15M 256k",), 0),
                                     (("write -z 17M 256k",), 0)):
            if data_bytes == CLUSTER:  # as they do it always
                self.shut_down()
                self.change_image(0, *commands)
                self.session.start(VM)
            else:
                self.change(0, *commands)
            done = self.done(self.expect("incremental"))
            self.assertLessEqual(done["data_bytes"], data_bytes, commands)
            self.assertLess(done["data_bytes"] + done["zero_bytes"], MIB, commands)
            self.assertLess(self.stored(), MIB)
        newest = self.chain(VM)["backups"][-1]["file_path"]
        self.assertEqual(self.clusters_that_are_stored(newest), self.clusters_that_hold_something(self.flat[0]))


class Zeroes(Scenarios):
    """nosparsedetect.bats: nothing tells of zeroes, and they are found."""

    def test_zeroes_that_the_images_hold_as_data(self):
        raw = self.session.directory / "disks" / "raw.img"
        raw.write_bytes(self.flat[1].read_bytes())  # without a hole
        self.disks["vdb"] = (raw, "raw")
        self.define()
        self.change(0, f"write -P 0 0 {16 * MIB}")
        self.expect("full", "disk vdb is raw")
        self.assertLess(self.stored(1), 3 * MIB)
        self.assertLess(self.stored(0), 4 * MIB)
        self.change(0, f"write -P 1 0 {8 * MIB}", f"write -P 0 0 {8 * MIB}", f"write -P 2 {MIB} {CLUSTER}")
        done = self.done(self.expect("incremental", "disk vdb is raw"))
        self.assertLessEqual(done["data_bytes"], MIB)  # one request
        self.assertLess(self.stored(0), MIB)


class Kinds(Scenarios):
    """vm1 to vm6 of tests.bats, and entries of their change log."""

    def test_drives_and_disks_that_are_only_read_are_left_out(self):
        medium, floppy, read_only = (self.session.directory / name for name in ("medium.iso", "floppy.img", "read-only.raw"))
        for path in (medium, floppy, read_only):
            path.write_bytes(os.urandom(MIB))
        self.session.define(VM, self.disks, devices=f"""<disk type='file' device='cdrom'><source file='{medium}'/>
<target dev='hda' bus='ide'/><readonly/></disk><disk type='file' device='cdrom'><target dev='hdb' bus='ide'/></disk>
<disk type='file' device='floppy'><source file='{floppy}'/><target dev='fda' bus='fdc'/></disk>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{read_only}'/>
<target dev='vdc' bus='virtio'/><readonly/></disk>""")  # fmt: skip
        self.session.start(VM)
        self.expect("full")
        self.write()
        self.expect("incremental")
        self.assertEqual(self.hub.get("/points", vm_name=VM, point="latest").body["count"], len(SIZES))

    def test_a_machine_of_raw_disks_only_gets_fulls(self):
        for index, target in enumerate(("vda", "vdb")):
            path = self.session.directory / "disks" / f"{target}.img"
            sources.sparse_copy(self.flat[index], path)
            self.disks[target] = (path, "raw")
        self.define()
        for _ in range(2):
            self.write()
            events = self.pull()
            self.assertEqual(self.published(events)["backup_type"], "full", events)
            self.assertEqual(len(self.warnings(events)), len(SIZES))
            self.assert_newest_equals(self.flat)
            self.assertEqual(self.session.checkpoints(VM), [])

    def test_an_image_with_its_data_in_a_file_of_its_own(self):
        data = self.session.directory / "disks" / "data.raw"
        self.images[0].unlink()
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", f"data_file={data},data_file_raw=on",
                        self.flat[0], self.images[0]], check=True)  # fmt: skip
        self.define()
        self.expect("full")
        self.write()
        self.expect("incremental")
        self.shut_down()
        self.expect("incremental")

    def test_a_disk_that_grows_under_a_running_machine(self):
        self.define()
        self.expect("full")
        with open(self.flat[1], "r+b") as file:
            file.truncate(SIZES[1] + 3 * MIB)
        self.session.virsh("blockresize", VM, "vdb", f"{SIZES[1] + 3 * MIB}B")
        self.change(1, f"write -P 5 {SIZES[1] - 512} {CLUSTER}", f"write -P 6 {SIZES[1] + 3 * MIB - 4096} 4096")
        self.expect("incremental")


class WithoutAllocation(HubCase):
    def test_a_server_that_tells_nothing_of_zeroes_is_stored_thin(self):
        raw, socket = self.dir / "thick.raw", self.dir / "source.sock"
        raw.write_bytes(os.urandom(MIB) + bytes(31 * MIB))
        server = subprocess.Popen(["nbdkit", "-f", "-U", socket, "--filter=noextents", "file", raw])
        self.addCleanup(scratch.end_process, server)
        scratch.wait_until(socket.exists, 10, "nbdkit listens")
        subprocess.run([binary(), "pull", VM, "--disk", f"0=nbd+unix:///?socket={socket}", "--server", self.hub.url],
                       check=True, capture_output=True, timeout=60)  # fmt: skip
        [point] = self.chain(VM)["backups"]
        qemu.verify(point["file_path"], raw)
        self.assertLess(scratch.allocated_bytes(point["file_path"]), 2 * MIB)


if __name__ == "__main__":
    run.main()
