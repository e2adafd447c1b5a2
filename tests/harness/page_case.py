# SPDX-License-Identifier: Apache-2.0
"""A varve that has been at work for weeks, and a browser that looks at its page."""

import contextlib
import random
import sqlite3
import time
import unittest

from harness import browser, scratch
from harness.case import GIB, MIB, HubCase

DAY = 86_400
CLUSTER = 65536
# name, disks in GiB, points, hours since the last one, repository
VMS = [
    ("web01", [20], 14, 5.2, "1"),
    ("db01", [8, 24], 10, 6.9, "1"),
    ("mail", [60], 7, 3.1, "1"),
    ("build-runner", [40], 5, 53.0, "1"),
    ("files", [200], 9, 8.4, "vault"),
]


class PageCase(HubCase):
    """A fresh varve for every test, at an address that the window has not seen; no message of it goes unseen."""

    expected_messages = ()  # parts of messages that a test means to bring about
    window = None  # one for all tests: a browser takes seconds to start

    def setUp(self):
        browser.require()
        super().setUp()
        if PageCase.window is None:
            place = contextlib.ExitStack()
            PageCase.window = browser.Browser(place.enter_context(scratch.directory()))
            unittest.addModuleCleanup(place.close)
            unittest.addModuleCleanup(PageCase.window.close)
        self.browser = PageCase.window
        self.look_afresh()

    def look_afresh(self):
        self.browser.open("about:blank")
        self.browser.size(1280, 800)
        self.browser.prefer(prefers_color_scheme="light", prefers_reduced_motion="no-preference")
        self.browser.console()
        self.browser.requests()

    def tearDown(self):
        super().tearDown()
        self.browser.open("about:blank")  # before its server goes
        self.assertEqual(self.unexpected_messages(), [], "the browser has something to say")

    def unexpected_messages(self):
        known = list(self.expected_messages)
        if self.hub.process.poll() is None and not self.has_events():
            known.append("/api/v1/events")  # asked for once; then the page polls
        return [message for message in self.browser.console() if not any(part in message for part in known)]

    def has_events(self):
        """Whether this varve tells by itself what changes."""
        return "/api/v1/events" in self.hub.root("/openapi.json").body.get("paths", {})

    def open(self, place="#/"):
        self.browser.open("about:blank")  # so that another '#' is not a step inside the page that is there
        self.browser.open(f"{self.hub.url}/{place}")
        self.browser.wait("""
            const main = document.querySelector('main');
            return document.title.includes('varve') && main.innerText && !main.innerText.includes('Loading');""")

    # --- weeks of work ---

    def weeks_of_work(self):
        """Real backups of VMS; their rows say that one was taken a day, and bytes in a size that is usual for VMs."""
        vault = self.dir / "vault"
        vault.mkdir()
        body = {"id": "vault", "name": "vault", "type": "local", "enabled": True, "is_immutable": False,
                "min_retention_days": 30, "config": {"path": str(vault)}}  # fmt: skip
        self.assertEqual(self.hub.api("POST", "/repositories", body).status, 201)
        lots = random.Random(7)
        for name, disks, count, _, repository in VMS:
            self.register(name, [size * GIB for size in disks])
            for number in range(count):
                self.make_point(lots, name, disks, number, repository)
        failed = self.start("mail", "incremental")
        self.hub.api("POST", f"/telemetry/backup/{failed['backup_id']}",
                     {"status": "failed", "error": {"message": "the source stopped answering"}})  # fmt: skip
        self.assertEqual(self.hub.stop(), 0)
        with sqlite3.connect(self.hub.catalogue) as catalogue:
            self.spread_over_days(catalogue, lots)
        self.hub.start()
        for name in ("web01", "files"):
            self.verify(name)

    def make_point(self, lots, name, disks, number, repository):
        job = self.start(name, "incremental" if number else "full", repository)
        for index, size in enumerate(disks):
            handle = self.connect(job, index)
            centres = [lots.random() for _ in range(4)]  # files lie together, and so do their changes
            for _ in range(60 if number == 0 else lots.randrange(12, 40)):
                place = min(max(lots.gauss(lots.choice(centres), 0.02), 0), 1) * (size * GIB - 4 * MIB)
                handle.pwrite(lots.randbytes(CLUSTER) * lots.randrange(1, 9), int(place) // CLUSTER * CLUSTER)
            if number == 0:
                handle.zero(64 * MIB, size * GIB - 64 * MIB)
            self.complete_ok(job, f"u{index}/{number}", job["disk_results"][index]["disk_id"])

    def verify(self, name):
        begun = self.hub.api("POST", "/verifications", {"vm_name": name})
        self.assertEqual(begun.status, 202, begun)
        path = f"/verifications/{begun.body['verification_id']}"
        scratch.wait_until(lambda: self.hub.get(path).body["state"] == "completed", 60, "the verification has ended")

    def spread_over_days(self, catalogue, lots):
        now = int(time.time())
        for name, disks, count, hours, _ in VMS:
            jobs = [row[0] for row in catalogue.execute(
                "SELECT id FROM job WHERE vm_name = ? AND state = 'completed' ORDER BY row", (name,))]  # fmt: skip
            for number, job in enumerate(jobs):
                older = count - 1 - number
                end = now - int(hours * 3600) - older * DAY + (lots.randrange(-900, 900) if older else 0)
                scale = 160 if number == 0 else lots.randrange(40, 70)
                took = max(40, sum(disks) * (5 if number == 0 else 1) + lots.randrange(60))
                catalogue.execute(
                    "UPDATE job SET created_at = ?1, started_at = ?1, decided_at = ?2, completed_at = ?2 WHERE id = ?3",
                    (end - took, end, job))  # fmt: skip
                catalogue.execute(
                    "UPDATE job_disk SET created_at = ?1, completed_at = ?2, bytes_received = bytes_received * ?3, "
                    "bytes_stored = bytes_stored * ?3, bytes_elided = bytes_elided * ?3, "
                    "allocated_bytes = allocated_bytes * ?3 WHERE job_id = ?4",
                    (end - took, end, scale, job))  # fmt: skip
            catalogue.execute("UPDATE backup_context SET last_backup_at = ? WHERE last_backup_id = ?",
                              (now - int(hours * 3600), jobs[-1]))  # fmt: skip
            catalogue.execute("UPDATE vm SET created_at = ?, expected_interval_seconds = ? WHERE vm_name = ?",
                              (now - (count + 3) * DAY, 26 * 3600, name))  # fmt: skip
        catalogue.execute("UPDATE job SET created_at = ?, started_at = ?, completed_at = ? WHERE state = 'failed'",
                          (now - 5000, now - 5000, now - 4700))  # fmt: skip
