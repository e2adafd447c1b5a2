#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Small endpoints and the error object."""

import datetime
import os
import random
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run  # noqa: E402
from harness.case import MIB, TIME, HubCase, rounds  # noqa: E402
from harness.daemon import http  # noqa: E402

FUZZED_REQUESTS = rounds(150, 5000)


class Service(HubCase):
    def test_health_and_readiness(self):
        """A32 2.16"""
        for answer in (self.hub.root("/health"), self.hub.get("/health")):
            body = answer.body
            self.assertEqual((body["service"], body["status"], body["database"]), ("varve", "healthy", "connected"))
            self.assertRegex(body["timestamp"], TIME)
            self.assertTrue(body["version"])
        self.assertEqual(self.hub.root("/livez").status, 200)
        ready = self.hub.root("/readyz")
        self.assertEqual((ready.status, ready.body["status"]), (200, "ready"))

    def test_metrics_carry_the_promised_names(self):
        """A32 2.16"""
        self.register("vm", [MIB])
        self.quick_backup("vm", ["u/1"], writes=[(0, b"m" * 512)])
        text = self.hub.root("/metrics").text
        for name in (
            "varve_build_info", "varve_jobs", "varve_backups_total", "varve_nbd_connections",
            "varve_nbd_requests_total", "varve_nbd_request_seconds", "varve_bytes_total", "varve_ports_allocated",
            "varve_repository_bytes", "varve_seal_seconds", "varve_node_calls_total",
            "varve_last_success_timestamp_seconds",
        ):  # fmt: skip
            self.assertRegex(text, rf"(?m)^{name}(_bucket|_count|_sum)?[{{ ]", name)
        for bound in set(re.findall(r'le="([^"]*)"', text)):
            self.assertLess(len(bound), 9, f"a bound that monitors can match by its text: {bound}")

    def test_the_openapi_document_describes_routes_that_exist(self):
        """A32 openapi equals the routes, seen from outside"""
        document = self.hub.root("/openapi.json").body
        self.assertTrue(document["openapi"].startswith("3.1"))
        self.assertEqual(self.hub.get("/openapi.json").body, document)
        for path, operations in document["paths"].items():
            for method in operations:
                with self.subTest(path=path, method=method):
                    url = self.hub.url + (path if "/api/v1" in path or self.is_root(path) else "/api/v1" + path)
                    asked = "HEAD" if path.endswith("/events") else method.upper()  # a GET would not end
                    answer = http(asked, url.replace("{", "x").replace("}", "x"))
                    self.assertNotEqual(answer.status, 405)
                    self.assertFalse(answer.status == 404 and answer.body.get("error") == "not found", answer)

    @staticmethod
    def is_root(path):
        return path in ("/health", "/livez", "/readyz", "/metrics", "/openapi.json")

    def test_exports_and_ports_show_what_is_served(self):
        """A32 2.16"""
        self.register("vm", [2 * MIB])
        job = self.start("vm")
        handle = self.connect(job)
        handle.pwrite(b"q" * 4096, 0)
        handle.zero(65536, 65536)
        export = self.exports()[0]
        disk = job["disk_results"][0]
        self.assertEqual(
            [export[name] for name in ("name", "kind", "backup_id", "disk_id", "vm_name", "size_bytes", "port")],
            [disk["nbd_export_name"], "ingest", job["backup_id"], 0, "vm", 2 * MIB, disk["nbd_port"]],
        )
        moved = [export[name] for name in ("connections", "bytes_received", "bytes_zeroed", "read_only")]
        self.assertEqual(moved, [1, 4096, 65536, False])
        self.assertIn(f"nbd://127.0.0.1:{disk['nbd_port']}/{disk['nbd_export_name']}", export["uris"])
        ports = self.hub.get("/nbd/ports/status").body
        count = self.hub.last_port - self.hub.first_port + 1
        self.assertEqual([ports[k] for k in ("total_ports", "allocated", "available")], [count, 1, count - 1])
        self.assertEqual([ports["range_start"], ports["range_end"]], [self.hub.first_port, self.hub.last_port])
        self.assertEqual(ports["allocations"][0]["port"], disk["nbd_port"])
        self.assertEqual(ports["allocations"][0]["job_id"], job["backup_id"])

    def test_statistics_count_completed_jobs(self):
        """A32 2.11"""
        self.register("vm", [MIB])
        empty = self.hub.get("/backups/stats", vm_name="vm", repository_id="1").body
        self.assertEqual(empty, {"backup_count": 0, "total_size_bytes": 0, "last_backup_at": ""})
        self.quick_backup("vm", ["u/1"], writes=[(0, b"s" * 1024)])
        stats = self.hub.get("/backups/stats", vm_name="vm", repository_id="1").body
        self.assertEqual((stats["backup_count"], stats["total_size_bytes"]), (1, 1024))
        self.assertRegex(stats["last_backup_at"], TIME)
        self.assert_problem(self.hub.get("/backups/stats"), 400, "vm_name and repository_id are required")

    def test_history_has_the_samples_of_telemetry(self):
        """A32 2.13"""
        self.register("vm", [MIB])
        job = self.start("vm")
        self.hub.api(
            "POST", f"/telemetry/backup/{job['backup_id']}",
            {"status": "running", "current_phase": "transferring", "transfer_speed_bps": 99, "progress_percent": 50.0},
        )  # fmt: skip
        history = self.hub.get(f"/telemetry/history/{job['backup_id']}").body
        self.assertEqual(history["job_id"], job["backup_id"])
        sample = next(entry for entry in history["chart_data"] if entry["source"] == "client")
        self.assertEqual((sample["s"], sample["p"], sample["phase"]), (99, 50, "transferring"))
        self.assertIn("peak_speed_bps", history["performance_metrics"])
        self.assert_problem(self.hub.get("/telemetry/history/backup-no-1"), 404, "job not found")

    def test_disks_of_a_job_show_bytes_and_parents(self):
        """A32 2.5"""
        self.register("vm", [MIB])
        first = self.quick_backup("vm", ["u/1"], writes=[(0, b"d" * 65536)])
        job = self.start("vm", "incremental")
        disk = self.disks(job["backup_id"])[0]
        parent = self.disks(first["backup_id"])[0]
        self.assertEqual((parent["bytes_received"], parent["change_id"]), (65536, "u/1"))
        self.assertGreaterEqual(parent["bytes_stored"], 65536)
        self.assertEqual((disk["parent_image_id"], disk["parent_backup_id"]), (parent["image_id"], first["backup_id"]))
        self.assertEqual(disk["backup_type"], "incremental")


class Errors(HubCase):
    def test_unknown_paths_and_wrong_methods(self):
        """A33 2.1"""
        self.assert_problem(self.hub.get("/nothing"), 404, "not found")
        self.assert_problem(self.hub.get("/policies"), 404, "not found")
        wrong = self.hub.api("PATCH", "/backups")
        self.assert_problem(wrong, 405, "method not allowed")
        self.assertIn("POST", wrong.headers["Allow"])
        gone = self.hub.api("POST", "/restore/mount", {})
        self.assertEqual(gone.status, 410, gone)
        self.assertIn("nbd", gone.body["hint"].lower())

    def test_a_body_over_one_mebibyte_is_refused(self):
        """A33 2.1"""
        answer = self.hub.api("POST", "/backups", raw=b'{"vm_name":"' + b"x" * MIB + b'"}')
        self.assert_problem(answer, 413, "request body too large")

    def test_fuzzed_requests_get_a_complete_error_object_and_never_a_500(self):
        """A33 all members in every error"""
        dice = random.Random(33)
        paths = ["/backups", "/vm-contexts/x", "/repositories", "/backups/y/complete", "/telemetry/backup/z", "/backups/y/cancel"]
        values = [None, 1, -1, 1e300, "", "x" * 5000, "\0", "é", [], [[]], {}, {"a": {}}, True, "../../etc", "%00"]
        names = ["vm_name", "backup_type", "repository_id", "tags", "change_id", "disk_id", "disks", "vm_path", "config", "type", "name", "status"]
        for _ in range(FUZZED_REQUESTS):
            body = {dice.choice(names): dice.choice(values) for _ in range(dice.randrange(0, 5))}
            method = dice.choice(["POST", "PUT", "DELETE", "GET"])
            answer = self.hub.api(method, dice.choice(paths), body)
            with self.subTest(body=body, answer=answer):
                self.assertLess(answer.status, 500)
                if answer.status >= 400:
                    self.assert_problem(answer, answer.status, answer.body["error"])
        self.assertEqual(self.hub.root("/readyz").status, 200)


class OtherZone(HubCase):
    def setUp(self):
        os.environ["TZ"] = "Pacific/Auckland"
        self.addCleanup(os.environ.pop, "TZ")
        super().setUp()

    def test_times_are_utc_whatever_the_zone(self):
        """A33 TZ set to another zone"""
        self.register("vm", [MIB])
        job = self.start("vm")
        created = datetime.datetime.strptime(job["created_at"], "%Y-%m-%dT%H:%M:%SZ")
        now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
        self.assertLess(abs((now - created).total_seconds()), 60)
        day_in_name = job["disk_results"][0]["qcow2_path"].rsplit("-", 2)[1]
        self.assertEqual(day_in_name, created.strftime("%Y%m%d"))


if __name__ == "__main__":
    run.main()
