#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The existing client, both generations, through every way in."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import client, qemu, run, sources  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402

SIZES = [96 * MIB, 64 * MIB + 512]


class ClientCase(HubCase):
    client_options = ()

    def vm_with_sources(self, sizes=SIZES, **more):
        disks = sources.make_sources(self.dir, sizes)
        self.register("vm", sizes, **more)
        return disks

    def backup(self, disks, backup_type="full", options=()):
        return self.client_backup("vm", disks, backup_type, [*self.client_options, *options])

    def change(self, disks, seed=5):
        for disk in disks:
            disk.advance(seed + disk.key)

    def modes(self, client_run):
        return [event["mode"] for event in client_run.events("copy")]

    def answers(self, client_run, key):
        return [event["answer"] for event in client_run.events("changeid") if event["key"] == key]


class SequenceOfOneGeneration:
    """The whole sequence; the classes below say which client."""

    def test_full_and_two_incrementals_of_two_disks_equal_their_sources(self):
        """A18 A19 A36 A37 full, incremental, incremental"""
        disks = self.vm_with_sources()
        _, first = self.backup(disks)
        self.assertEqual(self.modes(first), ["full", "full"])
        for seed in (10, 20):
            base = [disk.change_id for disk in disks]
            self.change(disks, seed)
            _, later = self.backup(disks, "incremental")
            self.assertEqual(self.modes(later), ["incremental", "incremental"])
            for disk, change_id in zip(disks, base):
                self.assertEqual(self.answers(later, disk.key), [change_id] * 3)
        self.assertEqual(self.chain("vm", 0)["backup_count"], 3)
        self.assert_points_equal_sources("vm", disks)

    def test_a_disk_without_changes_gets_an_empty_point(self):
        """A18 no changed areas, straight to complete"""
        disks = self.vm_with_sources()
        self.backup(disks)
        disks[0].advance(3)
        disks[1].tick()
        _, later = self.backup(disks, "incremental")
        self.assertEqual(len(later.events("copy")), 1)
        self.assert_points_equal_sources("vm", disks)

    def test_a_change_tracking_reset_is_stored_correctly_with_a_warning(self):
        """A19 other UUID, the whole disk goes into the overlay"""
        disks = self.vm_with_sources()
        self.backup(disks)
        self.change(disks)
        old_ids = disks[1].snapshots
        disks[1].uuid, disks[1].number = sources.vmware_uuid(99), 1
        job, later = self.backup(disks, "incremental")
        self.assertEqual(self.modes(later), ["incremental", "full"])
        self.assertIn("change_tracking_reset", [warning["code"] for warning in job["warnings"]])
        disks[1].snapshots = old_ids
        self.assert_points_equal_sources("vm", disks)


class ClientWithTelemetry(SequenceOfOneGeneration, ClientCase):
    client_options = ("--telemetry-seconds", "0.2")


class Client101(SequenceOfOneGeneration, ClientCase):
    client_options = ("--legacy",)

    def test_its_complete_carries_no_disk_id_and_hits_the_right_disks(self):
        """A18 complete without disk_id"""
        disks = self.vm_with_sources()
        job, first = self.backup(disks)
        self.assertEqual([event["status"] for event in first.events("complete")], [200, 200])
        recorded = [disk["change_id"] for disk in self.disks(job["backup_id"])]
        self.assertEqual(recorded, [disk.change_id for disk in disks])


class SecondFull(ClientCase):
    def test_a_second_full_stands_alone_and_opens_a_generation(self):
        """A42 A29 full, incremental, full, incremental"""
        disks = self.vm_with_sources()
        for seed, kind in enumerate(("full", "incremental", "full", "incremental")):
            _, done = self.backup(disks, kind)
            self.assertEqual(self.modes(done), [kind, kind])
            self.change(disks, seed)
        for disk in (0, 1):
            newest = self.images("vm", disk)
            self.assertEqual(len(newest), 2)
            self.assertNotIn("backing file:", qemu.info_text(newest[0]))
            self.assertEqual(qemu.backing_chain(newest[1]), [newest[1].name, newest[0].name])
            self.assertEqual(self.chain("vm", disk, generation=1)["backup_count"], 2)
        self.assert_points_equal_sources("vm", disks, generation=1)
        self.assert_points_equal_sources("vm", disks, generation=2)


class SampledZeroes(ClientCase):
    def test_what_the_client_did_not_look_at_is_reported(self):
        """A49 a chunk whose samples are zero arrives as zeros"""
        size = 3 * 32 * MIB * 3
        disks = sources.make_sources(self.dir, [size], data_fraction=0)
        with open(disks[0].path, "r+b") as disk:
            disk.seek(40 * MIB + 12345)  # in the second chunk, between the samples
            disk.write(b"overlooked")
        self.register("vm", [size])
        job, done = self.backup(disks, options=["--sampled"])
        zeroed = done.events("copied")[0]["zeroed"]
        self.assertGreaterEqual(zeroed, 3 * 32 * MIB)
        warning = next(warning for warning in job["warnings"] if warning["code"] == "sampled_zeroes")
        self.assertIn(str(zeroed), warning["message"])
        self.assertTrue(qemu.differs(disks[0].path, self.images("vm")[0]), "the client should have lost this")


    def test_zeroes_of_a_writer_that_reads_a_map_are_no_samples(self):
        """nbdcopy skips the holes of a file: nothing was overlooked, and nothing is warned of"""
        source = self.dir / "holes.raw"
        with open(source, "wb") as disk:
            disk.write(b"d" * MIB)
            disk.truncate(96 * MIB)
        self.register("vm", [96 * MIB])
        job = self.start("vm")
        uri = job["nbd_targets_string"].partition(":")[2]
        subprocess.run(["nbdcopy", str(source), uri], check=True, timeout=60)
        self.complete_ok(job, "own/1", 0)
        done = self.job(job["backup_id"])
        self.assertGreater(self.disks(job["backup_id"])[0]["bytes_zeroed"], 64 * MIB)
        self.assertEqual(done.get("warnings", []), [])


class Forwarder:
    """A byte pump like `ssh -L`: only what goes through it can have come this way."""

    def __init__(self, port):
        self.target = port
        self.connections = 0
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.server.accept()
            except OSError:
                return
            self.connections += 1
            far = socket.create_connection(("127.0.0.1", self.target))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source, sink):
        try:
            while data := source.recv(1 << 20):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        self.server.close()


class BothWaysIn(ClientCase):
    def test_the_same_export_answers_on_its_port_and_by_name(self):
        """A12 its own port and the main port"""
        self.register("vm", [MIB, MIB])
        job = self.start("vm")
        target = self.targets(job)[0]
        by_name = client.Target(target.key, "127.0.0.1", self.hub.nbd_port, target.export)
        own, main = client.connect(target), client.connect(by_name)
        own.pwrite(b"by port", 0)
        self.assertEqual(bytes(main.pread(7, 0)), b"by port")
        other = client.Target(0, "127.0.0.1", target.port, self.targets(job)[1].export)
        with self.assertRaises(client.nbd.Error):
            client.connect(other)

    def test_a_job_started_for_ports_can_be_written_by_name(self):
        """A12 client through the main port only"""
        disks = self.vm_with_sources()
        pump = Forwarder(self.hub.nbd_port)
        self.addCleanup(pump.close)
        self.starter.through_port = pump.port
        self.backup(disks)
        self.assertGreaterEqual(pump.connections, 4)
        self.assert_points_equal_sources("vm", disks)


class NamesMode(ClientCase):
    options = {"targets": "names"}

    def test_targets_carry_the_main_port_and_the_client_works(self):
        """A12 `names` mode"""
        disks = self.vm_with_sources()
        job, _ = self.backup(disks)
        ports = {target.port for target in client.parse_targets(self.node.calls[0]["nbd_targets"])}
        self.assertEqual(ports, {self.hub.nbd_port})
        self.assert_points_equal_sources("vm", disks)
        self.assertEqual(job["disks_count"], 2)

    def test_no_port_of_the_range_is_taken(self):
        """A12 nbd_port is the main port"""
        self.register("vm", [MIB])
        job = self.start("vm")
        self.assertEqual(job["disk_results"][0]["nbd_port"], self.hub.nbd_port)
        self.assertEqual(self.allocated_ports(), 0)


class ClientTrouble(ClientCase):
    options = {"disconnect_grace": "2s", "nbd_idle": "5s", "first_connect": "4s", "stall": "60s"}

    def fails_with(self, fault, seconds=20):
        disks = self.vm_with_sources()
        job, trouble = self.launch_client("vm", disks, options=["--fault", fault, "--telemetry-seconds", "0.2"])
        failed = self.wait_for_status(job["backup_id"], "failed", seconds)
        trouble.kill()
        self.assert_nothing_left()
        self.assertEqual(self.chain("vm")["backups"], [])
        self.starter.extra = []
        self.backup(disks)
        self.assert_points_equal_sources("vm", disks)
        return failed

    def test_a_client_that_dies_between_requests_fails_the_job_after_the_grace(self):
        """A45 A15 exit without DISC"""
        self.fails_with(f"bytes:{40 * MIB}")

    def test_a_client_that_dies_in_mid_request_fails_the_job_after_the_grace(self):
        """A45 A15 end of file inside a payload"""
        self.fails_with(f"mid-request:{40 * MIB}")

    def test_a_client_that_dies_before_the_last_complete_fails_the_whole_job(self):
        """A45 A50 the sealed disk goes too"""
        self.fails_with("before-complete:1")

    def test_a_hung_client_is_ended_although_its_telemetry_goes_on(self):
        """A44 nbd_idle"""
        failed = self.fails_with(f"hang:{40 * MIB}", 30)
        self.assertIn("last_telemetry_at", failed)

    def test_a_client_that_never_connects_fails_the_job(self):
        """A15 first_connect"""
        self.register("vm", [MIB])
        job = self.start("vm")
        self.wait_for_status(job["backup_id"], "failed", 15)
        self.assert_nothing_left()

    def test_a_reset_in_mid_write_and_a_return_within_the_grace_goes_on(self):
        """A45 RST, then the same job by a new connection"""
        self.register("vm", [8 * MIB])
        job = self.start("vm")
        handle = self.connect(job)
        handle.pwrite(b"1" * MIB, 0)
        linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
        with socket.socket(fileno=os.dup(handle.aio_get_fd())) as wire:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            wire.sendall(bytes.fromhex("25609513 0000 0001 0000000000000001 0000000000100000 00100000") + b"x" * 1000)
            del handle
        time.sleep(0.5)
        again = self.connect(job)
        self.assertEqual(bytes(again.pread(MIB, 0)), b"1" * MIB)
        again.pwrite(b"2" * MIB, MIB)
        time.sleep(3)  # longer than the grace: the return must have ended it
        self.complete_ok(job, "u/1", 0)
        qemu.check(self.images("vm")[0])

    def test_an_idle_connection_lives_as_long_as_the_job(self):
        """A45 the client's first connection stays silent; longer than every grace of this test"""
        disks = self.vm_with_sources()
        job, slow = self.launch_client("vm", disks, options=["--legacy"])
        slow.process.send_signal(signal.SIGSTOP)
        time.sleep(3)
        slow.process.send_signal(signal.SIGCONT)
        self.assertEqual(slow.wait(), 0, slow.explain())
        self.wait_for_status(job["backup_id"], "completed")


if __name__ == "__main__":
    run.main()
