#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`varve restore`: a point in a file, on a device, on another NBD server."""

import json
import os
import random
import signal
import subprocess
import sys
import urllib.parse
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import loop_mount, qemu, run, scratch, sources, tls_files  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.daemon import binary  # noqa: E402

NAME = "web @1"  # the last '@' separates, and only before what may be a point


class Restores(HubCase):
    def restore(self, *words, status=0):
        """Runs the command; returns (stdout, stderr)."""
        command = [binary(), "restore", *map(str, words), "--server", self.hub.url]
        self.state = self.dir / "state"
        self.state.mkdir(exist_ok=True)
        environment = os.environ | {"XDG_STATE_HOME": str(self.state)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
        self.assertEqual(done.returncode, status, f"{command}: {done.stdout}{done.stderr}")
        return done.stdout, done.stderr

    def events(self, *words, status=0):
        out, _ = self.restore(*words, "--json", status=status)
        return [json.loads(line) for line in out.splitlines()]

    def back_up(self, count, sizes=(16 * MIB,), name=NAME):
        disks = sources.make_sources(self.dir, list(sizes))
        self.register(name, [disk.size for disk in disks])
        for number in range(count):
            if number:
                for disk in disks:
                    disk.advance(number, fraction=0.05)
            self.client_backup(name, disks, "incremental" if number else "full")
        return disks

    def same(self, one, other):
        return subprocess.run(["cmp", str(one), str(other)], capture_output=True, check=False).returncode == 0


class Files(Restores):
    def test_the_newest_point_becomes_a_sparse_raw_file_that_equals_the_source(self):
        [disk] = self.back_up(3)
        target = self.dir / "out.raw"
        start, *_, done = self.events(NAME, "--to", target)
        self.assertTrue(self.same(disk.path, target))
        self.assertEqual((start["event"], start["size_bytes"], done["event"]), ("start", disk.size, "done"))
        self.assertEqual(done["data_bytes"] + done["zero_bytes"], disk.size)
        self.assertGreater(done["zero_bytes"], 0)
        self.assertLess(scratch.allocated_bytes(target), disk.size)
        self.assertEqual(list(self.dir.glob("out.raw.*")), [])

    def test_every_point_is_restored_by_its_id_and_by_a_time(self):
        [disk] = self.back_up(3)
        points = self.chain(NAME)["backups"]
        for at, point in enumerate(points):
            target = self.dir / f"out-{at}.raw"
            self.restore(f"{NAME}@{point['backup_id']}", "--to", target)
            self.assertTrue(self.same(disk.content_at(point["change_id"]), target), at)
        target = self.dir / "by-time.raw"
        self.restore(f"{NAME}@2100-01-01T00:00:00Z", "--to", target)
        self.assertTrue(self.same(disk.path, target))

    def test_all_disks_go_into_a_directory(self):
        disks = self.back_up(2, sizes=(4 * MIB, 3 * MIB + 512))
        self.restore(NAME, "--all-disks", self.dir / "all")
        for index, disk in enumerate(disks):
            self.assertTrue(self.same(disk.path, self.dir / "all" / f"disk-{index}.raw"), index)

    def test_a_qcow2_target_is_a_clean_image_that_stands_alone(self):
        [disk] = self.back_up(2)
        target = self.dir / "out.qcow2"
        self.restore(NAME, "--to", target)
        qemu.check(target)
        qemu.compare(disk.path, target)
        self.assertEqual(len(qemu.backing_chain(target)), 1)

    def test_a_file_that_is_there_is_left_alone_unless_force_is_said(self):
        [disk] = self.back_up(1)
        target = self.dir / "out.raw"
        target.write_bytes(b"precious")
        _, text = self.restore(NAME, "--to", target, status=11)
        self.assertIn("is there already; --force replaces it", text)
        self.assertEqual(target.read_bytes(), b"precious")
        self.restore(NAME, "--to", target, "--force")
        self.assertTrue(self.same(disk.path, target))

    def test_what_differs_since_an_older_point_is_all_that_is_sent(self):
        [disk] = self.back_up(3)
        first, _, last = self.chain(NAME)["backups"]
        target = self.dir / "out.raw"
        sources.sparse_copy(disk.content_at(first["change_id"]), target)
        *_, done = self.events(NAME, "--to", target, "--since", first["backup_id"])
        self.assertTrue(self.same(disk.content_at(last["change_id"]), target))
        self.assertGreater(done["skipped_bytes"], disk.size // 2)
        self.assertEqual(done["data_bytes"] + done["skipped_bytes"], disk.size)

    def test_a_signal_ends_it_with_130_and_resume_continues(self):
        [disk] = self.back_up(1, [64 * MIB])
        target = self.dir / "out.raw"
        for number in (signal.SIGTERM, signal.SIGINT):
            copies = subprocess.Popen([binary(), "restore", NAME, "--to", str(target), "--server", self.hub.url, "--resume"],
                                      stderr=subprocess.PIPE, text=True)  # fmt: skip
            self.addCleanup(copies.stderr.close)
            self.addCleanup(scratch.end_process, copies)
            self.assertIn("64.0 MiB", copies.stderr.readline())  # what is copied where
            os.kill(self.hub.ready["pid"], signal.SIGSTOP)
            self.addCleanup(os.kill, self.hub.ready["pid"], signal.SIGCONT)
            copies.send_signal(number)
            self.assertEqual(copies.wait(10), 130)
            self.assertIn("varve: interrupted; the same command with --resume continues it", copies.stderr.read())
            os.kill(self.hub.ready["pid"], signal.SIGCONT)
        self.restore(NAME, "--to", target, "--resume")
        self.assertTrue(self.same(disk.path, target))

    def test_a_restore_goes_on_where_an_interrupted_one_of_the_same_point_was(self):
        [disk] = self.back_up(1)
        point = self.chain(NAME)["backups"][0]["backup_id"]
        target, partial = self.dir / "out.raw", self.dir / "out.raw.partial"
        kept = 8 * MIB
        with open(partial, "wb") as file:
            file.truncate(disk.size)
            file.write(b"k" * kept)  # not the source's: it shows that nothing is written again
        state = {"source": f"{NAME}/disk-0@{point}", "size_bytes": disk.size, "done_bytes": kept}
        Path(f"{partial}.state").write_text(json.dumps(state))
        start, *_ = self.events(NAME, "--to", target, "--resume")
        self.assertEqual(start["resumed_at_bytes"], kept)
        content = target.read_bytes()
        self.assertEqual(content[:kept], b"k" * kept)
        self.assertTrue(content[kept:] == disk.path.read_bytes()[kept:])
        self.assertEqual(list(self.dir.glob("out.raw.*")), [])

    def test_what_is_left_of_another_restore_is_not_continued(self):
        self.back_up(1)
        partial = self.dir / "out.raw.partial"
        partial.write_bytes(b"")
        Path(f"{partial}.state").write_text('{"source": "other/disk-0@backup-1", "size_bytes": 16777216}')
        _, text = self.restore(NAME, "--to", self.dir / "out.raw", "--resume", status=11)
        self.assertIn("is of another restore", text)

    def test_an_interrupted_restore_is_neither_begun_anew_nor_lost_without_a_word(self):
        [disk] = self.back_up(1)
        target, partial = self.dir / "out.raw", self.dir / "out.raw.partial"
        partial.write_bytes(b"what has come so far")
        _, text = self.restore(NAME, "--to", target, status=11)
        self.assertIn("--resume continues it, --force begins anew", text)
        self.assertEqual(partial.read_bytes(), b"what has come so far")
        self.restore(NAME, "--to", target, "--force")
        self.assertTrue(self.same(disk.path, target))


class Elsewhere(Restores):
    def test_a_block_device_is_overwritten_when_that_is_said_and_large_enough(self):
        if reason := loop_mount.why_not():
            self.skipTest(reason)
        [disk] = self.back_up(1)
        for size, status in ((disk.size - 512, 11), (disk.size + MIB, 0)):
            backing = self.dir / f"device-{size}"
            backing.write_bytes(b"o" * size)
            with loop_mount.loop_device(backing) as device:
                self.restore(NAME, "--to", device, status=11)
                _, text = self.restore(NAME, "--to", device, "--force", status=status)
                if status:
                    self.assertIn("too small", text)
                    continue
            content = backing.read_bytes()
            self.assertTrue(content[:disk.size] == disk.path.read_bytes())
            self.assertEqual(content[disk.size:], b"o" * MIB)

    def test_an_export_of_another_server_is_filled_over_nbd(self):
        [disk] = self.back_up(2)
        target, socket = self.dir / "target.raw", self.dir / "target.sock"
        target.write_bytes(b"o" * disk.size)
        server = subprocess.Popen(["qemu-nbd", "-t", "-f", "raw", "-x", "t", "-e", "8", "-k", socket, target])
        self.addCleanup(scratch.end_process, server)
        scratch.wait_until(socket.exists, 10, "qemu-nbd listens")
        uri = f"nbd+unix:///t?socket={socket}"
        self.restore(NAME, "--to", uri, status=11)
        self.restore(NAME, "--to", uri, "--force")
        self.assertTrue(self.same(disk.path, target))


    def test_a_target_without_flush_and_zeroes_gets_neither(self):
        [disk] = self.back_up(1, (4 * MIB,))
        raw, socket = self.dir / "plain.raw", self.dir / "plain.sock"
        raw.write_bytes(b"x" * disk.size)
        server = subprocess.Popen(["nbdkit", "-f", "-U", socket, "--filter=nozero", "eval", f"get_size=stat -c %s {raw}",
                                   f"pread=dd if={raw} iflag=skip_bytes,count_bytes skip=$4 count=$3 status=none",
                                   f"pwrite=dd of={raw} oflag=seek_bytes conv=notrunc seek=$4 status=none",
                                   "can_write=exit 0", "can_flush=exit 3", "can_trim=exit 3"])  # fmt: skip
        self.addCleanup(scratch.end_process, server)
        scratch.wait_until(socket.exists, 10, "nbdkit listens")
        info = subprocess.run(["nbdinfo", "--json", f"nbd+unix:///?socket={socket}"], capture_output=True, text=True, check=True)
        [export] = json.loads(info.stdout)["exports"]
        self.assertEqual((export["can_flush"], export["can_zero"], export["can_trim"]), (False, False, False))
        self.restore(NAME, "--to", f"nbd+unix:///?socket={socket}", "--force")
        self.assertTrue(self.same(disk.path, raw))

    def test_what_is_not_a_file_is_continued_by_a_record_elsewhere(self):
        [disk] = self.back_up(1)
        point = self.chain(NAME)["backups"][0]["backup_id"]
        target, socket = self.dir / "target.raw", self.dir / "target.sock"
        kept = 8 * MIB
        target.write_bytes(b"k" * disk.size)
        server = subprocess.Popen(["qemu-nbd", "-t", "-f", "raw", "-x", "t", "-e", "8", "-k", socket, target])
        self.addCleanup(scratch.end_process, server)
        scratch.wait_until(socket.exists, 10, "qemu-nbd listens")
        uri = f"nbd+unix:///t?socket={socket}"
        self.restore(NAME, "--to", uri, "--resume", status=11)
        record = self.state / "varve" / f"{urllib.parse.quote(uri, safe='')}.state"
        record.parent.mkdir()
        state = {"source": f"{NAME}/disk-0@{point}", "size_bytes": disk.size, "done_bytes": kept}
        record.write_text(json.dumps(state))
        start, *_ = self.events(NAME, "--to", uri, "--resume")
        self.assertEqual(start["resumed_at_bytes"], kept)
        content = target.read_bytes()
        self.assertEqual(content[:kept], b"k" * kept)
        self.assertTrue(content[kept:] == disk.path.read_bytes()[kept:])
        self.assertFalse(record.exists())
        for broken in ("", "[]", '{"source": 1}', json.dumps(state | {"done_bytes": -1}), json.dumps(state | {"source": "b"})):
            record.write_text(broken)
            _, text = self.restore(NAME, "--to", uri, "--resume", status=11)
            self.assertIn("is of another restore", text)


    def test_a_restore_that_is_begun_anew_leaves_no_record_of_an_earlier_one(self):
        [disk] = self.back_up(1)
        point = self.chain(NAME)["backups"][0]["backup_id"]
        socket = self.dir / "target.sock"
        server = subprocess.Popen(["nbdkit", "-f", "-U", socket, "--filter=error", "memory", str(disk.size),
                                   "error-pwrite=EIO", "error-pwrite-rate=100%"])  # fmt: skip
        self.addCleanup(scratch.end_process, server)
        scratch.wait_until(socket.exists, 10, "nbdkit listens")
        uri = f"nbd+unix:///?socket={socket}"
        self.restore(NAME, "--to", uri, status=11)
        record = self.state / "varve" / f"{urllib.parse.quote(uri, safe='')}.state"
        record.parent.mkdir()
        state = {"source": f"{NAME}/disk-0@{point}", "size_bytes": disk.size, "done_bytes": 8 * MIB}
        record.write_text(json.dumps(state))
        self.restore(NAME, "--to", uri, "--force", status=1)
        self.assertFalse(record.exists())


class Encrypted(Restores):
    """The server demands TLS of everybody who reads a point."""

    def setUp(self):
        self.files = self.enterContext(scratch.directory())
        self.authority = tls_files.Authority(self.files / "authority")
        self.authority.client(self.files / "client")
        self.keys = tls_files.keys_file(self.files / "keys.psk", {"alice": bytes(range(32))})
        self.options = {"tls_certificates": self.authority.server(self.files / "server"), "tls_psk": self.keys}
        self.options |= {"tls": "require", "ports_tls": "off"}
        super().setUp()
        self.register(NAME, [16 * MIB])
        self.content = random.randbytes(2 * MIB)
        self.quick_backup(NAME, ["u/1"], writes=[(3 * MIB, self.content)])

    def expect_restored(self, *words):
        target = self.dir / "out.raw"
        self.restore(NAME, "--to", target, "--force", *words)
        content = target.read_bytes()
        self.assertEqual(len(content), 16 * MIB)
        self.assertTrue(content[3 * MIB:5 * MIB] == self.content)

    def test_a_point_is_restored_with_a_certificate_or_a_key(self):
        self.expect_restored("--tls-certificates", self.files / "client")
        self.expect_restored("--tls-psk", self.keys)
        self.expect_restored("--tls-psk", self.keys, "--tls-user", "alice")

    def test_the_environment_names_the_certificates_of_nbds_too(self):
        with mock.patch.dict(os.environ, {"VARVE_TLS_CERTIFICATES": str(self.files / "client")}):
            self.expect_restored()
            self.expect_restored("--tls-psk", self.keys)
        _, text = self.restore(NAME, "--to", self.dir / "other.raw", status=1)
        self.assertIn("--tls-certificates or $VARVE_TLS_CERTIFICATES names the directory of its ca-cert.pem", text)

    def test_a_server_that_cannot_prove_itself_is_not_read(self):
        target = self.dir / "out.raw"
        stranger = tls_files.Authority(self.files / "stranger").client(self.files / "other")
        for words in ((), ("--tls-certificates", stranger)):
            _, text = self.restore(NAME, "--to", target, *words, status=1)
            self.assertIn("certificate", text)
        wrong = tls_files.keys_file(self.files / "wrong.psk", {"alice": bytes(32)})
        self.restore(NAME, "--to", target, "--tls-psk", wrong, status=1)
        _, text = self.restore(NAME, "--to", target, "--tls-psk", self.keys, "--tls-user", "bob", status=2)
        self.assertIn('has no key of "bob"', text)
        self.assertFalse(target.exists())

    def test_a_target_is_written_inside_tls(self):
        target, socket = self.dir / "target.raw", self.dir / "target.sock"
        target.write_bytes(b"o" * 16 * MIB)
        secret = f"tls-creds-x509,id=t,endpoint=server,dir={self.files / 'server'},verify-peer=no"
        server = subprocess.Popen(["qemu-nbd", "-t", "-f", "raw", "-x", "t", "-e", "8", "-k", socket,
                                   "--object", secret, "--tls-creds", "t", target])  # fmt: skip
        self.addCleanup(scratch.end_process, server)
        scratch.wait_until(socket.exists, 10, "qemu-nbd listens")
        uri = f"nbds+unix:///t?socket={socket}&tls-certificates={self.files / 'client'}"
        source = ("--tls-psk", self.keys)
        _, text = self.restore(NAME, "--to", f"{uri}&tls-hostname=elsewhere", "--force", *source, status=1)
        self.assertIn("certificate", text)
        self.restore(NAME, "--to", f"{uri}&tls-hostname=localhost", "--force", *source)
        self.assertTrue(target.read_bytes()[3 * MIB:5 * MIB] == self.content)


class Refusals(Restores):
    def test_what_is_not_there_has_a_status_of_its_own(self):
        self.back_up(1)
        target = self.dir / "out.raw"
        for vm in ("nobody", f"{NAME}@backup-none-1", f"{NAME}@2001-01-01T00:00:00Z"):
            [error] = self.events(vm, "--to", target, status=10)
            self.assertEqual((error["event"], error["exit_status"]), ("error", 10))
        self.events(NAME, "--disk", 7, "--to", target, status=10)
        self.assertFalse(target.exists())

    def test_wrong_usage_and_a_silent_server_are_told_apart(self):
        self.restore(NAME, status=2)
        self.restore(NAME, "--to", "x", "--connections", "0", status=2)
        command = [binary(), "restore", NAME, "--to", self.dir / "x", "--server", "http://127.0.0.1:9"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("is `varve serve` running there?", done.stderr)


if __name__ == "__main__":
    run.main()
