#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Signals for the people who run it: metrics by promtool's rules, alerts, and notifications by webhook and command."""

import json
import os
import random
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run, scratch, sources  # noqa: E402
from harness.case import MIB, TIME, HubCase  # noqa: E402
from harness.daemon import ROOT, binary  # noqa: E402
from harness.qcow2_bytes import Qcow2Bytes  # noqa: E402

CLUSTER = 65536
PATIENCE = 15
NAME = re.compile(r"\b(?:varve|process)_[a-z_]+")


class Receiver:
    """A webhook: keeps what it is sent, and answers with `statuses` in turn, then with 200."""

    def __init__(self, statuses=(), context=None):
        self.received, self.headers, self.arrivals = [], [], 0
        self.statuses = list(statuses)
        self.release = threading.Event()
        self.release.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.arrivals += 1
                receiver.release.wait(60)
                status = receiver.statuses.pop(0) if receiver.statuses else 200
                if status == 200:
                    receiver.received.append(json.loads(body))
                    receiver.headers.append(dict(self.headers))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if context:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/hook?key=s3cret"

    def close(self):
        self.release.set()
        self.server.shutdown()
        self.server.server_close()

    def wait(self, event, count=1):
        """The first `count` messages of that kind."""
        def found():
            of_kind = [message for message in self.received if message["event"] == event]
            return of_kind if len(of_kind) >= count else None

        return scratch.wait_until(found, PATIENCE, f"{event} is told, beside {self.received}")


class AlertCase(HubCase):
    statuses = ()

    def setUp(self):
        self.hook = Receiver(self.statuses)
        self.addCleanup(self.hook.close)
        self.options = {"notify_url": self.hook.url, **self.options}
        super().setUp()

    def metric(self, line):
        return float(re.search("^" + re.escape(line) + r" (\S+)$", self.metrics(), re.M)[1])

    def metrics(self):
        answer = self.hub.root("/metrics")
        self.assertEqual(answer.status, 200)
        return answer.text

    def data(self, seed=7, size=MIB):
        return random.Random(seed).randbytes(size)


class Notifications(AlertCase):
    options = {"notify_on": "all"}

    def test_every_end_of_a_backup_reaches_a_webhook_and_a_command(self):
        told = self.dir / "told"
        self.hub.close()
        self.hub.options["notify_command"] = f'printf "%s|%s|%s|" "$VARVE_EVENT" "$VARVE_VM_NAME" "$VARVE_TEXT" >>{told}; cat >>{told}; echo >>{told}'
        self.hub.start()
        self.register("web 01", [MIB])
        done = self.quick_backup("web 01", ["u/1"], writes=[(0, self.data())])["backup_id"]
        [message] = self.hook.wait("completed")
        self.assertEqual((message["vm_name"], message["backup_id"], message["repository_id"]), ("web 01", done, "1"))
        self.assertEqual(message["text"], "full backup of VM web 01 completed")
        self.assertRegex(message["at"], TIME)
        self.assertEqual(message["details"]["bytes_received"], str(MIB))
        self.assertEqual(message["host"], os.uname().nodename)
        self.assertEqual(self.hook.headers[0]["Content-Type"], "application/json")
        cancelled = self.start("web 01")
        self.hub.api("POST", f"/backups/{cancelled['backup_id']}/cancel", {"reason": "enough"})
        failed = self.start("web 01")
        self.hub.api("POST", f"/telemetry/backup/{failed['backup_id']}", {"status": "failed", "error": {"message": "no lamp"}})
        self.assertEqual(self.hook.wait("cancelled")[0]["text"], "full backup of VM web 01 cancelled: enough")
        [message] = self.hook.wait("failed")
        self.assertEqual((message["details"]["code"], message["details"]["cause"]), ("client", "no lamp"))

        def lines():
            found = told.read_text().splitlines() if told.exists() else []
            return found if len(found) == 3 and found[-1].endswith("}") else None

        events = []
        for line in scratch.wait_until(lines, PATIENCE, "three lines"):
            event, vm, text, raw = line.split("|", 3)
            self.assertEqual((vm, text), ("web 01", json.loads(raw)["text"]))
            self.assertEqual(json.loads(raw)["event"], event)
            events.append(event)
        self.assertEqual(events, ["completed", "cancelled", "failed"])
        for way in ("url", "command"):
            scratch.wait_until(lambda way=way: self.metric(f'varve_notifications_total{{way="{way}",result="delivered"}}') == 3, 5, way)
        self.assertEqual(self.metric('varve_job_failures_total{code="client"}'), 1)

    def test_damage_that_a_verification_finds_is_told(self):
        self.register("vm", [MIB])
        backup = self.quick_backup("vm", ["u/1"], writes=[(0, self.data())])["backup_id"]
        image = Qcow2Bytes(self.images("vm")[0])
        at = image.host(3) + 5
        image.write(at, bytes([image.read(at, 1)[0] ^ 1]))
        self.hub.api("POST", f"/backups/{backup}/verify", {})
        [message] = self.hook.wait("damaged")
        self.assertEqual((message["vm_name"], message["backup_id"]), ("vm", backup))
        self.assertIn(f"disk 0 is damaged: {CLUSTER} bytes are not what was sent: {3 * CLUSTER}+{CLUSTER}", message["text"])
        self.assertEqual(message["details"]["damaged_backups"], backup)
        vm = self.hub.get("/vm-contexts/vm").body["context"]
        self.assertEqual((vm["last_good_at"], vm["last_verified_at"]), (None, None))

    def test_a_vm_of_which_nobody_hears_is_told_of_once_for_each_silence(self):
        self.hub.register("quiet", [MIB])
        self.register("vm", [MIB], expected_interval_seconds=1)
        first = self.hook.wait("overdue")[0]
        self.assertIn("VM vm is overdue: it has no good point", first["text"])
        self.assertEqual(self.metric('varve_vm_overdue{vm="vm"}'), 1)
        self.assertNotIn('varve_vm_overdue{vm="quiet"}', self.metrics())
        self.quick_backup("vm", ["u/1"], writes=[(0, self.data())])
        vm = self.hub.get("/vm-contexts/vm").body["context"]
        self.assertEqual(vm["expected_interval_seconds"], 1)
        self.assertRegex(vm["last_good_at"], TIME)
        second = self.hook.wait("overdue", 2)[1]
        self.assertIn(f"its newest good point is of {vm['last_good_at']}, and one is expected every 1s", second["text"])
        time.sleep(2)
        self.assertEqual(len(self.hook.wait("overdue", 2)), 2, "the same silence")
        self.hub.register("vm", [MIB], expected_interval_seconds=0)
        self.assertFalse(self.hub.get("/vm-contexts/vm").body["context"]["overdue"])

    def test_a_repository_that_goes_away_is_told_of(self):
        away = self.dir / "away"
        self.hub.repository.rename(away)
        [message] = self.hook.wait("unavailable")
        self.assertEqual(message["repository_id"], "1")
        self.assertIn("is not there", message["text"])
        self.assertEqual(self.metric('varve_repository_available{repository="1"}'), 0)
        away.rename(self.hub.repository)
        scratch.wait_until(lambda: self.metric('varve_repository_available{repository="1"}') == 1, PATIENCE, "it is back")


class Reserve(AlertCase):
    options = {"space_reserve": "1000T"}

    def test_a_repository_below_its_reserve_is_told_of_and_its_refusals_are_counted(self):
        [message] = self.hook.wait("space")
        self.assertIn("repository 1 is down to its space reserve", message["text"])
        self.register("vm", [MIB])
        self.assertEqual(self.post("vm").status, 507)
        self.assertEqual(self.metric('varve_start_refusals_total{code="no_space"}'), 1)
        bytes_of = {kind: self.metric(f'varve_repository_bytes{{repository="1",kind="{kind}"}}')
                    for kind in ("total", "available", "reserve")}  # fmt: skip
        self.assertGreater(bytes_of["reserve"], bytes_of["available"])


class Trouble(AlertCase):
    options = {"notify_on": "completed"}
    statuses = (503, 500)

    def test_a_webhook_is_asked_three_times(self):
        self.register("vm", [MIB])
        self.quick_backup("vm", ["u/1"], writes=[(0, self.data())])
        self.assertEqual(len(self.hook.wait("completed")), 1)
        self.assertEqual(self.hook.arrivals, 3)

    def test_a_refusal_is_final_and_in_the_log_without_the_secret_part_of_the_address(self):
        self.hook.statuses = [404]
        self.register("vm", [MIB])
        self.quick_backup("vm", ["u/1"], writes=[(0, self.data())])
        scratch.wait_until(lambda: self.metric('varve_notifications_total{way="url",result="failed"}') == 1, PATIENCE, "it failed")
        self.assertEqual(self.hook.arrivals, 1)
        self.assertRegex(self.hub.log, r"notify: completed backup-vm-\d+ could not be told: POST http://127.0.0.1:\d+: answered with status 404")
        self.assertNotIn("s3cret", self.hub.log)

    def test_a_webhook_that_hangs_delays_neither_backups_nor_a_stop(self):
        self.hook.statuses = []
        self.hook.release.clear()
        self.register("vm", [MIB])
        self.quick_backup("vm", ["u/1"], writes=[(0, self.data())])
        scratch.wait_until(lambda: self.hook.arrivals == 1, PATIENCE, "it hangs")
        begun = time.monotonic()
        for number in range(3):
            self.quick_backup("vm", [f"u/{number + 2}"], "incremental", writes=[(0, self.data(number))])
        self.assertLess(time.monotonic() - begun, 5)
        self.assertEqual(self.hook.arrivals, 1, "one at a time")
        begun = time.monotonic()
        self.assertEqual(self.hub.stop(), 0)
        self.assertLess(time.monotonic() - begun, 9, "five seconds for what waits")
        self.assertIn("notify: 3 messages are dropped: varve stops", self.hub.log)


class Tls(HubCase):
    def test_a_webhook_by_https_is_told_when_its_certificate_is_trusted(self):
        if not shutil.which("openssl"):
            self.skipTest("no openssl")
        key, certificate = self.dir / "key.pem", self.dir / "certificate.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate], check=True, capture_output=True)  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        hook = Receiver(context=context)
        self.addCleanup(hook.close)
        for trusted, name, result in ((True, "localhost", "delivered"), (False, "localhost", "failed"), (True, "127.0.0.1", "failed")):
            with self.subTest(trusted=trusted, name=name):
                self.hub.close()
                self.hub.options.update(notify_url=f"https://{name}:{hook.port}/x", notify_on="overdue", expected_interval="1s")
                self.hub.environment = {**os.environ, **({
  "SSL_CERT_FILE" : str(certificate)} if trusted else {})}
                self.hub.start()
                self.hub.register("vm", [MIB])
                line = f'varve_notifications_total{{way="url",result="{result}"}} 1'
                scratch.wait_until(lambda line=line: line in self.hub.root("/metrics").text, PATIENCE, f"{line}: {self.hub.log}")
        self.assertEqual([message["event"] for message in hook.received], ["overdue"])


class Metrics(HubCase):
    def setUp(self):
        super().setUp()
        self.register("vm", [2 * MIB], expected_interval_seconds=90000)
        self.backup = self.quick_backup("vm", ["u/1"], writes=[(0, random.Random(1).randbytes(MIB))])["backup_id"]

    def text(self):
        return self.hub.root("/metrics").text

    def value(self, line):
        return float(re.search("^" + re.escape(line) + r" (\S+)$", self.text(), re.M)[1])

    def test_promtool_has_nothing_to_say_about_the_metrics_of_a_server_that_works(self):
        if not shutil.which("promtool"):
            self.skipTest("no promtool")
        self.hub.api("POST", "/verifications", {})
        self.start("vm")
        done = subprocess.run(["promtool", "check", "metrics"], input=self.text(), capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_every_metric_of_the_alerts_the_dashboard_and_the_page_is_there(self):
        there = set(re.findall(r"^# TYPE (\S+)", self.text(), re.M))
        alerts = (ROOT / "contrib/prometheus/alerts.yaml").read_text()
        dashboard = json.loads((ROOT / "contrib/grafana/varve.json").read_text())
        expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
        expressions += [variable["definition"] for variable in dashboard["templating"]["list"] if "definition" in variable]
        self.assertGreater(len(expressions), 30)
        for text in ("\n".join(re.findall(r"expr: .*(?:\n {10}.*)*", alerts)), "\n".join(expressions)):
            names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in NAME.findall(text)}
            self.assertGreater(len(names), 10)
            self.assertEqual(names - there, set())

    def test_the_alerts_fire_when_they_should_by_promtool(self):
        if not shutil.which("promtool"):
            self.skipTest("no promtool")
        folder = ROOT / "contrib/prometheus"
        done = subprocess.run(["promtool", "test", "rules", "alerts_test.yaml"], cwd=folder, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        tests, rules = (folder / "alerts_test.yaml").read_text(), (folder / "alerts.yaml").read_text()
        page = (ROOT / "docs/monitoring.md").read_text()
        for alert in re.findall(r"- alert: (\w+)", rules):
            self.assertRegex(tests, rf"alertname: {alert}\n +exp_alerts", f"{alert} is seen to fire")
            self.assertIn(f"alertname: {alert}}}", tests, f"{alert} is seen to stay quiet")
            self.assertIn(f"| `{alert}` |", page)

    def test_the_traffic_of_restores_is_counted_while_it_flows_and_afterwards(self):
        before = self.value('varve_bytes_total{kind="read"}')
        copy = self.dir / "copy.raw"
        uri = self.hub.get("/points").body["points"][0]["uris"][0]
        subprocess.run(["nbdcopy", uri, copy], check=True, capture_output=True)
        self.assertGreaterEqual(self.value('varve_bytes_total{kind="read"}') - before, MIB)
        self.assertEqual(self.value('varve_exports{kind="point"}'), 1)
        self.hub.close()
        self.hub.options["point_idle"] = "100ms"
        self.hub.start()
        subprocess.run(["nbdcopy", uri.replace(uri.split("/")[2], f"127.0.0.1:{self.hub.nbd_port}"), copy], check=True, capture_output=True)
        scratch.wait_until(lambda: self.value('varve_exports{kind="point"}') == 0, PATIENCE, "the point is closed")
        self.assertGreaterEqual(self.value('varve_bytes_total{kind="read"}'), MIB)

    def test_ages_chains_and_the_process_have_their_numbers(self):
        self.quick_backup("vm", ["u/2"], "incremental", writes=[(0, b"x" * CLUSTER)])
        vm = self.hub.get("/vm-contexts/vm").body["context"]
        self.assertLess(abs(self.value('varve_last_success_timestamp_seconds{vm="vm"}') - time.time()), 30)
        self.assertNotIn("varve_last_verified_timestamp_seconds{", self.text())
        self.assertEqual(vm["last_verified_at"], None)
        self.assertEqual(self.value('varve_chain_images{vm="vm",repository="1",disk="0"}'), 2)
        self.hub.api("POST", "/verifications", {})
        verified, good = (f'varve_last_{what}_timestamp_seconds{{vm="vm"}}' for what in ("verified", "success"))
        # One backup after the other, the older one first.
        scratch.wait_until(lambda: verified in self.text() and self.value(verified) == self.value(good), PATIENCE,
                           "the newest is verified")  # fmt: skip
        pid = self.hub.ready["pid"]
        resident = int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) << 10
        self.assertLess(abs(self.value("process_resident_memory_bytes") - resident), 64 * MIB)
        self.assertLess(abs(self.value("process_open_fds") - len(os.listdir(f"/proc/{pid}/fd"))), 16)
        self.assertLess(time.time() - self.value("process_start_time_seconds"), 120)
        self.assertGreater(self.value('varve_http_requests_total{subject="backups",status="2xx"}'), 1)


class NothingToActOn(HubCase):
    """A plain full by a plain tool says nothing above `info`: a warning means that a person should do something."""

    options = {"log_level": "warning"}
    size = 64 * MIB

    def setUp(self):
        super().setUp()
        self.source = self.dir / "source.raw"
        sources.make_disk(self.source, self.size, 3)

    def full(self, write):
        self.hub.register("vm", [self.size])
        job = self.start("vm", client="external")
        uri = self.hub.export_uri(job["disk_results"][0]["nbd_export_name"])
        write(uri)
        self.complete_ok(job, "full-1", 0)
        self.assert_nothing_to_act_on(job["backup_id"])

    def assert_nothing_to_act_on(self, backup_id):
        self.assertEqual(self.job(backup_id).get("warnings", []), [])
        self.assertEqual(self.hub.stop(), 0)
        self.assertEqual(self.hub.log, "")

    def run_tool(self, *words):
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_by_nbdcopy(self):
        self.full(lambda uri: self.run_tool("nbdcopy", self.source, uri))

    def test_by_qemu_img(self):
        self.full(lambda uri: self.run_tool("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", self.source, uri))

    def test_by_varve_pull(self):
        self.run_tool(binary(), "pull", "vm", "--disk", f"0={self.source}", "--server", self.hub.url)
        [backup] = self.hub.get("/backups").body["backups"]
        self.assert_nothing_to_act_on(backup["backup_id"])

    def test_a_restore_and_a_cancel(self):
        self.run_tool(binary(), "pull", "vm", "--disk", f"0={self.source}", "--server", self.hub.url)
        self.run_tool("nbdcopy", self.hub.get("/points").body["points"][0]["uris"][0], self.dir / "copy.raw")
        job = self.start("vm", client="external")
        self.hub.api("POST", f"/backups/{job['backup_id']}/cancel", {})
        [backup] = self.hub.get("/backups", status="completed").body["backups"]
        self.assert_nothing_to_act_on(backup["backup_id"])


if __name__ == "__main__":
    run.main()
