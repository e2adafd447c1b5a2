#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The plugin for Proxmox VE (contrib/proxmox), against QEMU's own copy-before-write and snapshot-access."""

import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import qemu, run, scratch, sources  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.daemon import ROOT, binary  # noqa: E402
from harness.storage_daemon import StorageDaemon  # noqa: E402


def qemu_version():
    said = subprocess.run(["qemu-storage-daemon", "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, re.search(r"version (\d+)\.(\d+)", said).groups()))


PLUGIN = ROOT / "contrib" / "proxmox"
STORE = "backup-1"
VMID = 100
CLUSTER = 65536
CONFIG = "#Gr\u00fc\u00dfe, 'quoted'\nscsi0: local-lvm:vm-100-disk-0,size=32M\nname: web01\n"
FIREWALL = "[OPTIONS]\nenable: 1\n"
NEEDED = ("Fcntl", "File::Path", "File::Temp", "HTTP::Tiny", "JSON::PP", "POSIX", "Time::Local")

# Before QEMU 8.0 snapshot-access takes what the guest zeroes during a backup for zero in the snapshot too, whoever
# reads it: hbitmap_status() is wrong where a range begins with a dirty bit. Proxmox VE 8.4 has QEMU 9.2.
SNAPSHOTS_KEEP_WHAT_IS_ZEROED = qemu_version() >= (8, 0)

# What the plugin expects of Proxmox VE, and nothing more.
STUBS = {
    "PVE/BackupProvider/Plugin/Base.pm": "package PVE::BackupProvider::Plugin::Base; sub new { die } 1;\n",
    "PVE/Storage/Plugin.pm": "package PVE::Storage::Plugin; our @SHARED_STORAGE = (); 1;\n",
    "PVE/Storage.pm": """package PVE::Storage;
use constant APIVER => 12;
sub prune_mark_backup_group {    # keep-last only
    my ($group, $keep) = @_;
    my $left = $keep->{'keep-last'};
    $_->{mark} = $left-- > 0 ? 'keep' : 'remove' for sort { $b->{ctime} <=> $a->{ctime} } @$group;
}
1;
""",
}

# Calls methods that stdin names, one JSON object a line, as vzdump and pvesm would: with what comes from outside
# tainted, and signals as exceptions.
DRIVER = r"""use strict; use warnings; use JSON::PP;
use PVE::Storage; use PVE::Storage::Custom::VarvePlugin;
$| = 1;
my $json = JSON::PP->new->utf8->allow_nonref->convert_blessed;
my $setup = $json->decode(scalar <STDIN>);
$PVE::BackupProvider::Plugin::Varve::QEMU_PID_DIR = $setup->{pids};
($PVE::Storage::Custom::VarvePlugin::TOKEN_DIR) = $setup->{tokens} =~ m/^(.*)$/;
$SIG{TERM} = sub { die "interrupted by signal\n" };
my @log;
my $log = sub { push @log, "$_[0]: $_[1]" };
my $plugin = 'PVE::Storage::Custom::VarvePlugin';
my %objects = (plugin => $plugin,
    provider => $plugin->new_backup_provider($setup->{scfg}, $setup->{store}, $log));
my %values = ('$scfg' => $setup->{scfg}, '$store' => $setup->{store}, '$log' => $log);
while (my $line = <STDIN>) {
    my $call = $json->decode($line);
    my $method = $call->{method};
    my @arguments = map { defined($_) && !ref($_) && exists($values{$_}) ? $values{$_} : $_ } @{$call->{arguments}};
    my @result = eval { $objects{$call->{object}}->$method(@arguments) };
    my $answer = $@ ? { error => "$@" } : { result => \@result };
    print $json->encode({ %$answer, log => [splice(@log)] }), "\n";
}
"""


class PerlError(Exception):
    """What the plugin died with."""


class Perl:
    """A process with the plugin in it: one job of vzdump, or one command of pvesm."""

    def __init__(self, directory, scfg):
        (directory / "driver.pl").write_text(DRIVER)
        for name, text in STUBS.items():
            path = directory / "stubs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.log = []
        self.process = subprocess.Popen(
            ["perl", "-T", "-I", str(directory / "stubs"), "-I", str(PLUGIN), str(directory / "driver.pl")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
        self._send({"scfg": scfg, "store": STORE, "pids": str(directory / "pids"), "tokens": str(directory / "tokens")})

    def _send(self, message):
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def begin(self, target, method, *arguments):
        self._send({"object": target, "method": method, "arguments": arguments})

    def end(self):
        line = self.process.stdout.readline()
        assert line, f"perl ended with status {self.process.wait()}"
        answer = json.loads(line)
        self.log += answer["log"]
        if "error" in answer:
            raise PerlError(answer["error"])
        return answer["result"]

    def all_of(self, target, method, *arguments):
        self.begin(target, method, *arguments)
        return self.end()

    def call(self, target, method, *arguments):
        """The last of what it returns."""
        return [None, *self.all_of(target, method, *arguments)][-1]

    def close(self):
        """It ends by itself when it has nothing more to do."""
        if not self.process.stdin.closed:
            self.process.stdin.close()
            self.process.stdout.close()
            self.process.wait(20)


class Guest:
    """A virtual machine as vzdump sees it. Its disks have a bitmap each that counts from the last backup; during a
    backup a copy-before-write filter is above each, and an export of snapshot-access shows the disk as it was."""

    BITMAP = f"snapshot-access:{STORE}"

    def __init__(self, directory, sizes):
        self.directory = directory
        self.socket = directory / "guest, 1.sock"  # awkward in a URI
        self.dice = random.Random(11)
        self.raws = {}
        for number, (device, size) in enumerate(sizes.items()):
            self.raws[device] = directory / f"{device}.raw"
            sources.make_disk(self.raws[device], size, number + 1)
            subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", self.raws[device],
                            directory / f"{device}.qcow2"], check=True)  # fmt: skip
        self.accesses = 0
        self.start()

    def start(self):
        nodes = []
        for device in self.raws:
            nodes += [{"driver": "file", "node-name": f"{device}-file",
                       "filename": str(self.directory / f"{device}.qcow2")},
                      {"driver": "qcow2", "node-name": f"{device}-disk", "file": f"{device}-file"}]  # fmt: skip
        self.vm = StorageDaemon(self.directory, nodes)
        self.vm.command("nbd-server-start", addr={"type": "unix", "data": {"path": str(self.socket)}},
                        **{"max-connections": 0})  # fmt: skip
        self.bitmaps = set()
        for device in self.raws:
            self.export_guest(device, f"{device}-disk")
        pids = self.directory / "pids"
        pids.mkdir(exist_ok=True)
        (pids / f"{VMID}.pid").write_text(f"{self.vm.process.pid}\n")

    def restart(self):
        self.vm.close()
        (self.directory / "qmp.sock").unlink(missing_ok=True)
        self.socket.unlink(missing_ok=True)
        self.start()

    def export_guest(self, device, node):
        self.vm.command("block-export-add", type="nbd", id=f"{device}-guest", writable=True,
                        **{"node-name": node, "name": f"{device}-guest"})  # fmt: skip

    def end_export(self, name):
        self.vm.command("block-export-del", id=name)
        gone = lambda: all(export["id"] != name for export in self.vm.command("query-block-exports"))  # noqa: E731
        scratch.wait_until(gone, 10, "the export is gone")

    def write(self, count=12, zeroes=True):
        """Random writes and zeroes to all disks, and to the raw files beside them."""
        for device, raw in self.raws.items():
            commands = []
            with open(raw, "r+b") as file:
                for _ in range(count):
                    length = self.dice.choice((512, 4096, CLUSTER, 3 * CLUSTER))
                    offset = self.dice.randrange((raw.stat().st_size - length) // 512) * 512
                    pattern = self.dice.choice((0 if zeroes else 255, self.dice.randrange(1, 256)))
                    write = f"write -P {pattern}" if pattern else "write -z -u"
                    commands += ["-c", f"{write} {offset} {length}"]
                    file.seek(offset)
                    file.write(bytes([pattern]) * length)
            uri = f"nbd+unix:///{device}-guest?socket={self.socket}".replace(", ", "%2C%20")
            subprocess.run(["qemu-io", "-f", "raw", *commands, uri], check=True, capture_output=True)

    def bitmap(self, command, device, **more):
        self.vm.command(f"block-dirty-bitmap-{command}", node=f"{device}-disk", **more)

    def forget_bitmap(self, device):
        self.bitmap("remove", device, name=self.BITMAP)
        self.bitmaps.remove(device)

    def set_up_access(self, modes):
        """What backup-access-setup does. Returns the provider's $volumes and copies of the disks at this instant."""
        self.accesses += 1
        volumes, frozen = {}, {}
        for device, raw in self.raws.items():
            wanted = modes.get(device, "none")
            if device in self.bitmaps and wanted != "use":
                self.forget_bitmap(device)
            mode = "none" if wanted == "none" else "reuse" if device in self.bitmaps else "new"
            fleece = self.directory / f"{device}-fleece-{self.accesses}.qcow2"
            qemu.create(fleece, raw.stat().st_size)
            self.end_export(f"{device}-guest")
            self.bitmap("add", device, name="background")
            above, exported = {}, {}
            if mode == "reuse":
                self.bitmap("disable", device, name=self.BITMAP)
                above = {"bitmap": {"node": f"{device}-disk", "name": self.BITMAP}}
                exported = {"bitmaps": [above["bitmap"]]}
            self.vm.command("blockdev-add", driver="qcow2", discard="unmap", **{"node-name": f"{device}-fleece",
                            "file": {"driver": "file", "discard": "unmap", "filename": str(fleece)}})  # fmt: skip
            self.vm.command("blockdev-add", driver="copy-before-write", file=f"{device}-disk",
                            target=f"{device}-fleece", **above, **{"node-name": f"{device}-cbw"})  # fmt: skip
            self.vm.command("blockdev-add", driver="snapshot-access", file=f"{device}-cbw", discard="unmap",
                            **{"node-name": f"{device}-access"})  # fmt: skip
            self.export_guest(device, f"{device}-cbw")
            self.vm.command("block-export-add", type="nbd", id=device, name=device, writable=True, **exported,
                            **{"node-name": f"{device}-access"})  # fmt: skip
            frozen[device] = self.directory / f"{device}-{self.accesses}.raw"
            sources.sparse_copy(raw, frozen[device])
            volumes[device] = {"size": raw.stat().st_size, "bitmap-mode": mode, "nbd-path": str(self.socket)}
            if mode != "none":
                volumes[device]["bitmap-name"] = self.BITMAP
        return volumes, frozen

    def tear_down_access(self, volumes, success):
        """What backup-access-teardown does: after a failure, nothing that was dirty is forgotten."""
        for device, volume in volumes.items():
            for export in (device, f"{device}-guest"):
                self.end_export(export)
            for node in ("access", "cbw", "fleece"):
                self.vm.command("blockdev-del", **{"node-name": f"{device}-{node}"})
            had_one = device in self.bitmaps
            if success and had_one:
                self.forget_bitmap(device)
            if success and volume["bitmap-mode"] != "none":
                self.bitmap("add", device, name=self.BITMAP)
                self.bitmaps.add(device)
            if device in self.bitmaps:
                self.bitmap("merge", device, target=self.BITMAP, bitmaps=["background"])
                if not success and had_one:
                    self.bitmap("enable", device, name=self.BITMAP)
            self.bitmap("remove", device, name="background")
            self.export_guest(device, f"{device}-disk")


def why_not():
    """Why the plugin cannot run here, or nothing."""
    try:
        command = ["perl", *(f"-M{module}" for module in NEEDED), "-e1"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "perl is not installed"
    return done.returncode and f"perl lacks a module: {done.stderr.splitlines()[0]}"


class Proxmox(HubCase):
    sizes = {"drive-scsi0": 32 * MIB, "drive-virtio1": 5 * MIB + 512}

    def setUp(self):
        if why := why_not():
            self.skipTest(why)
        super().setUp()
        self.scfg = {
            "type": "varve",
            "varve-url": self.hub.url,
            "varve-binary": binary(),
            "varve-statedir": str(self.dir / "state"),
            "varve-restore-dir": str(self.dir),
        }
        self.time = 1790000000
        self.log = []

    def boot(self, **more):
        self.guest = Guest(self.dir, {**self.sizes, **more})
        self.addCleanup(lambda: self.guest.vm.close())

    def perl(self):
        made = Perl(self.dir, self.scfg)
        self.addCleanup(made.close)
        return made

    def vzdump(self, spoil=None, guest_writes=True, rate=0, meanwhile=None):
        """One job, in the order of qemu-server's archive_external. Returns (modes, frozen copies, volume)."""
        perl = self.perl()
        self.time += 3600
        perl.call("provider", "job_init", self.time)
        archive = perl.call("provider", "backup_init", VMID, "qemu", self.time)["archive-name"]
        self.assertEqual(perl.call("provider", "backup_get_mechanism", VMID, "qemu"), "nbd")
        sizes = {device: {"size": raw.stat().st_size} for device, raw in self.guest.raws.items()}
        modes = perl.call("provider", "backup_vm_query_incremental", VMID, sizes)
        volumes, frozen = self.guest.set_up_access(modes)
        if guest_writes:
            self.guest.write(zeroes=SNAPSHOTS_KEEP_WHAT_IS_ZEROED)
        if spoil:
            spoil(volumes)
        success = False
        try:
            info = {"firewall-config": FIREWALL, "bandwidth-limit": rate}
            perl.begin("provider", "backup_vm", VMID, CONFIG, volumes, info)
            if meanwhile:
                meanwhile(perl)
            perl.end()
            success = True
        finally:
            self.log = perl.log
            self.guest.tear_down_access(volumes, success)
            stats = perl.call("provider", "backup_cleanup", VMID, "qemu", success, {})
            perl.call("provider", "job_cleanup")
            perl.close()
        self.assertGreater(stats["stats"]["archive-size"], 0)
        return modes, frozen, f"backup/{archive}"

    def points(self):
        """The backups of the guest, oldest first: (type, {disk: point})."""
        backups = {}
        for point in self.hub.get("/points", vm_name=f"pve-{VMID}").body["points"][::-1]:
            backups.setdefault(point["backup_id"], {})[point["disk_id"]] = point
        return [(disks[0]["backup_type"], disks) for disks in backups.values()]

    def assert_points_equal(self, *copies):
        """The newest points, each of all disks, equal these copies."""
        numbers = {disk["label"]: disk["disk_index"] for disk in self.hub.get(f"/vm-contexts/pve-{VMID}").body["disks"]}
        for (_, disks), frozen in zip(self.points()[-len(copies):], copies, strict=True):
            for device, raw in frozen.items():
                qemu.verify(disks[numbers[device]]["file_path"], raw)

    def types(self):
        return [kind for kind, _ in self.points()]

    def assert_nothing_runs(self):
        scratch.wait_until(lambda: self.hub.get("/backups", status="running").body["total"] == 0, 10, "nothing runs")
        self.assert_nothing_left()
        self.assert_no_files()

    def assert_no_files(self):
        left = [path for path in (self.dir / "state" / STORE).iterdir() if path.name != f"{VMID}.json"]
        self.assertEqual(left, [])


class Backups(Proxmox):
    def test_a_full_and_incrementals_equal_the_disks_at_their_instants_while_the_guest_writes_on(self):
        self.boot()
        modes, *frozen = self.vzdump()[:2]
        self.assertEqual(modes, {device: "new" for device in self.sizes})
        for _ in range(2):
            self.guest.write()
            modes, copy, _ = self.vzdump()
            self.assertEqual(modes, {device: "use" for device in self.sizes})
            frozen.append(copy)
        self.assertEqual(self.types(), ["full", "incremental", "incremental"])
        self.assert_points_equal(*frozen)
        stored = [sum(point["allocated_bytes"] for point in disks.values()) for _, disks in self.points()]
        self.assertLess(max(stored[1:]), stored[0])
        self.assert_nothing_runs()

    def test_a_disk_that_nothing_was_written_to_is_an_empty_incremental(self):
        self.boot()
        self.vzdump(guest_writes=False)
        _, frozen, _ = self.vzdump(guest_writes=False)
        self.assertEqual(self.types(), ["full", "incremental"])
        self.assert_points_equal(frozen)

    def test_a_restarted_guest_has_lost_its_bitmaps_and_is_read_whole(self):
        self.boot()
        self.vzdump()
        self.guest.restart()
        self.guest.write()
        modes, frozen, _ = self.vzdump()
        self.assertEqual(modes, {device: "new" for device in self.sizes})
        self.assertIn("info: everything is read: its QEMU is another process than at the last backup", self.log)
        self.assertEqual(self.types(), ["full", "full"])
        self.assert_points_equal(frozen)
        self.guest.write()
        _, frozen, _ = self.vzdump()
        self.assertEqual(self.types()[2:], ["incremental"])
        self.assert_points_equal(frozen)

    def test_a_disk_that_has_lost_its_bitmap_is_whole_in_an_incremental(self):
        self.boot()
        self.vzdump()
        self.guest.write()
        self.guest.forget_bitmap("drive-virtio1")
        modes, frozen, _ = self.vzdump()
        self.assertEqual(modes, {device: "use" for device in self.sizes})
        self.assertEqual(self.types(), ["full", "incremental"])
        self.assert_points_equal(frozen)

    def test_a_disk_that_can_have_no_bitmap_is_whole_each_time(self):
        self.boot(**{"drive-tpmstate0-backup": 4 * MIB})

        def has_none(volumes):
            volumes["drive-tpmstate0-backup"]["bitmap-mode"] = "none"
            volumes["drive-tpmstate0-backup"].pop("bitmap-name", None)

        _, first, _ = self.vzdump(has_none)
        self.guest.write()
        self.guest.bitmaps.discard("drive-tpmstate0-backup")
        _, second, _ = self.vzdump(has_none)
        self.assertEqual(self.types(), ["full", "incremental"])
        self.assert_points_equal(first, second)

    def test_a_failed_backup_leaves_nothing_and_the_next_incremental_has_its_changes_too(self):
        self.boot()
        self.vzdump()
        before = self.points()
        self.guest.write()
        with self.assertRaisesRegex(PerlError, "varve pull: "):
            self.vzdump(lambda volumes: volumes["drive-virtio1"].update({"bitmap-name": "none"}))
        self.assertEqual(self.points(), before)
        self.assert_nothing_runs()
        self.guest.write()
        modes, frozen, _ = self.vzdump()
        self.assertEqual(modes, {device: "use" for device in self.sizes})
        self.assertEqual(self.types(), ["full", "incremental"])
        self.assert_points_equal(frozen)

    def test_a_stopped_job_cancels_its_backup(self):
        self.boot()

        def stop(perl):
            def copying():
                backups = self.hub.get("/backups", status="running").body["backups"]
                return backups and backups[0]["bytes_transferred"] > 0

            scratch.wait_until(copying, 20, "the backup is under way")
            perl.process.send_signal(signal.SIGTERM)

        with self.assertRaisesRegex(PerlError, "interrupted by signal"):
            self.vzdump(rate=MIB, meanwhile=stop)
        self.assert_nothing_runs()
        self.assertEqual(self.hub.get("/backups", status="completed").body["total"], 0)
        _, frozen, _ = self.vzdump()
        self.assert_points_equal(frozen)


class Bases(Proxmox):
    """An incremental is made on the backup that the bitmaps count from, or not at all."""

    def assert_full_because(self, why):
        self.guest.write()
        modes, frozen, _ = self.vzdump()
        self.assertEqual(modes, {device: "new" for device in self.guest.raws})
        self.assertTrue([line for line in self.log if why in line], self.log)
        self.assertEqual(self.types()[-1], "full")
        self.assert_points_equal(frozen)

    def test_the_newest_backup_was_deleted(self):
        self.boot()
        self.vzdump()
        self.guest.write()
        *_, volume = self.vzdump()
        perl = self.perl()
        perl.call("plugin", "free_image", "$store", "$scfg", volume, 0)
        with self.assertRaisesRegex(PerlError, "has no backup of VM 100 of that time"):
            perl.call("plugin", "free_image", "$store", "$scfg", volume, 0)
        self.assertEqual(self.types(), ["full"])
        self.assert_full_because("and its bitmaps count from pve/100-")

    def test_somebody_else_has_backed_up_the_vm(self):
        self.boot()
        self.vzdump()
        _, disks = self.points()[0]
        words = []
        for number, point in disks.items():
            raw = self.dir / f"foreign-{number}.raw"
            qemu.convert_to_raw(point["file_path"], raw)
            words += ["--disk", f"{number}={raw}"]
        command = [binary(), "pull", f"pve-{VMID}", *words, "--server", self.hub.url]
        subprocess.run(command, check=True, capture_output=True)
        self.assert_full_because("the newest backup in varve is of pull/")

    def test_the_state_was_lost(self):
        self.boot()
        self.vzdump()
        (self.dir / "state" / STORE / f"{VMID}.json").unlink()
        self.assert_full_because("it is not known here")

    def test_the_chain_is_long_enough(self):
        self.scfg["varve-chain-length"] = 2
        self.boot()
        self.vzdump()
        self.vzdump()
        self.assertEqual(self.types(), ["full", "incremental"])
        self.assert_full_because("the chain has 2 backups")

    def test_a_disk_was_taken_away_and_another_added(self):
        self.boot(**{"drive-scsi2": MIB})
        self.vzdump()
        self.guest.end_export("drive-scsi2-guest")
        del self.guest.raws["drive-scsi2"]
        self.assert_full_because("other disks are backed up")
        self.assertEqual(len(self.points()[-1][1]), 3)

    def test_the_name_belongs_to_another_vm(self):
        self.hub.register(f"pve-{VMID}", [MIB])
        self.boot()
        with self.assertRaisesRegex(PerlError, "set another varve-vm-prefix"):
            self.vzdump()


class Restores(Proxmox):
    def assert_same(self, raw, path):
        command = ["qemu-img", "compare", "-f", "raw", "-F", "raw", raw, path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stdout.strip()), (0, "Images are identical."), done.stderr)

    def test_a_backup_gives_back_configuration_and_disks_and_leaves_no_files(self):
        self.boot()
        self.vzdump()
        self.guest.write()
        _, frozen, volume = self.vzdump()
        self.guest.write()
        self.vzdump()
        perl = self.perl()
        self.assertEqual(perl.all_of("provider", "restore_get_mechanism", volume), ["qemu-img", "qemu"])
        self.assertEqual(perl.call("provider", "archive_get_guest_config", volume), CONFIG)
        self.assertEqual(perl.call("provider", "archive_get_firewall_config", volume), FIREWALL)
        devices = perl.call("provider", "restore_vm_init", volume)
        self.assertEqual(devices, {device: {"size": size} for device, size in self.sizes.items()})
        for device, raw in frozen.items():
            path = perl.call("provider", "restore_vm_volume_init", volume, device, {})["qemu-img-path"]
            self.assertEqual(os.stat(path).st_size, devices[device]["size"])
            self.assert_same(raw, path)
            perl.call("provider", "restore_vm_volume_cleanup", volume, device, {})
            self.assertFalse(os.path.exists(path))
        perl.call("provider", "restore_vm_cleanup", volume)
        self.assertEqual(list(self.dir.glob("varve-restore-*")), [])
        self.assert_no_files()

    def test_qemu_img_reads_the_point_itself_when_that_is_configured(self):
        self.scfg["varve-restore"] = "nbd"
        self.boot()
        _, frozen, volume = self.vzdump()
        perl = self.perl()
        perl.call("provider", "restore_vm_init", f"{STORE}:{volume}")
        for device, raw in frozen.items():
            path = perl.call("provider", "restore_vm_volume_init", volume, device, {})["qemu-img-path"]
            self.assertTrue(path.startswith("nbd://"), path)
            self.assert_same(raw, path)
        perl.call("provider", "restore_vm_cleanup", volume)


class Storage(Proxmox):
    def listed(self):
        return self.perl().call("plugin", "list_volumes", "$store", "$scfg", VMID, ["backup"])

    def test_it_lists_what_it_has_made_by_names_that_it_understands(self):
        self.assertEqual(self.listed(), [])
        self.boot()
        *_, volume = self.vzdump()
        [found] = self.listed()
        self.assertEqual((found["volid"], found["vmid"], found["ctime"]), (f"{STORE}:{volume}", VMID, self.time))
        self.assertRegex(volume, r"^backup/vm/100/20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        perl = self.perl()
        parsed = perl.all_of("plugin", "parse_volname", volume)
        self.assertEqual(parsed[:3], ["backup", volume.removeprefix("backup/"), str(VMID)])
        size = perl.all_of("plugin", "volume_size_info", "$scfg", "$store", volume, 5)
        self.assertEqual((size[0], size[4]), (found["size"], self.time))
        self.assertEqual(perl.call("plugin", "list_volumes", "$store", "$scfg", None, ["images"]), [])
        for name in ("images/vm-100-disk-0.raw", "backup/vm/100/../x", "backup/ct/100/2026-11-29T00:00:00Z"):
            with self.assertRaisesRegex(PerlError, "is not the name of a backup"):
                perl.call("plugin", "parse_volname", name)

    def test_pruning_removes_the_newest_first_and_nothing_that_is_needed(self):
        self.scfg["varve-chain-length"] = 2
        self.boot()
        for _ in range(5):
            self.vzdump()
        before = [found["volid"] for found in self.listed()]  # newest first: F, I F, I F
        keep = {"keep-last": 2}

        def marks(dry):
            pruned = self.perl().call("plugin", "prune_backups", "$scfg", "$store", keep, VMID, "qemu", dry, "$log")
            return {entry["volid"]: entry["mark"] for entry in pruned}

        expected = dict(zip(before, ["keep", "keep", "keep", "remove", "remove"], strict=True))
        self.assertEqual(marks(1), expected)
        self.assertEqual([found["volid"] for found in self.listed()], before)
        self.assertEqual(marks(0), expected)
        self.assertEqual([found["volid"] for found in self.listed()], before[:3])

    def test_its_state_is_the_servers(self):
        perl = self.perl()
        self.assertEqual(perl.call("plugin", "activate_storage", "$store", "$scfg", {}), 1)
        total, free, used, active = perl.all_of("plugin", "status", "$store", "$scfg", {})
        self.assertEqual(active, 1)
        self.assertGreaterEqual(total, free + used)
        self.hub.stop()
        with self.assertRaisesRegex(PerlError, "varve at http://127.0.0.1"):
            perl.call("plugin", "activate_storage", "$store", "$scfg", {})
        with self.assertRaisesRegex(PerlError, "varve at http://127.0.0.1"):
            perl.call("provider", "job_init", 1)

    def test_containers_are_refused_in_words(self):
        perl = self.perl()
        perl.call("provider", "backup_init", 200, "lxc", self.time)
        with self.assertRaisesRegex(PerlError, "varve backs up virtual machines only"):
            perl.call("provider", "backup_get_mechanism", 200, "lxc")
        perl.call("provider", "backup_cleanup", 200, "lxc", 0, {})

    def test_it_declares_itself_as_a_backup_provider(self):
        perl = self.perl()
        data = perl.call("plugin", "plugindata")
        self.assertEqual(data["features"], {"backup-provider": 1})
        self.assertEqual(perl.call("plugin", "api"), 12)
        properties, options = perl.call("plugin", "properties"), perl.call("plugin", "options")
        self.assertLessEqual(set(properties), set(options))
        self.assertTrue(all(name.startswith("varve-") for name in properties))


class Token(Proxmox):
    TOKEN = "proxmox-needs-this-token-0123456789"
    options = {"api_token": TOKEN}

    def test_the_token_is_kept_in_a_file_of_its_own_and_deleted_with_the_storage(self):
        perl = self.perl()
        file = self.dir / "tokens" / f"{STORE}.varve-token"
        perl.call("plugin", "on_add_hook", "$store", "$scfg", "varve-token", self.TOKEN)
        self.assertEqual((file.read_text(), file.stat().st_mode & 0o777), (self.TOKEN + "\n", 0o600))
        self.assertEqual(perl.call("plugin", "status", "$store", "$scfg", {}), 1)
        perl.call("plugin", "on_update_hook", "$store", "$scfg")
        self.assertTrue(file.exists())
        perl.call("plugin", "on_update_hook", "$store", "$scfg", "varve-token", None)
        self.assertFalse(file.exists())
        with self.assertRaisesRegex(PerlError, "401"):
            perl.call("plugin", "status", "$store", "$scfg", {})
        perl.call("plugin", "on_delete_hook", "$store", "$scfg")


if __name__ == "__main__":
    run.main()
