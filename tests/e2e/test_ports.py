#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Ports and addresses: which are taken, given back, skipped, and that all is loopback."""

import socket
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import nbd  # noqa: E402
from harness import client, run, scratch  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.daemon import Daemon  # noqa: E402


class ThreePorts(HubCase):
    options = {"port_count": 3}

    def ports_of(self, job):
        return [disk["nbd_port"] for disk in job["disk_results"]]

    def test_the_lowest_free_ports_are_taken_and_given_back_at_every_end(self):
        """A11 reuse after complete, cancel, failure"""
        first = self.hub.first_port
        self.register("vm", [MIB, MIB])
        job = self.start("vm")
        self.assertEqual(self.ports_of(job), [first, first + 1])
        for index in range(2):
            self.write_and_complete(job, index, f"u{index}/1")
        self.assert_nothing_left()
        job = self.start("vm")
        self.assertEqual(self.ports_of(job), [first, first + 1])
        self.hub.api("POST", f"/backups/{job['backup_id']}/cancel")
        self.assert_nothing_left()
        job = self.start("vm")
        self.assertEqual(self.ports_of(job), [first, first + 1])
        self.hub.api("POST", f"/telemetry/backup/{job['backup_id']}", {"status": "failed"})
        self.assert_nothing_left()
        self.assertEqual(self.ports_of(self.start("vm")), [first, first + 1])

    def test_a_foreign_port_is_skipped_and_reported(self):
        """A11 occupy the first: the second is used"""
        first = self.hub.first_port
        with socket.create_server(("127.0.0.1", first)):
            self.register("vm", [MIB])
            self.assertEqual(self.ports_of(self.start("vm")), [first + 1])
            self.assertIn(first, self.hub.get("/nbd/ports/status").body["blocked"])

    def test_a_job_that_needs_more_ports_than_there_are_takes_none(self):
        """A11 A2 no_ports"""
        self.register("big", [MIB] * 4)
        problem = self.assert_problem(self.post("big"), 503, "no available NBD ports", "no_ports")
        self.assertIn(f"no available ports in range {self.hub.first_port}-{self.hub.last_port}", problem["details"])
        self.assertEqual(self.node.calls, [])
        self.assert_nothing_left()
        self.register("small", [MIB] * 3)
        self.start("small")


class AllPorts(HubCase):
    options = {"port_count": 101}

    def test_101_disks_fit_and_the_102nd_is_refused(self):
        """A11 all 101 ports"""
        self.register("big", [MIB] * 101)
        self.register("one", [MIB])
        job = self.start("big")
        ports = [disk["nbd_port"] for disk in job["disk_results"]]
        self.assertEqual(ports, list(range(self.hub.first_port, self.hub.last_port + 1)))
        problem = self.assert_problem(self.post("one"), 503, "no available NBD ports", "no_ports")
        self.assertEqual(
            problem["details"],
            f"no available ports in range {self.hub.first_port}-{self.hub.last_port} (all 101 ports allocated)",
        )
        self.connect(job, 100).pwrite(b"last", 0)
        self.hub.api("POST", f"/backups/{job['backup_id']}/cancel")
        self.assert_nothing_left()
        self.start("one")


class NoPorts(HubCase):
    options = {"port_count": 0}

    def test_without_a_range_the_main_port_serves_every_disk(self):
        """A12 --ports none"""
        self.register("vm", [MIB, MIB])
        job = self.start("vm")
        self.assertEqual({target.port for target in self.targets(job)}, {self.hub.nbd_port})
        for index in range(2):
            self.write_and_complete(job, index, f"u{index}/1")


class Addresses(HubCase):
    def listeners(self):
        """Local addresses this varve listens on."""
        lines = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout.splitlines()
        mine = f"pid={self.hub.ready['pid']},"
        return [line.split()[3] for line in lines if mine in line]

    def test_nothing_listens_on_another_interface(self):
        """A52 before, during and after a job"""
        self.register("vm", [MIB])
        seen = self.listeners()
        job = self.start("vm")
        seen += self.listeners()
        self.assertIn(f"127.0.0.1:{job['disk_results'][0]['nbd_port']}", seen)
        self.assertIn(self.hub.ready["http"], seen)
        for address in seen:
            self.assertIn(address.rsplit(":", 1)[0], ("127.0.0.1", "[::1]"), seen)

    def test_the_ready_file_names_the_ports_really_bound(self):
        """A52 --ready-file"""
        self.assertEqual(self.hub.ready["pid"], self.hub.process.pid)
        self.assertNotIn(":0", (self.hub.ready["http"], *self.hub.ready["nbd"]))
        self.assertEqual(sorted(self.hub.ready), ["http", "http_socket", "nbd", "nbd_socket", "pid"])

    def test_a_taken_http_port_is_a_clear_failure(self):
        """A52 configurable address"""
        second = Daemon(self.dir / "second", http=self.hub.ready["http"])
        self.addCleanup(second.close)
        second.launch()
        self.assertEqual(second.process.wait(20), 1)
        self.assertIn(self.hub.ready["http"].rsplit(":", 1)[1], second.log)


class Configured(HubCase):
    def test_a_toml_file_sets_everything_and_options_override_it(self):
        """A52 --config"""
        first = scratch.free_port_range(2)
        settings = self.dir / "varve.toml"
        settings.write_text(
            f'repository = "{self.dir}/r"\ncatalogue = "{self.dir}/c.db"\nhttp = "127.0.0.1:0"\n'
            f'nbd = ["127.0.0.1:0"]\nports = "{first}-{first + 1}"\nnode_url = ""\ntargets = "ports"\n'
            f'nbd_idle = "90s"\nlog_format = "json"\n'
        )
        (self.dir / "r").mkdir()
        daemon = Daemon(self.dir / "configured", config=settings, targets="names")
        for name in ("repository", "catalogue", "http", "nbd", "ports", "node_url"):
            daemon.options[name] = None
        self.addCleanup(daemon.close)
        daemon.start()
        self.hub.close()
        self.hub = daemon
        self.register("vm", [MIB], credentials=None)  # without a node call none are needed
        job = self.start("vm")
        self.assertEqual(client.parse_targets(job["nbd_targets_string"])[0].port, daemon.nbd_port)
        self.assertEqual(self.hub.get("/nbd/ports/status").body["range_start"], first)
        self.assertTrue((self.dir / "c.db").exists())

    def test_unix_sockets_serve_http_and_nbd(self):
        """A52 --http-socket, --nbd-socket"""
        http_socket, nbd_socket = self.dir / "http.sock", self.dir / "nbd.sock"
        daemon = Daemon(self.dir / "unix", http_socket=http_socket, nbd_socket=nbd_socket, node_url="")
        self.addCleanup(daemon.close)
        daemon.start()
        with socket.socket(socket.AF_UNIX) as wire:
            wire.connect(str(http_socket))
            wire.sendall(b"GET /livez HTTP/1.1\r\nHost: varve\r\nConnection: close\r\n\r\n")
            self.assertIn(b" 200 ", wire.recv(4096).split(b"\r\n")[0])
        self.hub.close()
        self.hub = daemon
        self.register("vm", [MIB])
        export = self.start("vm")["disk_results"][0]["nbd_export_name"]
        handle = nbd.NBD()
        handle.set_export_name(export)
        handle.connect_unix(str(nbd_socket))
        self.assertEqual(handle.get_size(), MIB)


class Handshakes(HubCase):
    def test_one_slow_handshake_delays_nobody(self):
        """A10 slow handshakes"""
        self.register("vm", [MIB])
        job = self.start("vm")
        port = job["disk_results"][0]["nbd_port"]
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
        self.connect(job).pwrite(b"not delayed", 0)
        for wire in slow:
            wire.close()


if __name__ == "__main__":
    run.main()
