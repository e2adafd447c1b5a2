#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`varve nbd` as users of qemu-nbd and nbdkit know it, and socket activation (L3, L4, L11)."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

import nbd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import image_server, run, scratch, tls_files  # noqa: E402
from harness.daemon import binary  # noqa: E402
from harness.qemu import verify  # noqa: E402
from harness.storage_daemon import StorageDaemon  # noqa: E402

SIZE = 10 << 20


def listening(family=socket.AF_UNIX, address=None):
    made = socket.socket(family, socket.SOCK_STREAM)
    made.bind(address)
    made.listen(16)
    return made


class ZeroesOfQemu(unittest.TestCase):
    """QEMU zeroes the rest of a target disk with NO_HOLE when it pushes a full backup."""

    def test_are_not_stored(self):
        directory = self.enterContext(scratch.directory())
        image = directory / "disk.qcow2"
        self.assertEqual(image_server.create(image, 512 << 20).returncode, 0)
        server = image_server.ImageServer(image, directory / "nbd.sock")
        self.addCleanup(server.close)
        server.wait()
        steps = ["write -P 1 0 16M", *(f"write -z {at}M 31M" for at in range(16, 512, 31)), "read -P 0 16M 16M"]
        words = [word for step in steps for word in ("-c", step)]
        subprocess.run(["qemu-io", "-f", "raw", *words, server.uri], check=True, capture_output=True)
        self.assertEqual(server.stop(), 0)
        self.assertLess(scratch.allocated_bytes(image), 17 << 20)
        subprocess.run(["qemu-img", "check", image], check=True, capture_output=True)

    def test_a_full_backup_that_qemu_pushes_takes_the_space_of_its_data(self):
        directory = self.enterContext(scratch.directory())
        source, image = directory / "source.raw", directory / "disk.qcow2"
        with open(source, "wb") as disk:
            disk.write(os.urandom(16 << 20))
            disk.truncate(512 << 20)
        self.assertEqual(image_server.create(image, 512 << 20).returncode, 0)
        server = image_server.ImageServer(image, directory / "nbd.sock")
        self.addCleanup(server.close)
        server.wait()
        address = {"type": "unix", "path": str(server.socket_path)}
        nodes = [
            {"driver": "file", "node-name": "disk", "filename": str(source)},
            {"driver": "nbd", "node-name": "backup", "server": address, "export": ""},
        ]
        qemu = StorageDaemon(directory, nodes)
        self.addCleanup(qemu.close)
        qemu.job("blockdev-backup", "full", device="disk", target="backup", sync="full")
        qemu.close()
        self.assertEqual(server.stop(), 0)
        verify(image, source)
        self.assertLess(scratch.allocated_bytes(image), 17 << 20)


class Command(unittest.TestCase):
    def setUp(self):
        self.dir = self.enterContext(scratch.directory())
        self.image = self.dir / "disk.qcow2"
        made = image_server.create(self.image, SIZE)
        self.assertEqual(made.returncode, 0, made.stderr)
        self.path = str(self.dir / "nbd.sock")

    def varve(self, *arguments, **more):
        """Runs to the end."""
        return subprocess.run([binary(), "nbd", *map(str, arguments)], capture_output=True, text=True, timeout=60, **more)

    def start(self, *arguments, **more):
        process = subprocess.Popen([binary(), "nbd", *map(str, arguments)], stderr=subprocess.PIPE, text=True, **more)
        self.addCleanup(process.stderr.close)
        self.addCleanup(scratch.end_process, process, 30)
        return process

    def connect(self, uri=None):
        def attempt():
            handle = nbd.NBD()  # a handle that could not connect once never will
            try:
                handle.connect_uri(uri or f"nbd+unix:///?socket={self.path}")
                return handle
            except nbd.Error:
                return None

        return scratch.wait_until(attempt, 20, "the server listens")


class Run(Command):
    def test_command_finds_the_server_and_gives_the_exit_status(self):
        """--run: $uri, $unixsocket, $exportname; a private socket"""
        script = 'nbdinfo --size "$uri" && test -S "$unixsocket" && test -z "$port" && echo "$exportname $unixsocket" && exit 7'
        ended = self.varve(self.image, "-x", "a disk?", "--run", script)
        self.assertEqual(ended.returncode, 7, ended.stderr)
        size, line = ended.stdout.splitlines()
        self.assertEqual(int(size), SIZE)
        self.assertTrue(line.startswith("a disk? /"), line)
        private = line.split("? ")[1]
        self.assertFalse(os.path.exists(os.path.dirname(private)), "the private directory is removed")

    def test_command_finds_a_port(self):
        """--run with -p 0, IPv4 and IPv6"""
        for host, shown in (("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")):
            ended = self.varve(self.image, "-b", host, "-p", 0, "--run", 'nbdinfo --size "$uri" && echo "$uri $port$unixsocket"')
            self.assertEqual(ended.returncode, 0, ended.stderr)
            uri, port = ended.stdout.splitlines()[1].split()
            self.assertEqual(uri, f"nbd://{shown}:{port}/")

    def test_killed_command_and_killed_server(self):
        """128 + signal; SIGTERM reaches the command and leaves the image clean"""
        self.assertEqual(self.varve(self.image, "--run", "kill -9 $$").returncode, 137)
        process = self.start(self.image, "--run", f"touch {self.dir}/runs; exec sleep 60")
        scratch.wait_until(lambda: (self.dir / "runs").exists(), 20, "the command runs")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 128 + signal.SIGTERM)
        self.assertIn("closed and clean", process.stderr.read())

    def test_command_that_cannot_be_run(self):
        self.assertEqual(self.varve(self.image, "--run", "/no/such/command").returncode, 127)

    def test_server_that_cannot_serve_runs_nothing(self):
        ended = self.varve(self.dir / "missing.qcow2", "--run", f"touch {self.dir}/ran")
        self.assertEqual(ended.returncode, 1)
        self.assertIn("missing.qcow2", ended.stderr)
        self.assertFalse((self.dir / "ran").exists())


class Life(Command):
    def test_fork_returns_when_the_server_listens(self):
        """--fork, --pid-file"""
        pid_file = self.dir / "pid"
        ended = self.varve("disk.qcow2", "--fork", "-k", "nbd.sock", "-P", "pid", cwd=self.dir)
        self.assertEqual((ended.returncode, ended.stdout), (0, ""), ended.stderr)
        pid = int(pid_file.read_text())
        try:
            handle = nbd.NBD()  # at once: it listens already
            handle.connect_uri(f"nbd+unix:///?socket={self.path}")
            handle.pwrite(b"forked" * 100, 0)
            handle.shutdown()
            self.assertEqual(os.readlink(f"/proc/{pid}/cwd"), "/")
            self.assertEqual({os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)}, {"/dev/null"})
        finally:
            os.kill(pid, signal.SIGTERM)
        scratch.wait_until(lambda: not os.path.exists(f"/proc/{pid}") or self.is_zombie(pid), 20, "the server ends")
        self.assertFalse(pid_file.exists())
        self.assertEqual(self.varve(self.image, "-r", "--run", 'nbdcopy "$uri" - | head -c 6').stdout, "forked")

    def test_a_pid_file_is_never_written_through_a_link_and_only_the_own_one_is_removed(self):
        precious, pid_file = self.dir / "precious", self.dir / "pid"
        precious.write_text("another program's\n")
        pid_file.symlink_to(precious)
        ended = self.varve(self.image, "-k", self.path, "-P", pid_file, "--run", "true")
        self.assertNotEqual(ended.returncode, 0)
        self.assertIn(str(pid_file), ended.stderr)
        self.assertEqual(precious.read_text(), "another program's\n")
        pid_file.unlink()
        newer = f"rm {pid_file}; echo 1 > {pid_file}"
        ended = self.varve(self.image, "-r", "-P", pid_file, "--run", newer)
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertEqual(pid_file.read_text(), "1\n", "a newer server's")

    @staticmethod
    def is_zombie(pid):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"

    def test_fork_tells_what_is_wrong_before_it_returns(self):
        """errors before go to stderr and the exit code"""
        for arguments, status in (((self.dir / "missing.qcow2", "-k", self.path), 1),
                                  ((self.image, "-b", "192.0.2.7"), 2)):  # fmt: skip
            ended = self.varve(*arguments, "--fork", "-P", self.dir / "pid")
            self.assertEqual(ended.returncode, status, ended.stderr)
            self.assertIn("varve: ", ended.stderr)
            self.assertFalse((self.dir / "pid").exists())

    def test_live_socket_is_refused_and_a_stale_one_replaced(self):
        """L3"""
        process = self.start(self.image, "-k", self.path)
        self.connect()
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o660)
        other = self.dir / "other.qcow2"
        image_server.create(other, SIZE)
        ended = self.varve(other, "-k", self.path)
        self.assertEqual(ended.returncode, 1)
        self.assertIn(self.path, ended.stderr)
        process.kill()
        process.wait()
        self.assertTrue(os.path.exists(self.path))
        self.start(other, "-k", self.path)
        self.connect().shutdown()

    def test_shared_is_the_number_of_connections(self):
        """-e X1 O11"""
        self.start(self.image, "-k", self.path, "-e", 2)
        held = [self.connect() for _ in range(2)]
        with self.assertRaises(nbd.Error) as refused:
            nbd.NBD().connect_uri(f"nbd+unix:///?socket={self.path}")
        self.assertIn("already has 2 connections", str(refused.exception) + self.debug_of_last_refusal())
        del held

    def debug_of_last_refusal(self):
        handle, said = nbd.NBD(), []
        handle.set_debug_callback(lambda _, message: said.append(message) or 0)
        handle.set_debug(True)
        try:
            handle.connect_uri(f"nbd+unix:///?socket={self.path}")
        except nbd.Error:
            pass
        return "\n".join(said)

    def test_what_is_not_offered_is_an_error(self):
        """L11, and qemu-nbd's options that varve has not"""
        for option in ("--vsock", "--single", "--snapshot", "--cache=none", "--format=raw", "--no-such-thing"):
            ended = self.varve(self.image, option)
            self.assertEqual(ended.returncode, 2, option)
            self.assertTrue(ended.stderr.startswith("varve nbd"), ended.stderr)
        serve = subprocess.run([binary(), "serve", "--nbd", "vsock:2:10809"], capture_output=True, text=True, timeout=60)
        self.assertEqual(serve.returncode, 2)


class List(Command):
    def test_list_is_as_qemu_nbds(self):
        """-L against varve and against qemu-nbd, as qemu-nbd prints it"""
        self.start(self.image, "-k", self.path, "-x", "disk", "-D", "the first", "-r")
        self.connect(f"nbd+unix:///disk?socket={self.path}")
        ours, theirs = self.lists()
        self.assertEqual(ours, theirs)
        self.assertIn(" export: 'disk'\n  description: the first\n", ours)
        self.assertIn("  available meta contexts: 2\n   base:allocation\n   qemu:allocation-depth\n", ours)

    def test_export_without_a_name_has_its_files(self):
        """O3 O10: LIST shows no empty name, and the empty name opens it"""
        self.start(self.image, "-k", self.path)
        for name in ("", "disk"):
            handle = self.connect(f"nbd+unix:///{name}?socket={self.path}")
            self.assertEqual(handle.get_canonical_export_name() if name == "" else name, "disk")
        listed = self.varve("-L", "-k", self.path).stdout
        self.assertTrue(listed.startswith("exports available: 1\n export: 'disk'\n"), listed)

    def test_list_of_another_server(self):
        command = ["qemu-nbd", "-t", "-r", "-f", "qcow2", "-k", self.path, "-x", "theirs", str(self.image)]
        peer = subprocess.Popen(command)
        self.addCleanup(scratch.end_process, peer, 30)
        self.connect(f"nbd+unix:///theirs?socket={self.path}").shutdown()
        ours, theirs = self.lists()
        self.assertEqual(ours, theirs)

    def lists(self):
        ours = self.varve("-L", "-k", self.path)
        self.assertEqual(ours.returncode, 0, ours.stderr)
        theirs = subprocess.run(["qemu-nbd", "-L", "-k", self.path], capture_output=True, text=True, check=True).stdout
        # qemu-nbd 7.2 has other words for two of the flags, and asks for no structured replies.
        return self.without_flags(ours.stdout), self.without_flags(theirs)

    @staticmethod
    def without_flags(text):
        return re.sub(r"  flags: .*\n", "", text)

    def test_nobody_there(self):
        ended = self.varve("-L", "-k", self.path)
        self.assertEqual(ended.returncode, 1)
        self.assertIn(self.path, ended.stderr)

    def test_server_that_requires_tls(self):
        keys = tls_files.keys_file(self.dir / "keys.psk", {"alice": b"k" * 32})
        self.start(self.image, "-k", self.path, "--tls=require", "--tls-psk", keys)
        scratch.wait_until(lambda: Path(self.path).exists(), 10, "the server to listen")
        ended = self.varve("-L", "-k", self.path)
        self.assertEqual(ended.returncode, 1)
        self.assertIn(f"list the exports of {self.path}: TLS is required on this listener", ended.stderr)
        self.assertIn("nbdinfo --list nbds://", ended.stderr)

    def test_server_that_speaks_something_else(self):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.path)
            listener.listen()
            talker = threading.Thread(target=lambda: listener.accept()[0].sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
            talker.start()
            ended = self.varve("-L", "-k", self.path)
            talker.join()
        self.assertEqual(ended.returncode, 1)
        self.assertIn("the server does not speak newstyle NBD", ended.stderr)


class Activation(Command):
    """L4"""

    def activated(self, sockets, names=None, pid=None, command=None, **more):
        """A server that is started with these sockets from descriptor 3 on."""
        command = command or [binary(), "nbd", str(self.image)]
        script = 'i=3; LISTEN_PID=${PID:-$$} exec "$@"'
        environment = {**os.environ, "LISTEN_FDS": str(len(sockets)), **({"LISTEN_FDNAMES": names} if names else {}),
                       **({"PID": str(pid)} if pid else {})}  # fmt: skip
        kept = [os.dup(made.fileno()) for made in sockets]
        for number, fd in enumerate(kept):
            os.dup2(fd, 100 + number)
        redirections = " ".join(f"{3 + number}<&{100 + number}" for number in range(len(sockets)))
        process = subprocess.Popen(
            ["bash", "-c", script.replace('"$@"', f'"$@" {redirections}'), "bash", *command],
            env=environment, pass_fds=[100 + number for number in range(len(sockets))], stderr=subprocess.PIPE, text=True, **more,
        )  # fmt: skip
        for number, fd in enumerate(kept):
            os.close(fd)
            os.close(100 + number)
        self.addCleanup(process.stderr.close)
        self.addCleanup(scratch.end_process, process, 30)
        return process

    def listening(self, family=socket.AF_UNIX, address=None):
        made = listening(family, address or self.path)
        self.addCleanup(made.close)
        return made

    def test_unix_and_tcp_sockets_are_served(self):
        unix, tcp = self.listening(), self.listening(socket.AF_INET, ("127.0.0.1", 0))
        self.activated([unix, tcp])
        self.connect().pwrite(b"x" * 512, 0)
        handle = self.connect(f"nbd://127.0.0.1:{tcp.getsockname()[1]}/")
        self.assertEqual(handle.pread(512, 0), b"x" * 512)

    def test_restart_refuses_no_client(self):
        """the socket goes on listening between two servers"""
        made = self.listening()
        first = self.activated([made])
        self.connect().shutdown()
        self.assertEqual(scratch.end_process(first, 30), 0)
        early = socket.socket(socket.AF_UNIX)
        self.addCleanup(early.close)
        early.connect(self.path)  # nobody serves: it waits
        early.settimeout(0.3)
        with self.assertRaises(TimeoutError):
            early.recv(18)
        self.activated([made])
        early.settimeout(20)
        self.assertEqual(early.recv(18)[:8], b"NBDMAGIC")

    def test_sockets_of_another_process_are_left_alone(self):
        process = self.activated([self.listening()], pid=1, command=[binary(), "nbd", str(self.image), "-k", str(self.dir / "own.sock")])
        self.connect(f"nbd+unix:///?socket={self.dir}/own.sock").shutdown()
        with self.assertRaises(TimeoutError):
            stranger = socket.socket(socket.AF_UNIX)
            stranger.connect(self.path)
            stranger.settimeout(0.3)
            stranger.recv(1)
        self.assertIsNone(process.poll())

    def test_what_does_not_go_together_is_refused(self):
        varve = [binary(), "nbd", str(self.image)]
        for command, names, text in (
            ([*varve, "-k", str(self.dir / "own.sock")], None, "socket activation"),
            ([*varve, "--fork"], None, "socket activation"),
            (varve, "api", "HTTP API"),
            (varve, "nbd-tls", "TLS"),
        ):
            path = str(self.dir / f"{len(os.listdir(self.dir))}.sock")
            process = self.activated([self.listening(address=path)], names, command=command)
            self.assertEqual(process.wait(20), 2, command)
            self.assertIn(text, process.stderr.read())
        closed = socket.socket(socket.AF_UNIX)
        self.addCleanup(closed.close)
        process = self.activated([closed])
        self.assertEqual(process.wait(20), 2)
        self.assertIn("is not a listening stream socket", process.stderr.read())

    def test_nbdcopy_and_nbdinfo_start_it(self):
        """nbdcopy -- SOURCE [ varve nbd … ], nbdinfo [ varve nbd … ], nbdinfo --list [ varve serve … ]"""
        raw = self.dir / "raw"
        raw.write_bytes(os.urandom(3 << 20) + bytes(SIZE - (3 << 20)))
        subprocess.run(["nbdcopy", "--", str(raw), "[", binary(), "nbd", str(self.image), "]"], check=True, timeout=60)
        back = self.dir / "back"
        subprocess.run(["nbdcopy", "--", "[", binary(), "nbd", "-r", str(self.image), "]", str(back)], check=True, timeout=60)
        self.assertEqual(back.read_bytes(), raw.read_bytes())
        info = subprocess.run(["nbdinfo", "--size", "--", "[", binary(), "nbd", "-r", str(self.image), "]"],
                              capture_output=True, text=True, check=True, timeout=60)  # fmt: skip
        self.assertEqual(int(info.stdout), SIZE)
        serve = [binary(), "serve", "--repository", str(self.dir / "r"), "--catalogue", str(self.dir / "c.db"),
                 "--http", "127.0.0.1:0", "--ports", "none", "--targets", "names", "--node-url", ""]  # fmt: skip
        listed = subprocess.run(["nbdinfo", "--list", "--", "[", *serve, "]"], capture_output=True, text=True, timeout=60)
        self.assertEqual(listed.returncode, 0, listed.stderr)

    def test_serve_takes_nbd_and_api_sockets(self):
        """varve serve: LISTEN_FDNAMES nbd:api; both are served and nothing else is bound"""
        nbd_socket, api = self.listening(), self.listening(socket.AF_INET, ("127.0.0.1", 0))
        ready = self.dir / "ready"
        self.activated([nbd_socket, api], "nbd:api", command=[
            binary(), "serve", "--repository", str(self.dir / "r"), "--catalogue", str(self.dir / "c.db"),
            "--ports", "none", "--targets", "names", "--node-url", "", "--ready-file", str(ready)])  # fmt: skip
        scratch.wait_until(ready.exists, 20, "varve serve is ready")
        said = ready.read_text()
        self.assertIn(f"127.0.0.1:{api.getsockname()[1]}", said)
        self.assertIn(self.path, said)
        self.assertNotIn("10809", said)
        client = socket.create_connection(api.getsockname())
        self.addCleanup(client.close)
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        self.assertTrue(client.recv(100).startswith(b"HTTP/1.1 200"))
        handle = nbd.NBD()
        handle.set_opt_mode(True)
        handle.connect_uri(f"nbd+unix:///?socket={self.path}")
        self.assertEqual(handle.opt_list(lambda *_: 0), 0)
        handle.opt_abort()


if __name__ == "__main__":
    run.main()
