#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The command line as a person uses it: every verb against a real server, tables, JSON, exit codes, completions, pages."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run, scratch  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.daemon import ROOT, binary  # noqa: E402

OK, FAILED, USAGE, NOT_FOUND, BUSY, DENIED, DAMAGED, INTERRUPTED = 0, 1, 2, 10, 11, 12, 13, 130
PLAIN = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PATH": os.environ["PATH"], "HOME": "/nonexistent"}


def varve(*words, status=OK, **environment):
    """Runs a command; returns what it printed, and what it complained."""
    done = subprocess.run([binary(), *map(str, words)], capture_output=True, text=True, timeout=60, check=False,
                          stdin=subprocess.DEVNULL, env={**PLAIN, **environment})  # fmt: skip
    assert done.returncode == status, f"{words}: {done.returncode}, not {status}\n{done.stdout}{done.stderr}"
    return done.stdout, done.stderr


def verbs_of_help():
    """[("vm", "list"), ("serve",), ...], as the help names them."""
    found = []
    for word in re.findall(r"^  (\w+) ", varve("--help")[0], re.M):
        seconds = re.findall(r"^  (\w+) ", varve(word, "--help")[0].split("\nCommands:\n")[-1], re.M)
        is_family = "\nCommands:\n" in varve(word, "--help")[0]
        found += [(word, second) for second in seconds] if is_family else [(word,)]
    return found


class Verbs(HubCase):
    def varve(self, *words, status=OK, **environment):
        return varve(*words, status=status, VARVE_URL=self.hub.url, **environment)

    def json(self, *words, status=OK):
        return json.loads(self.varve(*words, "--json", status=status)[0])

    def one_vm(self, sizes=(MIB,)):
        """A full and two incrementals of "web01"."""
        self.register("web01", list(sizes))
        return self.points(3, len(sizes), "web01")

    def test_status_shows_server_repositories_and_what_runs(self):
        self.register("web01", [MIB])
        job = self.start("web01")
        out, _ = self.varve("status")
        self.assertRegex(out, rf"^varve \S+ at {self.hub.url}: ready\n1 VM registered, 1 backup running\n")
        self.assertIn(job["backup_id"], out)
        self.assertRegex(out, r"\nID  NAME +TYPE +AVAILABLE +FREE +OF +USED +BACKUPS")
        document = self.json("status")
        self.assertEqual(document["running"][0]["backup_id"], job["backup_id"])
        self.assertEqual(document["health"]["status"], "healthy")

    def test_a_backup_is_cancelled_by_its_vms_name_while_the_node_has_not_answered(self):
        self.register("web01", [MIB])
        self.node.mode = "hang"
        self.addCleanup(self.node.released.set)
        start = threading.Thread(target=self.post, args=("web01",))
        start.start()
        self.addCleanup(start.join)
        scratch.wait_until(lambda: self.hub.get("/backups", status="pending").body["total"] == 1, 10, "a backup is pending")
        self.assertIn("1 backup running", self.varve("status")[0])
        self.varve("cancel", "web01")
        self.node.released.set()

    def test_a_vm_is_added_shown_listed_and_removed(self):
        self.assertIn("no VM is registered", self.varve("vm", "list")[0])
        self.assertIn("registered with 2 disks", self.varve("vm", "add", "web01", "--disk", "64MiB", "--disk", "3000=1g")[0])
        _, error = self.varve("vm", "add", "web01", "--disk", "1M", status=BUSY)
        self.assertIn("--replace", error)
        out, _ = self.varve("vm", "show", "web01")
        self.assertRegex(out, r"\n +0  disk-2000  64\.0 MiB")
        self.assertRegex(out, r"\n +1  disk-3000 +1\.0 GiB")
        self.assertRegex(self.varve("vm", "show", "web01", "--bytes")[0], r"\n +0  disk-2000 +67108864 B")
        self.assertRegex(self.varve("vm", "list")[0], r"^VM +STATUS.*\nweb01 +discovered +never")
        self.assertEqual(self.json("vm", "list")["count"], 1)
        _, error = self.varve("vm", "remove", "web01", status=USAGE)
        self.assertIn("Give --yes", error)
        self.varve("vm", "remove", "web01", "--yes")
        _, error = self.varve("vm", "show", "web01", status=NOT_FOUND)
        self.assertIn("`varve vm list` shows the VMs", error)
        self.varve("vm", "add", "web01", "--disk", "1000", status=USAGE)  # no multiple of 512

    def pull(self, *disks):
        self.varve("pull", "web01", "--full", *[word for n, disk in enumerate(disks) for word in ("--disk", f"{n}={disk}")])

    def test_disks_that_a_pull_registered_stay_themselves_when_the_vm_is_added_anew(self):
        one, two = self.dir / "one.raw", self.dir / "two.raw"
        one.write_bytes(os.urandom(MIB))
        two.write_bytes(os.urandom(2 * MIB))
        self.pull(one)
        before = self.json("vm", "show", "web01")["disks"]
        self.varve("vm", "add", "web01", "--replace", "--disk", "1M")
        after = self.json("vm", "show", "web01")["disks"]
        self.assertEqual([(disk["disk_id"], disk["removed"]) for disk in after], [("disk-0", False)])
        self.assertEqual(after[0]["label"], before[0]["label"])
        self.pull(one)
        self.varve("vm", "add", "web01", "--replace", "--disk", "1M", "--disk", "2M")
        disks = self.json("vm", "show", "web01")["disks"]
        self.assertEqual([(disk["disk_id"], disk["disk_index"]) for disk in disks], [("disk-0", 0), ("disk-1", 1)])
        self.pull(one, two)
        _, error = self.varve("pull", "web01", "--disk", f"0={one}", status=BUSY)
        self.assertIn("`varve vm add web01 --replace` with --disk KEY=SIZE of each of the others", error)
        self.assertNotIn("PUT", error)

    def test_the_expected_interval_of_a_vm_is_set_and_nothing_else_of_it(self):
        self.register("web01", [MIB, 2 * MIB])
        before = self.json("vm", "show", "web01")
        self.assertRegex(self.varve("vm", "show", "web01")[0], r"\nExpected every: +none\nOverdue: +no\n")
        out, _ = self.varve("vm", "set", "web01", "--expected-interval", "25h")
        self.assertRegex(out, r"^VM: +web01\nLast good point: +never\nExpected every: +25h\nOverdue: +no\n$")
        after = self.json("vm", "show", "web01")
        self.assertEqual(after["context"].pop("expected_interval_seconds"), 90000)
        for vm in (before, after):
            vm["context"].pop("expected_interval_seconds", None)
            for changing in (vm["context"], *vm["disks"]):
                changing.pop("updated_at")
        self.assertEqual(after, before)
        self.assertRegex(self.varve("vm", "list")[0], r"^VM .* EXPECTED +OVERDUE .*\nweb01 .* 25h +no ")
        self.varve("vm", "set", "web01", "--expected-interval", "none")
        self.assertEqual(self.json("vm", "show", "web01")["context"]["expected_interval_seconds"], 0)
        self.varve("vm", "add", "db1", "--disk", "1M", "--expected-interval", "7d")
        self.assertEqual(self.json("vm", "show", "db1")["context"]["expected_interval_seconds"], 7 * 86400)
        self.varve("vm", "set", "nobody", "--expected-interval", "25h", status=NOT_FOUND)

    def test_the_status_names_overdue_vms_and_still_succeeds(self):
        self.register("web01", [MIB])
        self.assertNotIn("overdue", self.varve("status")[0])
        self.varve("vm", "set", "web01", "--expected-interval", "1s")
        scratch.wait_until(lambda: self.json("status")["overdue"] == ["web01"], 10, "the VM is overdue")
        self.assertIn("\n1 VM overdue: web01\n", self.varve("status")[0])
        self.assertRegex(self.varve("vm", "show", "web01")[0], r"\nOverdue: +yes\n")

    def test_a_secret_that_there_is_not_is_named_when_the_vm_is_added_and_when_it_is_backed_up(self):
        place = ["--vm-path", "/DC1/vm/web01", "--vcenter", "vc1.example"]
        _, error = self.varve("vm", "add", "web01", "--disk", "1M", *place, "--secret", "nope")
        self.assertIn("warning: the server has no secret 'nope'", error)
        self.assertTrue(self.json("vm", "show", "web01")["context"]["secret_missing"])
        _, error = self.varve("backup", "web01", status=FAILED)
        self.assertIn("no secret is named 'nope'", error)
        self.assertIn("[secrets.NAME] with username and password", error)
        self.assertEqual(self.varve("vm", "add", "db1", "--disk", "1M")[1], "")
        self.assertFalse(self.json("vm", "show", "db1")["context"]["secret_missing"])

    def test_what_to_do_about_a_refusal_is_said_in_verbs(self):
        self.varve("vm", "add", "files", "--disk", "1M")
        _, error = self.varve("backup", "files", status=USAGE)
        self.assertIn("`varve pull`", error)
        self.assertNotIn('"client"', error)
        self.register("web01", [MIB])
        _, error = self.varve("vm", "add", "web01", "--replace", "--disk", "1M", status=BUSY)
        self.assertIn("`varve vm add --move`", error)
        self.assertNotIn("?move", error)
        self.varve("vm", "add", "web01", "--move", "--disk", "1M")
        self.assertEqual(self.json("vm", "show", "web01")["context"]["vcenter_host"], "")

    def test_a_chain_is_a_tree_with_sizes_and_proofs(self):
        full, *_, last = self.one_vm()
        self.varve("verify", f"web01@{full}")
        lines = self.varve("list", "web01", "--utc")[0].splitlines()
        titles = ["BACKUP", "TYPE", "COMPLETED", "RECEIVED", "STORED", "VERIFIED", "RESULT", "LOCKED"]
        self.assertEqual(lines[0].split(), titles)
        self.assertRegex(lines[1], rf"^{full} +full +\S+Z, \d+ s ago +64\.0 KiB  64\.0 KiB  \S+Z, \d+ s ago  sound\b")
        self.assertRegex(lines[2], r"^├─ backup-web01-\S+ +incremental +.* never +-")
        self.assertRegex(lines[3], rf"^└─ {last} +incremental")
        self.assertEqual(lines[5], "VM web01: 3 restore points, 192.0 KiB stored")
        self.assertIn("`- ", self.varve("list", "web01", LC_ALL="C")[0])
        self.assertEqual(self.json("list", "web01")["count"], 3)
        self.varve("list", "nobody", status=NOT_FOUND)

    def test_a_verb_in_the_place_of_a_vm_is_answered_with_the_verb(self):
        _, error = self.varve("backup", "list", status=NOT_FOUND)
        self.assertIn("no VM is called 'list'; did you mean `varve list`?", error)

    def test_what_names_nothing_is_told_apart(self):
        self.one_vm()
        for words in (["verify", "web01@nope"], ["show", "web01@nope"], ["restore", "web01@nope", "--to", self.dir / "x.raw"]):
            _, error = self.varve(*words, status=NOT_FOUND)
            self.assertIn("VM 'web01' has no point 'nope'", error)
        _, error = self.varve("watch", "backup-nope", status=NOT_FOUND)
        self.assertIn("neither a VM nor a backup is called 'backup-nope'", error)
        _, error = self.varve("verify", "nobody@nope", status=NOT_FOUND)
        self.assertIn("nobody@nope", error)

    def test_disks_of_a_backup_are_one_line(self):
        self.one_vm([MIB, MIB])
        out, _ = self.varve("list", "web01")
        self.assertEqual(out.count("backup-web01-"), 3)
        self.assertIn("128.0 KiB", out.splitlines()[1])

    def test_the_newest_point_of_every_vm_is_listed(self):
        *_, last = self.one_vm()
        self.register("idle", [MIB])
        out, _ = self.varve("list")
        self.assertRegex(out, rf"\nweb01 +{last} +incremental")
        self.assertRegex(out, r"\nidle +- +- +never")
        self.assertEqual([point["backup_id"] for point in self.json("list")["points"]], [last])

    def test_a_point_is_shown_under_each_of_its_names(self):
        full, middle, last = self.one_vm()
        for name, backup_id in ((full, full), ("web01", last), ("web01@latest", last), (f"web01@{middle}", middle),
                                ("web01@2999-01-01T00:00:00Z", last)):  # fmt: skip
            self.assertEqual(self.json("show", name)["backup"]["backup_id"], backup_id, name)
        out, _ = self.varve("show", "web01")
        self.assertRegex(out, rf"^Backup: +{last}\nVM: +web01\n")
        self.assertIn("nbd://127.0.0.1", out)
        _, error = self.varve("show", "nobody", status=NOT_FOUND)
        self.assertIn("neither a VM nor a backup is called 'nobody'", error)
        self.varve("show", "web01@backup-web01-1", status=NOT_FOUND)

    def test_a_backup_is_started_watched_and_waited_for(self):
        self.register("web01", [MIB])
        out, _ = self.varve("backup", "web01")
        backup_id = re.match(r"full of web01 has started: (\S+)\n", out)[1]
        _, error = self.varve("backup", "web01", status=BUSY)
        self.assertIn(backup_id, error)
        watch = subprocess.Popen([binary(), "watch", "web01"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 env={**PLAIN, "VARVE_URL": self.hub.url})  # fmt: skip
        self.addCleanup(watch.stderr.close)
        self.addCleanup(watch.stdout.close)
        self.assertRegex(watch.stderr.readline(), rf"^{backup_id}  0\.0 %  received 0 B, zero 0 B, elided 0 B, stored 0 B")
        self.write_and_complete(self.job(backup_id), 0, "u/1", [(0, b"x" * 65536)])
        self.assertEqual(watch.wait(20), OK)
        self.assertRegex(watch.stdout.read(), r"\nState: +completed\n")
        self.assertIn("incremental of web01", self.varve("backup", "web01")[0])
        self.assertEqual(self.json("cancel", "web01")["status"], "cancelled")
        self.varve("watch", "web01", status=NOT_FOUND)

    def test_a_signal_ends_the_watching_and_not_the_backup(self):
        self.register("web01", [MIB])
        job = self.start("web01")
        watch = subprocess.Popen([binary(), "watch", job["backup_id"], "--json"], stdout=subprocess.PIPE, text=True,
                                 env={**PLAIN, "VARVE_URL": self.hub.url})  # fmt: skip
        self.addCleanup(watch.stdout.close)
        self.assertEqual(json.loads(watch.stdout.readline())["state"], "running")
        watch.send_signal(signal.SIGINT)
        self.assertEqual(watch.wait(10), INTERRUPTED)
        [*_, last] = watch.stdout.read().splitlines()
        self.assertEqual(json.loads(last)["code"], "interrupted")
        self.assertEqual(self.job(job["backup_id"])["status"], "running")
        self.varve("cancel", job["backup_id"])
        self.assertRegex(self.varve("watch", job["backup_id"], status=FAILED)[0], r"\nError: +varve cancel\n")

    def watched(self, *words, **more):
        """`varve watch` of it, once it has shown a state."""
        watch = subprocess.Popen([binary(), "watch", *words, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 text=True, env={**PLAIN, "VARVE_URL": self.hub.url}, **more)  # fmt: skip
        self.addCleanup(watch.stderr.close)
        self.addCleanup(watch.stdout.close)
        self.addCleanup(scratch.end_process, watch)
        self.assertIn("_id", watch.stdout.readline())
        return watch

    def hang(self):
        """The server takes connections and answers nothing."""
        os.kill(self.hub.ready["pid"], signal.SIGSTOP)
        self.addCleanup(self.go_on)

    def go_on(self):
        os.kill(self.hub.ready["pid"], signal.SIGCONT)

    def ended(self, process, number=signal.SIGTERM):
        """The exit status after the signal, which comes once the program has begun to wait for signals."""
        scratch.wait_until(lambda: self.blocks_signals(process), 20, "signals are waited for")
        started = time.monotonic()
        process.send_signal(number)
        status = process.wait(20)
        self.assertLess(time.monotonic() - started, 5 if os.environ.get("VARVE_SANITIZED") else 1)
        return status

    @staticmethod
    def blocks_signals(process):
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(re.search(r"^SigBlk:\s+(\w+)", status, re.M)[1], 16) >> (signal.SIGTERM - 1) & 1

    def test_a_signal_ends_the_watching_while_the_server_does_not_answer(self):
        self.register("web01", [MIB])
        watch = self.watched(self.start("web01")["backup_id"])
        self.hang()
        time.sleep(1.5)  # it asks again
        self.assertEqual(self.ended(watch), INTERRUPTED)
        [*_, last] = watch.stdout.read().splitlines()
        self.assertIn("the backup goes on: varve watch backup-web01-", json.loads(last)["error"])

    def test_nohup_keeps_a_watch_going(self):
        self.register("web01", [MIB])
        watch = self.watched(self.start("web01")["backup_id"], preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        watch.send_signal(signal.SIGHUP)
        self.assertIn("backup-web01-", watch.stdout.readline())
        self.assertIsNone(watch.poll())

    def test_a_signal_ends_every_verb_with_130(self):
        full, *_ = self.one_vm()
        self.hang()
        for words in (("list",), ("show", full), ("status",), ("vm", "list"), ("repo", "list"), ("watch", full),
                      ("backup", "web01"), ("restore", "web01", "--to", self.dir / "x.raw")):  # fmt: skip
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                with self.subTest(words=words, number=number):
                    asks = subprocess.Popen([binary(), *map(str, words)], stderr=subprocess.PIPE, text=True,
                                            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # under nohup
                                            env={**PLAIN, "VARVE_URL": self.hub.url})  # fmt: skip
                    self.addCleanup(asks.stderr.close)
                    self.addCleanup(scratch.end_process, asks)
                    self.assertEqual(self.ended(asks, number), INTERRUPTED)
                    self.assertIn("varve: interrupted", asks.stderr.read())

    def test_output_that_could_not_be_written_is_a_failure(self):
        full, *_ = self.one_vm()
        for words in (("version",), ("--help",), ("config", "show"), ("status",), ("list", "web01"), ("show", full), ("vm", "list"),
                      ("repo", "list"), ("verify", "web01")):  # fmt: skip
            for more in ((), ("--json",)):
                if words[0] in ("version", "--help", "config") and more:
                    continue
                with self.subTest(words=words, more=more), open("/dev/full", "wb") as nowhere:
                    done = subprocess.run([binary(), *words, *more], stdout=nowhere, stderr=subprocess.PIPE, text=True, check=False,
                                          timeout=60, env={**PLAIN, "VARVE_URL": self.hub.url})  # fmt: skip
                    self.assertEqual(done.returncode, FAILED, done.stderr)
                    self.assertTrue(done.stderr.endswith(": No space left on device\n"), done.stderr)

    def restart(self, pause=0.0):
        self.hub.options["http"] = self.hub.url.removeprefix("http://")
        self.hub.stop()
        time.sleep(pause)
        self.hub.start()

    def test_a_watch_outlives_a_restart_of_the_server(self):
        self.register("web01", [MIB])
        watch = self.watched(self.start("web01")["backup_id"])
        self.restart(pause=3)
        self.assertEqual(watch.wait(20), FAILED)  # as the backup has
        [*_, last] = watch.stdout.read().splitlines()
        self.assertEqual(json.loads(last)["state"], "failed")
        error = watch.stderr.read()
        self.assertRegex(error, rf"^varve: ask {self.hub.url}: .*; asking again for 1m\nvarve: {self.hub.url} answers again\n$")

    def test_a_watch_ends_when_the_server_stays_away(self):
        self.register("web01", [MIB])
        watch = self.watched(self.start("web01")["backup_id"], "--server-patience", "2s")
        self.hub.stop()
        self.assertEqual(watch.wait(20), FAILED)
        [*_, last] = watch.stdout.read().splitlines()
        said = json.loads(last)
        self.assertEqual(said["code"], "unreachable")
        self.assertRegex(said["error"], rf"^ask {self.hub.url}: .*; no answer for 2s$")
        self.hub.start()

    def begin_verification(self):
        """A slow one of a VM."""
        self.one_vm()
        answer = self.hub.api("POST", "/verifications", {"vm_name": "web01", "bytes_per_second": 40_000})
        self.assertEqual(answer.status, 202, answer)
        return answer.body["verification_id"]

    def test_a_verification_is_watched_until_it_has_ended(self):
        verification = self.begin_verification()
        line = subprocess.Popen([binary(), "watch", verification], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                env={**PLAIN, "VARVE_URL": self.hub.url})  # fmt: skip
        self.addCleanup(line.stderr.close)
        self.addCleanup(scratch.end_process, line)
        self.assertRegex(line.stderr.readline(), rf"^{verification}  \d+\.\d %  \S+ \S+ of \d\S+ KiB\n$")
        watch = self.watched(verification)
        self.assertEqual(self.ended(self.watched(verification)), INTERRUPTED)
        self.hub.api("DELETE", f"/verifications/{verification}")
        self.assertEqual(watch.wait(20), FAILED)
        [*_, last] = watch.stdout.read().splitlines()
        self.assertEqual(json.loads(last)["state"], "cancelled")
        self.varve("verify", "web01")
        [newest, *_] = self.hub.get("/verifications").body["verifications"]
        out, _ = self.varve("watch", newest["verification_id"])
        self.assertRegex(out, r"\nVM: +web01\nState: +completed\nImages: +3\n(.*\n)*Damaged: +none\n")

    def test_a_watch_of_a_verification_that_found_damage_ends_as_the_verification_does(self):
        self.one_vm()
        image = self.images("web01")[0]
        with open(image, "r+b") as file:
            file.seek(-100, os.SEEK_END)
            file.write(b"damaged")
        self.varve("verify", "web01", status=DAMAGED)
        [newest, *_] = self.hub.get("/verifications").body["verifications"]
        self.assertRegex(self.varve("watch", newest["verification_id"], status=DAMAGED)[0], r"\nDamaged: +backup-web01-")

    def test_a_watch_of_what_a_restart_has_forgotten_ends_at_once(self):
        watch = self.watched(self.begin_verification())
        self.restart()
        self.assertEqual(watch.wait(20), NOT_FOUND)
        self.varve("watch", "verification-1-1", status=NOT_FOUND)

    def test_a_copy_of_a_restore_is_watched_until_it_has_ended(self):
        full, *_ = self.one_vm()
        made = self.hub.api("POST", "/restores", {"backup_id": full, "mode": "read-only", "disk_id": 0}).body["restore_id"]
        _, error = self.varve("watch", made, status=NOT_FOUND)
        self.assertIn(f"{made} is not being copied", error)
        self.hub.api("POST", f"/restores/{made}/promote", {"path": str(self.dir / "x.raw")})
        out, _ = self.varve("watch", made)
        self.assertRegex(out, rf"^Copy: +{self.dir}/x\.raw\nFormat: +raw\nState: +completed\nCopied: +1\.0 MiB\n")
        self.assertEqual(self.json_lines("watch", made)[-1]["promotion"]["state"], "completed")

    def json_lines(self, *words):
        return [json.loads(line) for line in self.varve(*words, "--json")[0].splitlines()]

    def test_points_are_deleted_with_what_stands_on_them_only_when_told(self):
        full, middle, last = self.one_vm()
        self.varve("delete", full, "--yes", status=BUSY)
        _, error = self.varve("delete", "web01@latest", status=USAGE)
        self.assertIn(last, error)
        self.assertEqual(self.json("delete", "web01@latest", "--yes")["deleted"], [last])
        out, _ = self.varve("delete", full, "--cascade", "--yes")
        self.assertRegex(out, rf"^deleted {middle}\ndeleted {full}\n\S+ KiB freed\n$")

    def test_the_bare_name_of_a_vm_deletes_nothing(self):
        *_, last = self.one_vm()
        _, error = self.varve("delete", "web01", "--yes", status=USAGE)
        self.assertIn(f"'web01' is a VM, and what is deleted is named: web01@latest (now {last})", error)
        self.assertEqual(self.json("list", "web01")["count"], 3)
        self.varve("delete", "nobody", "--yes", status=NOT_FOUND)
        self.varve("delete", "web01@latest", "--yes")

    def test_whoever_is_asked_can_say_no(self):
        self.register("web01", [MIB])
        leader, follower = pty.openpty()
        self.addCleanup(os.close, leader)
        asked = subprocess.Popen([binary(), "vm", "remove", "web01"], stdin=follower, stdout=follower, stderr=follower,
                                 env={**PLAIN, "VARVE_URL": self.hub.url})  # fmt: skip
        os.close(follower)
        self.assertIn(b"Forget VM 'web01'? [y/N]", os.read(leader, 100))
        os.write(leader, b"n\n")
        self.assertEqual(asked.wait(10), FAILED)
        self.assertEqual(self.json("vm", "list")["count"], 1)

    def test_colour_is_for_terminals_without_no_color(self):
        def on_terminal(**environment):
            leader, follower = pty.openpty()
            done = subprocess.run([binary(), "vm", "list"], stdin=follower, stdout=follower, stderr=follower, check=True,
                                  env={**PLAIN, "VARVE_URL": self.hub.url, "TERM": "xterm", **environment})  # fmt: skip
            self.assertEqual(done.returncode, 0)
            said = os.read(leader, 4096)
            os.close(follower)
            os.close(leader)
            return said

        self.register("web01", [MIB])
        self.assertIn(b"\033[", on_terminal())
        self.assertNotIn(b"\033[", on_terminal(NO_COLOR="1"))
        self.assertNotIn("\033[", self.varve("vm", "list")[0])

    def test_repositories_are_added_tested_shown_and_removed(self):
        (self.dir / "second").mkdir()
        out, _ = self.varve("repo", "add", "second", "--path", self.dir / "second", "--id", "2")
        self.assertRegex(out, r"^Repository: +2\nName: +second\nType: +local\n")
        self.assertRegex(self.varve("repo", "test", "2")[0], r"^Result: +Repository configuration is valid")
        self.assertRegex(self.varve("repo", "show", "2")[0], rf"\nDirectory: +{self.dir}/second\n")
        self.assertEqual([one["id"] for one in self.json("repo", "list")["repositories"]], ["1", "2"])
        self.varve("repo", "remove", "2", "--yes")
        _, error = self.varve("repo", "show", "2", status=NOT_FOUND)
        self.assertIn("`varve repo list`", error)
        self.varve("repo", "add", "third", status=USAGE)
        self.varve("repo", "add", "third", "--share", "host:/x", status=USAGE)
        self.one_vm()
        _, error = self.varve("repo", "remove", "1", "--yes", status=BUSY)
        self.assertIn("3 backups in repository '1' exist or run", error)

    def test_a_backup_id_is_served_read_only_by_varve_nbd(self):
        full, *_ = self.one_vm([MIB, MIB])
        words = ["nbd", full, "--catalogue", self.hub.catalogue]
        _, error = self.varve(*words, "--run", "true", status=USAGE)
        self.assertIn("has 2 disks; --disk N chooses one", error)
        out, error = self.varve(*words, "--disk", "1", "--quiet", "--run", 'nbdinfo --json "$uri"')
        [export] = json.loads(out)["exports"]
        self.assertEqual((export["export-size"], export["is_read_only"], error), (MIB, True, ""))
        _, error = self.varve("nbd", self.images("web01")[0], "--run", "true", status=FAILED)
        self.assertIn("serve it with --read-only", error)

    def test_an_image_that_is_open_already_is_busy_and_not_explained_by_bytes(self):
        file = self.dir / "busy.qcow2"
        varve("create", file, "1M")
        run_other = f"{binary()} nbd {file} --socket {self.dir}/other.sock --run true"
        done = subprocess.run([binary(), "nbd", file, "--quiet", "--run", run_other], capture_output=True, text=True,
                              timeout=60, check=False)  # fmt: skip
        self.assertEqual(done.returncode, BUSY, done.stderr)
        self.assertIn("is in use by another process; `fuser ", done.stderr)
        self.assertNotIn("lock byte", done.stderr)

    def test_errors_are_json_for_every_verb_that_prints_it(self):
        silent = {("serve",), ("nbd",), ("help",), ("completion",), ("config", "example")}  # servers, and texts
        page = (ROOT / "docs/commands.md").read_text()
        [told] = re.findall(r"Without it are (.*?\))\.", page, re.S)
        self.assertEqual({tuple(words.split()) for words in re.findall(r"`([a-z ]+)`", told)}, silent)
        for verb in verbs_of_help():
            if verb in silent:
                self.assertNotIn("  --json", varve(*verb, "--help")[0])
                continue
            with self.subTest(verb=verb):
                self.assertIn("--json", varve(*verb, "--help")[0])
                said = json.loads(varve(*verb, "--json", "--frob", status=USAGE)[0])
                self.assertEqual((said["code"], said["exit_status"], sorted(said)),
                                 ("usage", USAGE, ["code", "error", "exit_status", "hint"]))  # fmt: skip

    def test_an_image_is_made_and_a_version_printed_in_json(self):
        made = json.loads(varve("create", self.dir / "x.qcow2", "1GiB", "--json")[0])
        self.assertEqual((made["size_bytes"], made["backing"]), (1 << 30, ""))
        self.assertEqual(varve("create", self.dir / "y.qcow2", "1GiB")[0], f"{self.dir}/y.qcow2: 1.0 GiB\n")
        self.assertEqual(varve("create", self.dir / "z.qcow2", "1GiB", "--bytes")[0], f"{self.dir}/z.qcow2: 1073741824 B\n")

    def test_tokens_are_a_table_with_ages(self):
        tokens = self.dir / "tokens"
        varve("token", "add", "ci", "--scope", "read", "--scope", "backup", "--file", tokens)
        lines = varve("token", "list", "--file", tokens, "--utc")[0].splitlines()
        self.assertEqual(lines[0].split(), ["NAME", "CREATED", "SCOPES"])
        self.assertRegex(lines[1], r"^ci +\d{4}-\d\d-\d\dT[\d:]+Z, \d+ s ago  read, backup$")

    def test_a_configuration_is_checked_by_its_place_and_by_the_option_that_others_have(self):
        file = self.dir / "varve.toml"
        file.write_text('repository = "/nonexistent/x"\ncatalogue = "/nonexistent/c.db"\nstall = "nonsense"\n')
        for words in ([file], ["--config", file]):
            self.assertIn(f"{file}:3", varve("config", "check", *words, status=USAGE)[1])
        self.assertIn("exclude each other", varve("config", "check", file, "--config", file, status=USAGE)[1])
        self.assertIn("io_uring_tier", json.loads(varve("version", "--json")[0]))

    def test_an_absent_server_is_named_with_what_to_do(self):
        for words in (("status",), ("vm", "list"), ("list",), ("list", "web01"), ("show", "x"), ("watch", "x"), ("repo", "list"),
                      ("backup", "x"), ("cancel", "x"), ("vm", "remove", "x", "-y"), ("delete", "backup-x-1", "-y")):  # fmt: skip
            said = json.loads(varve(*words, "--json", "--server", "http://127.0.0.1:1", status=FAILED)[0])
            self.assertEqual((said["code"], said["exit_status"]), ("unreachable", 1), words)
            self.assertIn("is `varve serve` running there?", said["hint"])
        _, error = varve("status", "--server", "localhost", status=USAGE)
        self.assertIn("--server localhost: it begins with neither http:// nor https://; write http://HOST:PORT", error)
        _, error = varve("status", "--server", self.hub.url.replace("http", "https"), status=FAILED)
        self.assertIn("does not speak TLS: write http:// for it", error)
        _, error = varve("status", "--server", "unix:/nonexistent/socket", status=FAILED)
        self.assertIn("unix:/nonexistent/socket", error)


class Access(HubCase):
    options = {"api_token": "let-me-in"}

    def setUp(self):
        super().setUp()
        self.socket = self.dir / "api.sock"
        self.hub.stop()
        self.hub.options["http_socket"] = self.socket
        self.hub.start()

    def test_a_token_comes_from_file_option_or_environment(self):
        _, error = varve("vm", "list", VARVE_URL=self.hub.url, status=DENIED)
        self.assertIn("--token-file or $VARVE_TOKEN gives the server's token", error)
        secret = self.dir / "token"
        secret.write_text("let-me-in\n")
        secret.chmod(0o644)
        _, error = varve("vm", "list", "--token-file", secret, VARVE_URL=self.hub.url, status=USAGE)
        self.assertIn("chmod 0600 it", error)
        secret.chmod(0o600)
        for words, environment in ((["--token-file", secret], {}), (["--token", "let-me-in"], {}),
                                   ([], {"VARVE_TOKEN": "let-me-in"}), ([], {"VARVE_TOKEN_FILE": str(secret)})):  # fmt: skip
            varve("vm", "list", *words, VARVE_URL=self.hub.url, **environment)
            varve("vm", "list", *words, VARVE_URL=f"unix:{self.socket}", **environment)
        wrong = json.loads(varve("vm", "list", "--json", "--token", "no", VARVE_URL=self.hub.url, status=DENIED)[0])
        self.assertEqual(wrong["exit_status"], DENIED)


class Words(unittest.TestCase):
    def test_help_groups_the_commands(self):
        out, _ = varve("--help")
        self.assertEqual(re.findall(r"^(\w[\w ]*):$", out, re.M),
                         ["Server", "Backups", "Restore points", "Images and catalogue", "Help"])  # fmt: skip
        self.assertEqual(varve("help")[0], out)
        self.assertEqual(varve("help", "serve")[0], varve("serve", "--help")[0])
        self.assertEqual(varve("version")[0], varve("--version")[0])

    def test_mistyped_words_are_answered_with_the_nearest(self):
        for words, said in ((["bakcup"], "varve: unknown command 'bakcup'; did you mean 'backup'?\n"),
                            (["repo", "lst"], "varve: unknown command 'repo lst'; did you mean 'repo list'?\n"),
                            (["list", "--btyes"], "varve list: unknown option '--btyes'; did you mean '--bytes'?\n")):
            self.assertEqual(varve(*words, status=USAGE)[1], said)

    def test_the_exit_statuses_of_the_page_are_those_of_the_binary(self):
        page = (ROOT / "docs/commands.md").read_text()
        of_page = dict(re.findall(r"^\| (\d+) \| `\w+` \| (.*) \|$", page, re.M))
        of_manual = dict(re.findall(r"^\*(\d+)\*\n\t(.*)$", varve("man", "varve")[0], re.M))
        self.assertEqual(of_page, of_manual)

    def test_the_page_names_every_command(self):
        page = (ROOT / "docs/commands.md").read_text()
        for words in verbs_of_help():
            for word in words:
                self.assertRegex(page, rf"`(?:\w+`, `)*[^`]*\b{word}\b", words)


class Completion(unittest.TestCase):
    def completed(self, *words):
        """What bash offers for the last word."""
        script = (
            'eval "$(' + binary() + ' completion bash)"; compopt() { :; }; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _varve; '
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True, check=True, timeout=30)
        self.assertEqual(done.stderr, "")
        return done.stdout.split()

    def test_bash_offers_commands_options_and_files(self):
        self.assertEqual(self.completed("varve", "ver"), ["verify", "version"])
        self.assertEqual(self.completed("varve", "vm", "re"), ["remove"])
        self.assertEqual(self.completed("varve", "vm", "list", "--by"), ["--bytes"])
        self.assertEqual(self.completed("varve", "serve", "--commit-i"), ["--commit-interval"])
        self.assertEqual(self.completed("varve", "backup", "--repository", ""), [])
        with scratch.directory() as directory:
            (directory / "disk.qcow2").touch()
            self.assertEqual(self.completed("varve", "check", f"{directory}/d"), [f"{directory}/disk.qcow2"])
            self.assertEqual(self.completed("varve", "list", "--token-file", f"{directory}/d"), [f"{directory}/disk.qcow2"])

    def test_fish_offers_commands_options_and_files(self):
        with scratch.directory() as directory:
            script = directory / "varve.fish"
            script.write_text(varve("completion", "fish")[0])
            (directory / "disk.qcow2").touch()
            environment = {**os.environ, "HOME": str(directory), "XDG_CONFIG_HOME": str(directory)}

            def offered(line):
                words = ["fish", "--private", "-c", f"source {script}; complete -C '{line}'"]
                done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30, env=environment)
                self.assertEqual(done.stderr, "")
                return [each.split("\t")[0] for each in done.stdout.splitlines()]

            self.assertEqual(offered("varve ver"), ["verify", "version"])
            self.assertEqual(offered("varve vm re"), ["remove"])
            self.assertEqual(offered("varve vm list --by"), ["--bytes"])
            self.assertEqual(offered("varve backup --repository "), [])
            self.assertEqual(offered(f"varve check {directory}/d"), [f"{directory}/disk.qcow2"])
            self.assertEqual(offered(f"varve list --token-file {directory}/d"), [f"{directory}/disk.qcow2"])

    def test_zsh_completes_commands_options_and_files(self):
        with scratch.directory() as directory:
            (directory / "disk.qcow2").touch()
            shell = Zsh(directory, varve("completion", "zsh")[0])
            self.addCleanup(shell.close)
            for begun, whole in (("verif", "verify "), ("vm rem", "vm remove "), ("vm list --by", "vm list --bytes "),
                                 ("serve --commit-i", "serve --commit-interval "),
                                 (f"check {directory}/d", f"check {directory}/disk.qcow2 "),
                                 (f"list --token-file {directory}/d", f"list --token-file {directory}/disk.qcow2 ")):  # fmt: skip
                self.assertEqual(shell.completed(f"varve {begun}"), f"varve {whole}")

    def test_there_is_no_script_for_other_shells(self):
        self.assertIn("not for 'tcsh'", varve("completion", "tcsh", status=USAGE)[1])


class Zsh:
    """A zsh on a terminal of its own, whose Tab completes as at a person's."""

    def __init__(self, directory, script):
        (directory / "_varve").write_text(script)
        self.answer = directory / "line"
        self.process, self.terminal = pty.fork()
        if self.process == 0:
            os.environ.update(HOME=str(directory), TERM="dumb")
            os.execvp("zsh", ["zsh", "-f", "-i"])
        threading.Thread(target=self.drain, daemon=True).start()
        self.type(f"fpath=({directory} $fpath); autoload -Uz compinit; compinit -D -u; setopt no_list_beep\r"
                  f"tell() {{ print -rn -- $BUFFER > {self.answer}.new; mv {self.answer}.new {self.answer}; BUFFER= }}; "
                  "zle -N tell; bindkey '^X' tell; bindkey '^I' complete-word\r")  # fmt: skip

    def drain(self):
        try:
            while os.read(self.terminal, 4096):
                pass
        except OSError:
            pass

    def type(self, text):
        os.write(self.terminal, text.encode())

    def completed(self, line):
        """What the line is after Tab."""
        self.answer.unlink(missing_ok=True)
        self.type(line + "\t\x18")
        scratch.wait_until(self.answer.exists, 20, f"zsh completes '{line}'")
        return self.answer.read_text()

    def close(self):
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self.terminal)


class Pages(unittest.TestCase):
    def names(self):
        return varve("man")[0].split()

    def test_the_build_makes_every_page(self):
        listed = re.search(r"^pages = \[(.*?)\]", (ROOT / "app/pages/meson.build").read_text(), re.M | re.S)[1]
        self.assertEqual(re.findall(r"'([^']+)'", listed), self.names())

    @unittest.skipUnless(shutil.which("scdoc"), "scdoc is not installed")
    def test_every_page_is_rendered_without_a_warning(self):
        with scratch.directory() as directory:
            for name in self.names():
                with self.subTest(page=name):
                    source = varve("man", name.rsplit(".", 1)[0])[0]
                    made = subprocess.run(["scdoc"], input=source, capture_output=True, text=True, check=False, timeout=30)
                    self.assertEqual((made.returncode, made.stderr), (0, ""))
                    self.check_with_man(directory / name, made.stdout)

    def check_with_man(self, path, text):
        path.write_text(text)
        if not shutil.which("man") or not shutil.which("groff"):
            return
        shown = subprocess.run(["man", "--warnings", "-l", str(path)], capture_output=True, text=True, check=False, timeout=30,
                               env={**PLAIN, "MANWIDTH": "100"})  # fmt: skip
        self.assertEqual((shown.returncode, shown.stderr), (0, ""))
        self.assertIn("SEE ALSO", shown.stdout)


if __name__ == "__main__":
    run.main()
