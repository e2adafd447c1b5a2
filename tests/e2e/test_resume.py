#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Transfers that are interrupted and go on: what has arrived is not sent again, and is what was sent."""

import ctypes
import json
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import client, qemu, run, scratch  # noqa: E402
from harness.case import MIB, HubCase, rounds  # noqa: E402
from harness.daemon import binary  # noqa: E402
from harness.qcow2_bytes import Qcow2Bytes  # noqa: E402
from test_pull import CLUSTER, VM, Pulls  # noqa: E402

SIZE = 48 * MIB
GIB = 1 << 30
PIDFD_GETFD = 438  # a system call that Python does not name
PIECE = MIB


def content(seed, size=SIZE):
    return random.Random(seed).randbytes(size)


class Interrupted(HubCase):
    """A client of no particular kind, which asks the export what has arrived."""

    options = {"disconnect_grace": "1s"}

    def setUp(self):
        super().setUp()
        self.register(VM, [SIZE])
        self.raw = self.dir / "disk.raw"

    def begin(self, backup_type="full", **more):
        return self.start(VM, backup_type, client="external", keep_partial=True, **more)

    def resume(self, job):
        answer = self.hub.api("POST", "/backups", {"resume": job["backup_id"]})
        self.assertEqual(answer.status, 200, answer)
        return answer.body

    def send(self, job, data, ranges, index=0):
        handle = self.connect(job, index)
        for offset, length in ranges:
            for at in range(offset, offset + length, PIECE):
                end = min(at + PIECE, offset + length)
                handle.pwrite(data[at:end], at)
        return handle

    def arrived(self, job, index=0, size=SIZE):
        """The ranges with allocation depth 1."""
        target = self.targets(job)[index]
        handle = nbd.NBD()
        handle.add_meta_context("qemu:allocation-depth")
        handle.set_export_name(target.export)
        handle.connect_tcp(target.host, str(target.port))
        found, at = [], 0
        while at < size:
            answers = []
            handle.block_status(min(size - at, GIB), at, lambda _, __, entries, ___: answers.append(entries))
            [entries] = answers
            for length, depth in zip(entries[::2], entries[1::2]):
                if depth == 1 and found and sum(found[-1]) == at:
                    found[-1] = (found[-1][0], found[-1][1] + length)
                elif depth == 1:
                    found.append((at, length))
                at += length
        handle.shutdown()
        return found

    def missing(self, arrived, size=SIZE):
        at = 0
        for offset, length in [*arrived, (size, 0)]:
            if offset > at:
                yield at, offset - at
            at = offset + length

    def cut(self, job, handle):
        """The client fails; the job as it is then."""
        failure = {"status": "failed", "error": {"message": "the snapshot is gone"}}
        handle.shutdown()
        self.hub.api("POST", f"/telemetry/vmware/{job['backup_id']}", failure)
        return self.wait_for_status(job["backup_id"], "failed")

    def finish(self, job, data):
        """Sends what is missing, completes, compares, verifies; returns the bytes that were sent."""
        rest = list(self.missing(self.arrived(job)))
        handle = self.send(job, data, rest)
        self.complete_ok(job, "u/1")
        handle.shutdown()
        self.assertEqual(self.job(job["backup_id"])["status"], "completed")
        self.raw.write_bytes(data)
        qemu.verify(self.chain(VM)["backups"][-1]["file_path"], self.raw)
        subprocess.run([binary(), "verify", VM, "--server", self.hub.url], check=True, capture_output=True, timeout=60)
        self.assertEqual(list(self.hub.repository.rglob("*.arrived")), [])
        return sum(length for _, length in rest)


class Resumed(Interrupted):
    def test_a_client_that_went_away_sends_only_the_rest_in_another_job(self):
        data, job = content(1), self.begin()
        self.send(job, data, [(0, 40 * MIB)]).shutdown()
        failed = self.wait_for_status(job["backup_id"], "failed")
        self.assertEqual((failed["keep_partial"], failed["resumable"]), (True, True))
        self.assertEqual(len(list(self.hub.repository.rglob("*.partial"))), 1)
        resumed = self.resume(job)
        self.assertEqual((resumed["resumes"], resumed["backup_type"]), (job["backup_id"], "full"))
        self.assertEqual(self.arrived(resumed), [(0, 40 * MIB)])
        self.assertEqual(self.finish(resumed, data), 8 * MIB)
        done = self.job(resumed["backup_id"])
        self.assertEqual((done["bytes_transferred"], done["resumed_bytes"]), (SIZE, 40 * MIB))
        self.assertNotIn("resumable", self.job(job["backup_id"]))
        self.assertEqual(done.get("warnings", []), [])

    def test_after_a_kill_of_varve_what_was_durable_is_not_sent_again(self):
        data, job = content(2), self.begin()
        handle = self.send(job, data, [(0, 32 * MIB)])
        scratch.wait_until(lambda: any(p.stat().st_size > 200 for p in self.hub.repository.rglob("*.arrived")), 15,
                           "what has arrived is noted")
        for at in range(32 * MIB, 34 * MIB, CLUSTER):
            handle.pwrite(data[at : at + CLUSTER], at)
        self.hub.kill()
        self.hub.restart()
        self.assertTrue(self.job(job["backup_id"])["resumable"])
        resumed = self.resume(job)
        self.assertLessEqual(self.finish(resumed, data), SIZE - 32 * MIB)

    def test_cut_at_90_percent_of_a_large_disk_it_sends_a_gib_again_at_most(self):
        size, data = rounds(32 * GIB, 1 << 40), content(12, PIECE)
        self.register("large", [size])
        job = self.start("large", client="external", keep_partial=True)
        handle = self.connect(job)
        cut_at = size // 10 * 9 // GIB * GIB
        for at in range(0, cut_at, GIB):
            handle.pwrite(data, at)
            for part in range(at + PIECE, at + GIB, 93 * MIB):  # 11 of them
                handle.zero(93 * MIB, part)
        self.hub.kill()
        self.hub.restart()
        resumed = self.resume(job)
        rest = list(self.missing(self.arrived(resumed, size=size), size))
        self.assertLessEqual(sum(length for _, length in rest), size - cut_at + GIB)

    def test_what_rotted_while_it_waited_has_not_arrived(self):
        data, job = content(3), self.begin()
        self.cut(job, self.send(job, data, [(0, 16 * MIB)]))
        [partial] = self.hub.repository.rglob("*.partial")
        image = Qcow2Bytes(partial)
        with open(partial, "r+b") as file:
            file.seek(image.host(100) + 12345)
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 1]))
        resumed = self.resume(job)
        # A client that does not ask, and sends the rest only, is not believed.
        handle = self.send(resumed, data, [(16 * MIB, SIZE - 16 * MIB)])
        handle.shutdown()
        answer = self.complete(resumed, "u/1")
        self.assertEqual((answer.status, answer.body["code"]), (500, "seal_failed"), answer)
        self.assertIn(f"bytes {100 * CLUSTER} to {101 * CLUSTER}", answer.body["details"])
        again = self.resume(resumed)
        self.assertEqual(self.arrived(again), [(0, 100 * CLUSTER), (101 * CLUSTER, SIZE - 101 * CLUSTER)])
        self.assertEqual(self.finish(again, data), CLUSTER)

    def test_of_what_was_never_sent_of_a_cluster_nothing_that_rotted_stays(self):
        old = content(20)
        self.quick_backup(VM, ["u/0"], writes=[(at, old[at : at + 16 * MIB]) for at in range(0, SIZE, 16 * MIB)])
        new = bytearray(old)
        new[7 * CLUSTER : 7 * CLUSTER + 4096] = content(21, 4096)
        job = self.begin("incremental")
        handle = self.connect(job)
        handle.pwrite(bytes(new[7 * CLUSTER : 7 * CLUSTER + 4096]), 7 * CLUSTER)
        self.cut(job, handle)
        [partial] = self.hub.repository.rglob("*.partial")
        with open(partial, "r+b") as file:
            file.seek(Qcow2Bytes(partial).host(7) + 50000)
            file.write(b"rotten")
        resumed = self.resume(job)
        self.assertEqual(self.arrived(resumed), [])
        handle = self.connect(resumed)
        handle.pwrite(bytes(new[7 * CLUSTER : 7 * CLUSTER + 4096]), 7 * CLUSTER)
        handle.shutdown()
        self.complete_ok(resumed, "u/1")
        self.raw.write_bytes(new)
        qemu.verify(self.chain(VM)["backups"][-1]["file_path"], self.raw)

    def test_what_is_sent_again_counts_in_its_last_form_or_not_at_all(self):
        data, job = content(22), self.begin()
        handle = self.connect(job)
        handle.zero(SIZE, 0)  # as programs do that do not know what is there
        scratch.wait_until(lambda: any(p.stat().st_size > 100 for p in self.hub.repository.rglob("*.arrived")), 15,
                           "what has arrived is noted")
        self.hub.options["commit_interval"] = "1h"
        for at in range(0, 16 * MIB, PIECE):
            handle.pwrite(data[at : at + PIECE], at)
        self.hub.kill()
        self.hub.restart()
        resumed = self.resume(job)
        self.assertEqual([r for r in self.arrived(resumed) if r[0] < 16 * MIB], [])
        self.finish(resumed, data)

    def test_parts_of_clusters_arrive_to_the_byte(self):
        data, job = content(4), self.begin()
        handle = self.connect(job)
        handle.pwrite(data[:5000], 0)
        handle.pwrite(data[3 * CLUSTER + 512 : 5 * CLUSTER - 512], 3 * CLUSTER + 512)
        self.cut(job, handle)
        resumed = self.resume(job)
        self.assertEqual(self.arrived(resumed), [(0, 5000), (3 * CLUSTER + 512, 2 * CLUSTER - 1024)])
        # The rest of a cluster of which a part has arrived, before anybody has asked for it.
        self.cut(resumed, self.connect(resumed))
        again = self.resume(resumed)
        handle = self.connect(again)
        handle.pwrite(data[5000:CLUSTER], 5000)
        self.assertEqual(self.arrived(again)[0], (0, CLUSTER))
        handle.shutdown()
        self.finish(again, data)

    def test_a_full_into_the_chain_goes_on_with_what_it_did_not_store(self):
        old, new = content(5), bytearray(content(5))
        self.quick_backup(VM, ["u/0"], writes=[(at, old[at : at + 16 * MIB]) for at in range(0, SIZE, 16 * MIB)])
        new[5 * MIB : 6 * MIB] = content(6, MIB)
        new[40 * MIB : 44 * MIB] = bytes(4 * MIB)
        new = bytes(new)
        job = self.begin(into_chain=True)
        handle = self.send(job, new, [(0, 41 * MIB)])
        handle.zero(MIB, 41 * MIB)
        self.cut(job, handle)
        resumed = self.resume(job)
        self.assertTrue(resumed["into_chain"])
        self.assertEqual(self.arrived(resumed), [(0, 42 * MIB)])
        self.assertEqual(self.finish(resumed, new), 6 * MIB)
        [disk] = self.disks(resumed["backup_id"])
        self.assertEqual((disk["backup_type"], disk["bytes_stored"]), ("incremental", MIB))

    def test_an_incremental_goes_on_upon_its_point_and_not_upon_another(self):
        old = content(7)
        first = self.quick_backup(VM, ["u/0"], writes=[(at, old[at : at + 16 * MIB]) for at in range(0, SIZE, 16 * MIB)])
        new = bytearray(old)
        new[MIB : 3 * MIB] = content(8, 2 * MIB)
        job = self.begin("incremental")
        self.cut(job, self.send(job, new, [(MIB, MIB)]))
        resumed = self.resume(job)
        self.assertEqual(self.arrived(resumed), [(MIB, MIB)])
        handle = self.send(resumed, new, [(2 * MIB, MIB)])
        self.cut(resumed, handle)
        again = self.resume(resumed)
        self.assertEqual(self.arrived(again), [(MIB, 2 * MIB)])
        self.complete_ok(again, "u/1")
        self.raw.write_bytes(new)
        qemu.verify(self.chain(VM)["backups"][-1]["file_path"], self.raw)
        third = self.begin("incremental")
        self.cut(third, self.send(third, old, [(0, MIB)]))
        for gone in (again, first):
            self.assertEqual(self.hub.api("DELETE", f"/backups/{gone['backup_id']}").status, 200)
        answer = self.hub.api("POST", "/backups", {"resume": third["backup_id"]})
        self.assertIn(answer.status, (400, 409), answer)

    def test_of_several_disks_those_that_were_complete_are_complete_again_without_a_byte(self):
        self.register("two", [SIZE, SIZE])
        one, two = content(9), content(10)
        job = self.start("two", client="external", keep_partial=True)
        self.send(job, one, [(0, SIZE)], 0).shutdown()
        self.complete_ok(job, "u/1", 0)
        self.cut(job, self.send(job, two, [(0, 8 * MIB)], 1))
        resumed = self.resume(job)
        self.assertEqual(self.arrived(resumed, 0), [(0, SIZE)])
        self.complete_ok(resumed, "u/1", 0)
        self.assertEqual(self.arrived(resumed, 1), [(0, 8 * MIB)])
        self.send(resumed, two, [(8 * MIB, SIZE - 8 * MIB)], 1).shutdown()
        self.complete_ok(resumed, "u/2", 1)
        for index, data in enumerate((one, two)):
            self.raw.write_bytes(data)
            qemu.verify(self.chain("two", index)["backups"][-1]["file_path"], self.raw)


class Left(Interrupted):
    """What is left, and until when."""

    def assert_gone(self, job, text):
        scratch.wait_until(lambda: not self.stray_files(), 10, "its files are removed")
        self.assert_nothing_left()
        answer = self.hub.api("POST", "/backups", {"resume": job["backup_id"]})
        self.assert_problem(answer, 409, "the backup cannot be resumed", "not_resumable")
        self.assertIn(text, answer.body["details"])

    def interrupted(self, **more):
        job = self.begin(**more)
        self.cut(job, self.send(job, content(1), [(0, 4 * MIB)]))
        return job

    def test_nothing_stays_unless_it_is_asked_for(self):
        job = self.start(VM, client="external")
        self.cut(job, self.send(job, content(1), [(0, 4 * MIB)]))
        self.assert_gone(job, "was not asked to keep")

    def test_a_cancelled_backup_leaves_nothing(self):
        job = self.begin()
        self.send(job, content(1), [(0, 4 * MIB)]).shutdown()
        self.hub.api("POST", f"/backups/{job['backup_id']}/cancel")
        self.wait_for_status(job["backup_id"], "cancelled")
        self.assert_gone(job, "was cancelled")

    def test_a_new_backup_of_the_vm_takes_its_place(self):
        job = self.interrupted()
        self.quick_backup(VM, ["u/0"])
        self.assert_gone(job, "made way for another backup")

    def test_deleting_the_failed_backup_removes_it(self):
        job = self.interrupted()
        self.assertEqual(self.hub.api("DELETE", f"/backups/{job['backup_id']}").status, 200)
        self.assert_nothing_left()
        self.assertEqual(self.hub.api("POST", "/backups", {"resume": job["backup_id"]}).status, 404)

    def test_cancelling_the_failed_backup_removes_it(self):
        job = self.interrupted()
        self.assertEqual(self.hub.api("POST", f"/backups/{job['backup_id']}/cancel").status, 200)
        self.assert_gone(job, "left nothing")

    def test_a_vm_that_is_no_longer_registered_takes_it_along(self):
        self.interrupted()
        self.assertEqual(self.hub.api("DELETE", f"/vm-contexts/{VM.replace(' ', '%20')}").status, 200)
        self.assert_nothing_left()

    def test_it_survives_a_restart_and_goes_when_nobody_comes_for_it(self):
        job = self.interrupted()
        self.hub.stop()
        self.hub.restart()
        self.assertTrue(self.job(job["backup_id"])["resumable"])
        self.hub.stop()
        self.hub.options["keep_partial_for"] = "1s"
        self.hub.restart()
        scratch.wait_until(lambda: "resumable" not in self.job(job["backup_id"]), 20, "it has expired")
        self.assert_gone(job, "left nothing")

    def test_a_backup_is_resumed_once_and_with_no_other_word(self):
        job = self.interrupted()
        answer = self.hub.api("POST", "/backups", {"resume": job["backup_id"], "vm_name": VM})
        self.assert_problem(answer, 400, "resume goes with base and no other member", "resume_with_others")
        resumed = self.resume(job)
        answer = self.hub.api("POST", "/backups", {"resume": job["backup_id"]})
        self.assertEqual(answer.status, 409, answer)
        answer = self.hub.api("POST", "/backups", {"resume": resumed["backup_id"]})
        self.assertIn("is still running", answer.body["details"])
        self.finish(resumed, content(1))
        answer = self.hub.api("POST", "/backups", {"resume": resumed["backup_id"]})
        self.assertIn("is complete", answer.body["details"])

    def test_an_incremental_is_resumed_against_its_parent_and_no_other_base(self):
        old, new = content(30), bytearray(content(30))
        self.quick_backup(VM, ["u/0"], writes=[(at, old[at : at + 16 * MIB]) for at in range(0, SIZE, 16 * MIB)])
        new[: 4 * MIB] = content(31, 4 * MIB)
        job = self.begin("incremental", base="u/0")
        self.cut(job, self.send(job, new, [(0, 2 * MIB)]))
        answer = self.hub.api("POST", "/backups", {"resume": job["backup_id"], "base": "u/1"})
        self.assert_problem(answer, 409, "base is not the parent", "base_mismatch")
        self.assertTrue(self.job(job["backup_id"])["resumable"])
        answer = self.hub.api("POST", "/backups", {"resume": job["backup_id"], "base": "u/0"})
        self.assertEqual(answer.status, 200, answer)
        handle = self.send(answer.body, new, [(2 * MIB, 2 * MIB)])
        self.complete_ok(answer.body, "u/1")
        handle.shutdown()
        self.raw.write_bytes(new)
        qemu.verify(self.chain(VM)["backups"][-1]["file_path"], self.raw)

    def test_a_full_that_is_resumed_has_no_base(self):
        job = self.interrupted()
        answer = self.hub.api("POST", "/backups", {"resume": job["backup_id"], "base": "u/0"})
        self.assert_problem(answer, 409, "base is not the parent", "base_mismatch")
        self.assertIn("a full image by itself", answer.body["details"])
        self.finish(self.resume(job), content(1))

    def test_a_disk_that_has_grown_since_begins_anew(self):
        job = self.interrupted()
        self.register_grown()
        answer = self.hub.api("POST", "/backups", {"resume": job["backup_id"]})
        self.assert_problem(answer, 409, "the backup cannot be resumed", "not_resumable")
        self.assertIn("disk 0 has changed since", answer.body["details"])

    def register_grown(self):
        self.assertEqual(self.hub.register(VM, [SIZE + MIB]).status, 200)


class PullsThatGoOn(Pulls):
    """`varve pull` goes on by itself while it lives, and with --resume afterwards."""

    options = {"disconnect_grace": "1s"}

    def setUp(self):
        super().setUp()
        self.hub.stop()
        self.hub.options["http"] = f"127.0.0.1:{scratch.free_port_range(1)}"
        self.hub.restart()
        self.raw = self.dir / "source.raw"
        self.raw.write_bytes(content(11))

    def begin(self, *words, rate="16M"):
        command = [*self.command("--disk", f"0={self.raw}", *words), "--json", "--rate", rate]
        puller = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.addCleanup(puller.stdout.close)
        self.addCleanup(scratch.end_process, puller)
        return puller

    def running(self, at_least):
        def far_enough():
            backups = self.hub.get("/backups", status="running").body["backups"]
            return backups[0] if backups and backups[0]["bytes_transferred"] >= at_least else None

        return scratch.wait_until(far_enough, 20, "the pull is under way")

    def noted(self):
        scratch.wait_until(lambda: any(p.stat().st_size > 200 for p in self.hub.repository.rglob("*.arrived")), 20,
                           "what has arrived is noted")

    def assert_resumed(self, puller, first):
        out, _ = puller.communicate(timeout=60)
        self.assertEqual(puller.returncode, 0, out + self.hub.log[-2000:])
        published = [json.loads(line) for line in out.splitlines()][-1]
        self.assertEqual(published["event"], "published")
        self.assert_newest_equals(self.raw)
        done = self.job(published["backup_id"])
        self.assertEqual(done["resumes"], first["backup_id"])
        self.assertGreater(done["resumed_bytes"], 0)
        return done

    def test_a_hub_that_is_killed_and_comes_back_costs_what_was_not_durable(self):
        # What has arrived is noted every 256 MiB, and at the end, when it is too late for a kill.
        self.raw.write_bytes(content(11, 128 * MIB) * 3)
        puller = self.begin(rate="64M")
        first = self.running(8 * MIB)
        self.noted()
        self.hub.kill()
        time.sleep(2)
        self.hub.restart()
        self.assert_resumed(puller, first)

    def test_a_hub_that_is_stopped_and_started_again_is_waited_for(self):
        puller = self.begin()
        first = self.running(8 * MIB)
        self.hub.stop()
        self.hub.restart()
        self.assert_resumed(puller, first)

    def test_a_pull_that_is_killed_goes_on_in_the_next_one_that_says_so(self):
        puller = self.begin()
        first = self.running(8 * MIB)
        puller.kill()
        self.wait_for_status(first["backup_id"], "failed")
        self.assertTrue(self.job(first["backup_id"])["resumable"])
        *_, done, published = self.events("--disk", f"0={self.raw}", "--resume", first["backup_id"])
        resumed = self.job(published["backup_id"])
        self.assertEqual(done["data_bytes"], SIZE - resumed["resumed_bytes"])
        self.assertGreaterEqual(resumed["resumed_bytes"], 8 * MIB)
        self.assert_newest_equals(self.raw)

    def killed(self, *words):
        """The failed backup of a pull that was killed in its midst."""
        puller = self.begin(*words)
        job = self.running(8 * MIB)
        puller.kill()
        self.wait_for_status(job["backup_id"], "failed")
        return job

    def assert_refused(self, job, *words):
        """With status 11 and before anything is done; returns what was said."""
        vms, backups = self.hub.get("/vm-contexts").body, self.hub.get("/backups").body["total"]
        [error] = self.events(*words, "--resume", job["backup_id"], status=11)
        self.assertEqual((self.hub.get("/vm-contexts").body, self.hub.get("/backups").body["total"]), (vms, backups))
        self.assertTrue(self.job(job["backup_id"])["resumable"])
        return error["message"]

    def test_what_arrived_of_another_vm_is_not_gone_on_with(self):
        self.register("other", [SIZE])
        job = self.start("other", client="external", keep_partial=True)
        handle = self.connect(job)
        handle.pwrite(content(13, MIB), 0)
        handle.shutdown()
        self.hub.api("POST", f"/telemetry/vmware/{job['backup_id']}", {"status": "failed", "error": {"message": "gone"}})
        self.wait_for_status(job["backup_id"], "failed")
        said = self.assert_refused(job, "--disk", f"0={self.raw}")
        self.assertIn(f"one of VM other, and {VM} is to be pulled", said)

    def test_a_source_of_another_size_is_not_gone_on_with(self):
        job = self.killed()
        for size in (SIZE - MIB, SIZE + MIB):
            os.truncate(self.raw, size)
            said = self.assert_refused(job, "--disk", f"0={self.raw}")
            self.assertIn(f"disk 0 had {SIZE:,} bytes when that backup began".replace(",", ""), said.replace(",", ""))

    def test_a_source_that_comes_back_with_another_size_ends_the_pull(self):
        puller = self.begin()
        self.running(8 * MIB)
        self.hub.kill()
        os.truncate(self.raw, SIZE - MIB)
        self.hub.restart()
        out, _ = puller.communicate(timeout=60)
        self.assertEqual(puller.returncode, 1, out)
        self.assertIn("when the pull began and has", json.loads(out.splitlines()[-1])["message"])
        self.assertEqual(self.hub.get("/backups", status="completed").body["total"], 0)
        self.assert_no_backup()

    def test_changes_go_on_only_against_the_parent_of_the_backup_that_failed(self):
        listed = self.dir / "areas"
        listed.write_text(f"0 {SIZE}\n")
        self.pull("--disk", f"0={self.raw}", "--checkpoint", "one")
        words = ("--changed", f"0={listed}", "--checkpoint", "two")
        self.raw.write_bytes(content(12))
        job = self.killed(*words, "--since", "one")
        said = self.assert_refused(job, "--disk", f"0={self.raw}", *words, "--since", "zero")
        self.assertIn("base is not the parent", said)
        self.assertIn("give --since", self.assert_refused(job, "--disk", f"0={self.raw}", *words))
        self.events("--disk", f"0={self.raw}", *words, "--since", "one", "--resume", job["backup_id"])
        self.assert_newest_equals(self.raw)

    def test_a_cut_connection_is_made_again_in_the_same_backup(self):
        puller = self.begin()
        first = self.running(8 * MIB)
        self.cut_connections(puller)
        out, _ = puller.communicate(timeout=60)
        self.assertEqual(puller.returncode, 0, out)
        self.assert_newest_equals(self.raw)
        self.assertEqual(self.newest()["backup_id"], first["backup_id"])

    def cut_connections(self, puller):
        """Shuts the pull's NBD connections down, as a firewall that ends them would."""
        ports = {target.port for target in client.parse_targets(self.running(0)["nbd_targets_string"])}
        pidfd, cut = os.pidfd_open(puller.pid), 0
        for name in os.listdir(f"/proc/{puller.pid}/fd"):
            if not os.readlink(f"/proc/{puller.pid}/fd/{name}").startswith("socket:"):
                continue
            fd = ctypes.CDLL(None).syscall(PIDFD_GETFD, pidfd, int(name), 0)
            with socket.socket(fileno=fd) as shared:
                if shared.family == socket.AF_INET and shared.getpeername()[1] in ports:
                    shared.shutdown(socket.SHUT_RDWR)
                    cut += 1
        os.close(pidfd)
        self.assertGreater(cut, 0)

    def test_with_no_keep_a_pull_that_is_killed_leaves_nothing(self):
        puller = self.begin("--no-keep")
        self.running(4 * MIB)
        puller.kill()
        self.assert_no_backup()
        self.assertEqual(self.kept_files(), set())


if __name__ == "__main__":
    run.main()
