#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The page at "/" in a real browser: docs/page.md.

VARVE_PICTURES=DIR writes the pictures of docs/page.md there.
"""

import os
import re
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import many_rows, run  # noqa: E402
from harness.case import GIB, MIB, HubCase  # noqa: E402
from harness.daemon import http  # noqa: E402
from harness.event_stub import EventStub  # noqa: E402
from harness.page_case import PageCase  # noqa: E402

SANITIZED = bool(os.environ.get("VARVE_SANITIZED"))
STYLE = Path(__file__).resolve().parents[2] / "api" / "page" / "style.css"


class LineCase(PageCase):
    def line(self, program):
        """The first line that calls it, as it would be copied."""
        lines = self.browser.run("return [...document.querySelectorAll('.lines code')].map(e => e.innerText)")
        return next(line for line in lines if line.startswith(program))


class Served(HubCase):
    """The files, without a browser."""

    def test_every_file_comes_with_the_rules_that_bind_the_browser(self):
        names = re.findall(r'(?:src|href)="(/page/[^"]+)"', self.hub.root("/").text)
        self.assertGreaterEqual(len(names), 3)
        for path in ("/", "/page/chart.min.js", *names):
            answer = self.hub.root(path)
            self.assertEqual(answer.status, 200, path)
            policy = answer.headers["Content-Security-Policy"]
            self.assertIn("default-src 'self'", policy)
            self.assertIn("frame-ancestors 'none'", policy)
            self.assertNotIn("unsafe", policy)
            self.assertEqual(answer.headers["X-Content-Type-Options"], "nosniff")
            self.assertEqual(answer.headers["Referrer-Policy"], "no-referrer")
            again = http("GET", self.hub.url + path, headers={"If-None-Match": answer.headers["ETag"]})
            self.assertEqual((again.status, again.text), (304, ""))
        self.assertIn("MIT License", self.hub.root("/page/chart.min.js").text[:200])

    def test_a_file_that_the_page_has_not_is_not_found(self):
        for path in ("/page/none.js", "/page/..%2fapi%2fpage.cc"):
            self.assert_problem(self.hub.root(path), 404, "the page has no such file")


class Tokens(HubCase):
    options = {"api_token": "s3cret"}

    def test_the_page_needs_no_token_and_what_it_shows_does(self):
        self.assertEqual(self.hub.root("/").status, 200)
        self.assertEqual(self.hub.root("/page/app.js").status, 200)
        self.assertEqual(self.hub.root("/api/v1/vm-contexts").status, 401)


class Contrast(HubCase):
    """WCAG 2.2, 1.4.3 and 1.4.11, computed from the colours of style.css."""

    TEXT = [("text", "ground"), ("text", "surface"), ("muted", "ground"), ("muted", "surface"), ("accent", "surface"),
            ("accent", "ground"), ("accent", "accent-soft"), ("on-accent", "accent"), ("ok", "ok-soft"),
            ("ok", "surface"), ("warn", "warn-soft"), ("bad", "bad-soft"), ("bad", "surface"), ("bad", "ground"),
            ("text", "bad-soft"), ("text", "warn-soft"), ("text", "ok-soft"), ("accent", "bad-soft")]  # fmt: skip
    SHAPES = [("edge", "surface"), ("edge", "ground"), ("accent", "line"), ("heat-4", "heat-0")]

    def setUp(self):
        pass  # no server

    tearDown = setUp

    @staticmethod
    def luminance(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(self, one, other):
        high, low = sorted((self.luminance(one), self.luminance(other)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    def test_every_pair_of_colours_can_be_read(self):
        self.assertAlmostEqual(self.contrast("#000000", "#ffffff"), 21)
        light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", part))
                       for part in STYLE.read_text().split("@media")[:2])  # fmt: skip
        self.assertEqual(light.keys(), dark.keys())
        for name, colours in (("light", light), ("dark", dark)):
            for pairs, least in ((self.TEXT, 4.5), (self.SHAPES, 3.0)):
                for one, other in pairs:
                    with self.subTest(scheme=name, one=one, other=other):
                        self.assertGreaterEqual(self.contrast(colours[one], colours[other]), least)


class Empty(PageCase):
    def test_without_a_vm_the_page_says_how_to_get_one(self):
        self.open()
        self.browser.wait_for_text("No VM is known yet.")
        self.browser.wait_for_text("varve pull web01 --disk 0=disk.raw")
        self.browser.wait_for_text("No backup is running.")
        for place, words in (("repositories", "is drawn from the second day on"),
                             ("history", "There was no backup yet."), ("tasks", "Nobody works with a point now."),
                             ("exports", "No export is open"), ("nowhere", "There is no such view")):  # fmt: skip
            with self.subTest(place=place):
                self.open(f"#/{place}")
                self.browser.wait_for_text(words, "main")

    def test_a_vm_without_a_point_says_so(self):
        self.register("fresh", [MIB])
        self.open("#/vm/fresh")
        self.browser.wait_for_text("This VM has no restore point yet.")
        self.open()
        self.browser.wait_for_text("no point yet")


class Unknown(PageCase):
    expected_messages = ("404",)

    def test_a_vm_or_a_point_that_is_not_there_is_an_error_in_words(self):
        self.register("vm", [MIB])
        self.points(1)
        self.open("#/vm/other")
        self.browser.wait_for_text("VM not found")
        self.open("#/vm/vm/backup-vm-1")
        self.browser.wait_for_text("This point is not there.")


class Contents(LineCase):
    """All that is shown of a varve that has been at work for weeks."""

    @classmethod
    def setUpClass(cls):
        cls.shared = PageCase()
        cls.addClassCleanup(cls.shared.doCleanups)
        cls.shared.setUp()
        cls.shared.weeks_of_work()

    def setUp(self):
        for name in ("dir", "node", "hub", "browser"):
            setattr(self, name, getattr(self.shared, name))
        self.look_afresh()

    def test_every_view_shows_what_the_api_says(self):
        self.overview()
        self.one_vm()
        self.one_point()
        self.other_views()
        self.assert_stays_at_home()

    def rows(self, selector="main table tbody tr"):
        return self.browser.run(
            "return [...document.querySelectorAll(arguments[0])].map(row => row.innerText)", selector
        )

    def overview(self):
        self.open()
        self.browser.wait_for_text("db01", "main")
        rows = {row.split()[0]: row for row in self.rows()}
        self.assertEqual(set(rows), {"web01", "db01", "mail", "build-runner", "files"})
        self.assertIn("late", rows["build-runner"])
        self.assertIn("2 d 5 h ago", rows["build-runner"])
        self.assertIn("good", rows["web01"])
        self.assertIn("14 points", rows["web01"])
        self.assertIn("last backup failed", rows["mail"])
        self.assertIn("32.0 GiB in 2", rows["db01"])
        self.assertTrue(self.rows()[0].startswith("build-runner"), "what needs attention is first")

    def one_vm(self):
        self.open("#/vm/db01")
        self.browser.wait_for_text("Restore points")
        self.assertEqual(self.browser.count(".timeline a.point"), 10)
        self.assertEqual(self.browser.count(".timeline a.full"), 1)
        self.browser.wait("return document.querySelectorAll('.chart canvas').length === 2")
        self.open("#/vm/web01")
        self.browser.wait_for_text("verified", "main table")
        self.open("#/vm/files")
        self.browser.wait_for_text("until", "main table")

    def one_point(self):
        points = self.hub.get("/points", vm_name="web01").body["points"]
        newest, before = points[0], points[1]
        changes = self.hub.get(f"/backups/{newest['backup_id']}/changes", since=before["backup_id"]).body
        self.open(f"#/vm/web01/{newest['backup_id']}")
        self.browser.wait_for_text("Regions touched")
        shown = self.browser.text(".map-place .facts")
        self.assertIn(f"{changes['bytes'] / MIB:.2f} MiB" if changes["bytes"] >= MIB else "KiB", shown)
        self.assertIn(str(changes["count"]), shown)
        painted = self.browser.run("""
            const canvas = document.querySelector('canvas.heat'), pen = canvas.getContext('2d');
            const { data } = pen.getImageData(0, 0, canvas.width, canvas.height), colours = new Set();
            for (let at = 0; at < data.length; at += 4) if (data[at + 3]) colours.add(data.slice(at, at + 3).join());
            return colours.size;""")
        self.assertGreaterEqual(painted, 2, "untouched and changed regions differ")
        lines = self.browser.text(".lines")
        for tool in ("nbdcopy -- ", "qemu-img convert -p -f raw", "qemu-system-x86_64 -m 2G -snapshot", "nbdinfo -- "):
            self.assertIn(tool, lines)
        self.assertIn(newest["uris"][0], lines)

    def other_views(self):
        self.open("#/repositories")
        self.browser.wait_for_text("if nothing is deleted")
        self.browser.wait_for_text("keeps each backup 30 days")
        self.open("#/history")
        self.browser.wait_for_text("the source stopped answering")
        self.open("#/tasks")
        self.browser.wait_for_text("14 images of 14, all sound")
        self.open("#/exports")
        self.browser.wait_for_text("db01 disk 1")

    def assert_stays_at_home(self):
        home = urllib.parse.urlsplit(self.hub.url).netloc
        requests = [(url, status) for url, status in self.browser.requests() if not url.startswith(("data:", "chrome"))]
        self.assertGreater(len(requests), 30)
        self.assertEqual({urllib.parse.urlsplit(url).netloc for url, _ in requests}, {home})
        wrong = [(url, status) for url, status in requests if status not in (200, 304, None) and "/events" not in url]
        self.assertEqual(wrong, [])

    def test_a_copied_line_copies_the_point(self):
        """The line is run by a shell, as a person would."""
        point = self.hub.get("/points", vm_name="web01", point="latest").body["points"][0]
        self.open(f"#/vm/web01/{point['backup_id']}")
        self.browser.wait_for_text("nbdinfo -- ")
        line = self.line("nbdinfo")
        shown = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=60)
        self.assertEqual(shown.returncode, 0, shown.stderr)
        self.assertIn(str(20 * GIB), shown.stdout)

    def test_the_keyboard_reaches_everything_in_order(self):
        self.open()
        self.browser.wait_for_text("db01", "main")
        self.browser.run("document.body.focus()")
        walk = []
        for _ in range(12):
            self.browser.type("Tab")
            walk.append(self.browser.focused())
        views = ["Overview", "Repositories", "History", "Tasks", "Exports"]
        self.assertEqual(walk[:8], ["Skip to the content", "varve", *views, "Read-only"])
        self.assertTrue(self.browser.run("return getComputedStyle(document.activeElement).outlineStyle !== 'none'"))
        self.browser.run("document.querySelector('main tbody a').focus()")
        self.browser.type("Enter")
        self.browser.wait_for_text("Restore points")
        self.assertEqual(self.browser.run("return document.activeElement.id"), "main")
        self.browser.run("document.querySelector('.skip').focus()")
        self.browser.type("Enter")
        self.assertEqual(self.browser.run("return document.activeElement.id"), "main")

    def test_a_narrow_screen_needs_no_scrolling_sideways(self):
        self.browser.size(360, 740)
        point = self.hub.get("/points", vm_name="db01", point="latest").body["points"][0]["backup_id"]
        for place in ("", "vm/db01", f"vm/db01/{point}", "repositories", "history", "tasks", "exports"):
            with self.subTest(place=place):
                self.open(f"#/{place}")
                self.browser.wait("""
                    const waits = document.querySelector('.notice.quiet')?.innerText.includes('…');
                    return document.querySelector('main h1') && !waits;""")
                wide = self.browser.run("""
                    const width = document.documentElement.clientWidth;
                    if (document.documentElement.scrollWidth <= width) return [];
                    return [...document.querySelectorAll('main *, header *')]
                      .filter(e => e.getBoundingClientRect().right > width + 1 && !e.closest('.timeline ol'))
                      .map(e => e.outerHTML.slice(0, 200));""")
                self.assertEqual(wide, [])

    def test_dark_and_still_as_the_reader_prefers(self):
        ground = "return getComputedStyle(document.documentElement).backgroundColor"
        self.open()
        light = self.browser.run(ground)
        self.browser.prefer(prefers_color_scheme="dark", prefers_reduced_motion="reduce")
        self.assertNotEqual(self.browser.run(ground), light)
        self.assertEqual(self.browser.run("return matchMedia('(prefers-reduced-motion: reduce)').matches"), True)
        self.open("#/vm/web01")
        self.browser.wait_for_text("Restore points")


class Writer:
    """A client that sends at its ease until stop(): what a backup that runs looks like."""

    def __init__(self, case, vm_name, size_bytes, backup_type="incremental", pause=0.05, repository_id="1"):
        self.case, self.size, self.pause = case, size_bytes, pause
        self.job = case.start(vm_name, backup_type, repository_id)
        self.handle = case.connect(self.job)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        noise, at = os.urandom(MIB), 0
        while not self.ended.wait(self.pause):
            self.handle.pwrite(noise, at % (self.size - MIB))
            self.handle.zero(MIB, (at + 8 * MIB) % (self.size - MIB))
            at += 16 * MIB

    def stop(self):
        self.ended.set()
        self.thread.join()

    def complete(self):
        self.stop()
        self.case.complete_ok(self.job, f"u/{time.time_ns()}", 0)


class Live(PageCase):
    def test_a_backup_is_seen_while_it_runs_and_its_point_when_it_has_ended(self):
        self.register("vm", [GIB])
        self.open()
        self.browser.wait_for_text("No backup is running.")
        self.browser.run("window.notReloaded = true")
        writer = Writer(self, "vm", GIB, "full")
        try:
            self.browser.wait("return document.querySelector('main progress')?.value > 0")
            first = self.browser.run("return document.querySelector('main progress').value")
            self.browser.wait("return document.querySelector('main progress').value > arguments[0]", first)
            row = self.browser.text("main section tbody tr")
            for part in ("vm", "full", "MiB"):
                self.assertIn(part, row)
            self.assertRegex(row, r"iB/s")
        finally:
            writer.complete()
        self.browser.wait_for_text("No backup is running.")
        self.browser.wait_for_text("1 point", "main")
        self.assertTrue(self.browser.run("return window.notReloaded"))
        wanted = "live" if self.has_events() else "every 2 s"
        self.assertEqual(self.browser.text("#link-state").strip(), wanted)

    def test_what_the_filter_says_stays_while_the_page_goes_on(self):
        for name in ("alpha", "beta"):
            self.register(name, [MIB])
        self.open()
        self.browser.wait_for_text("beta", "main")
        self.browser.click("input[type=search]")
        self.browser.type("alp")
        self.browser.wait("return document.querySelectorAll('main table tbody tr').length === 1")
        self.points(1, vm_name="beta")
        self.browser.run("document.dispatchEvent(new CustomEvent('varve-changed'))")
        time.sleep(1)  # it draws half a second after a change
        self.browser.type("h")
        self.assertEqual(self.browser.run("return document.activeElement.value"), "alph")
        self.assertEqual(self.browser.count("main table tbody tr"), 1)


class Pure(PageCase):
    """What computes, tried in the browser that runs it."""

    def answer(self, module, expression, *given):
        return self.browser.run(
            f"const given = arguments; return import('/page/{module}').then((m) => {expression})", *given
        )

    def test_numbers_are_written_as_people_read_them(self):
        self.open()
        for expression, text in (
            ("bytes(512)", "512 bytes"), ("bytes(1)", "1 byte"), ("bytes(10000)", "9.77 KiB"),
            ("bytes(1.5 * 2 ** 40)", "1.50 TiB"), ("rate(50e6)", "47.7 MiB/s"), ("share(0)", "0 %"),
            ("share(0.0005)", "<0.1 %"), ("share(0.999)", "99 %"),
            ("duration(45)", "45 s"), ("duration(19200)", "5 h 20 min"), ("duration(86400 * 30 + 4000)", "30 d"),
            ("shellWord('a b')", "'a b'"), ("shellWord(\"it's\")", "'it'\\''s'"),
        ):  # fmt: skip
            with self.subTest(expression=expression):
                self.assertEqual(self.answer("format.js", f"m.{expression}"), text)

    def test_a_repository_is_full_when_the_line_through_its_days_says_so(self):
        self.open()
        steady = [{"date": f"2026-01-{day:02}", "bytes_stored": 10} for day in range(1, 11)]
        gaps = [steady[0], steady[4], steady[9]]
        for days, free, wanted in ((steady, 100, 10), (gaps, 100, 50.0), (steady[:2], 100, None),
                                   ([{**day, "bytes_stored": 0} for day in steady], 100, None)):  # fmt: skip
            left = self.answer("forecast.js", "m.daysUntilFull(given[0], given[1])", days, free)
            self.assertEqual(left if left is None else round(left, 1), wanted)

    def test_events_are_read_however_they_are_cut(self):
        self.open()
        stream = ": here\r\n\r\nevent: jobs\ndata: {\"a\":\ndata: 1}\n\ndata: x\n\n"
        for size in (1, 3, 1000):
            seen = self.answer("api.js", """{
                const [text, size] = given, seen = [], take = m.eventParser((name, data) => seen.push([name, data]));
                for (let at = 0; at < text.length; at += size) take(text.slice(at, at + size));
                return seen;
            }""", stream, size)  # fmt: skip
            self.assertEqual(seen, [["jobs", '{"a":\n1}'], ["message", "x"]])


class Events(PageCase):
    """What the server tells by itself, from a server that tells what the test says."""

    expected_messages = ("ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION")

    def test_what_is_told_is_shown_at_once_and_asked_for_when_nothing_is_told(self):
        self.register("vm", [GIB])
        job = self.start("vm")
        running = self.hub.get("/backups", status="running").body
        stub = EventStub(self.hub.url)
        self.addCleanup(stub.close)
        running["backups"][0].update(bytes_transferred=5 << 20, progress_percent=0.5, transfer_speed_bps=1 << 20)
        stub.tell(running)
        self.browser.open(f"{stub.url}/#/")
        self.browser.wait_for_text("5.00 MiB", "main")
        self.assertEqual(self.browser.text("#link-state").strip(), "live")
        running["backups"][0].update(bytes_transferred=700 << 20, progress_percent=70.0)
        stub.tell(running)
        self.browser.wait_for_text("700 MiB", "main", seconds=1)
        asked = [url for url, _ in self.browser.requests() if "status=running" in url]
        self.assertEqual(asked, [], "nothing is asked for while the server tells")
        stub.cut()
        self.browser.wait("return document.querySelector('#link-state').innerText.includes('every 2 s')")
        self.browser.wait_for_text("0 bytes", "main")  # what the real one says
        self.browser.wait("return document.querySelector('#link-state').innerText.includes('live')")
        self.assertEqual(stub.streams, 2)
        self.browser.open("about:blank")
        self.hub.api("POST", f"/backups/{job['backup_id']}/cancel")


class Lost(PageCase):
    expected_messages = ("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_INCOMPLETE_CHUNKED_ENCODING",
                         "ERR_EMPTY_RESPONSE")  # fmt: skip

    def test_a_server_that_is_gone_is_said_and_its_return_too(self):
        self.hub.options["http"] = self.hub.ready["http"]  # the same port again
        self.register("vm", [MIB])
        self.open()
        self.browser.wait_for_text("vm", "main table")
        self.assertEqual(self.hub.stop(), 0)
        self.browser.wait_for_text("not reached", "#link-state")
        self.assertEqual(self.browser.text("main table tbody th"), "vm", "what was known is still there")
        self.hub.start()
        self.browser.wait("return !document.querySelector('#link-state').innerText.includes('not reached')")


class Changes(PageCase):
    def give_token(self, text):
        self.browser.click("#access")
        self.browser.type(text)
        self.browser.type("Enter")

    def test_without_a_token_there_is_nothing_to_press_and_with_one_there_is(self):
        self.register("vm", [GIB])
        self.points(1)
        self.open("#/vm/vm")
        self.browser.wait_for_text("Restore points")
        self.assertNotIn("Verify", self.browser.text())
        self.give_token("anything")
        self.browser.wait_for_text("Verify all points")
        self.browser.click("button[data-focus=verify]")
        self.browser.wait_for_text("Read every point of vm")
        self.browser.type("Enter")  # the button that has the focus
        self.browser.wait_for_text("The verification has begun")
        begun = self.hub.get("/verifications").body["verifications"]
        self.assertEqual([each["vm_name"] for each in begun], ["vm"])
        self.browser.click("#access")
        self.browser.wait_for_text("Forget it")
        self.browser.run("[...document.querySelectorAll('#access-form button')].at(-1).click()")
        self.browser.wait("return !document.body.innerText.includes('Verify all points')")

    def test_a_running_backup_is_cancelled_after_a_question(self):
        self.register("vm", [GIB])
        writer = Writer(self, "vm", GIB, "full")
        self.addCleanup(writer.stop)
        self.open()
        self.browser.wait("return document.querySelector('main progress')")
        self.assertNotIn("Cancel", self.browser.text("main"))
        self.give_token("anything")
        self.browser.wait("return document.querySelector('button[data-focus^=cancel]')")
        writer.stop()
        self.browser.click("button[data-focus^=cancel]")
        self.browser.wait_for_text("What has arrived is removed.")
        self.browser.type("Escape")
        self.assertEqual(self.job(writer.job["backup_id"])["status"], "running")
        self.browser.click("button[data-focus^=cancel]")
        self.browser.type("Enter")
        self.browser.wait_for_text("was cancelled")
        self.assertEqual(self.job(writer.job["backup_id"])["status"], "cancelled")


    def test_a_press_that_lasts_while_news_come_is_still_a_click(self):
        self.register("vm", [GIB])
        writer = Writer(self, "vm", GIB, "full")
        self.addCleanup(writer.stop)
        self.open()
        self.give_token("anything")
        self.browser.wait("return document.querySelector('button[data-focus^=cancel]')")
        first = self.browser.text("main")
        self.browser.press("button[data-focus^=cancel]", while_held=lambda: time.sleep(3))
        self.browser.wait_for_text("What has arrived is removed.")
        self.browser.wait("return document.querySelector('main').innerText !== arguments[0]", first)


class Token(PageCase):
    options = {"api_token": "s3cret"}
    expected_messages = ("401",)

    def test_a_server_that_asks_for_a_token_gets_it_from_the_page(self):
        self.open()
        self.browser.wait_for_text("Missing authorization header")
        self.browser.click("#access")
        self.browser.type("s3cret")
        self.browser.type("Enter")
        self.browser.wait_for_text("No VM is known yet.")
        self.assertEqual(self.browser.run("return sessionStorage.getItem('varve-token')"), "s3cret")
        self.assertEqual(self.browser.run("return localStorage.length"), 0)
        self.assertNotIn("s3cret", self.browser.run("return document.cookie + location.href"))


class Names(LineCase):
    def test_a_name_that_is_markup_is_text(self):
        name = "<img src=x onerror=document.title='taken'><b>bold</b>"
        self.register(name, [MIB], vm_path="/DC1/vm/odd")
        self.points(1, vm_name=name)
        for place in ("", f"vm/{urllib.parse.quote(name, safe='')}", "history", "exports"):
            with self.subTest(place=place):
                self.open(f"#/{place}")
                self.browser.wait_for_text(name, "main")
                self.assertEqual(self.browser.count("main img, main b > b"), 0)
        self.assertNotEqual(self.browser.run("return document.title"), "taken")

    def test_a_line_for_the_shell_quotes_what_a_shell_would_read(self):
        name = "it's $(touch taken) web,01"
        self.register(name, [MIB], vm_path="/DC1/vm/odd")
        [job] = self.points(1, vm_name=name)
        self.open(f"#/vm/{urllib.parse.quote(name, safe='')}/{job}")
        self.browser.wait_for_text("nbdinfo -- ")
        line = self.line("nbdinfo")
        shown = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=60, cwd=self.dir)
        self.assertEqual(shown.returncode, 0, shown.stderr)
        self.assertFalse((self.dir / "taken").exists())


class Many(PageCase):
    def test_a_thousand_vms_of_a_hundred_points_are_drawn_within_a_second(self):
        self.assertEqual(self.hub.stop(), 0)
        many_rows.add_vms(self.hub.catalogue, 1000, 100, int(time.time()) - 3600)
        self.hub.start()
        self.open()  # the browser's own start is not what is measured
        self.browser.wait_for_text("of 1,000", "main")
        limit, seconds = 5 if SANITIZED else 1, []
        while len(seconds) < 8 and min(seconds, default=limit) >= limit:  # the best of them: other tests run beside it
            self.open()
            self.browser.wait_for_text("of 1,000", "main")
            drawn = self.browser.run("return performance.getEntriesByName('varve-drawn').at(0).startTime")
            seconds.append(drawn / 1000)
        asked = self.browser.run("""
            return performance.getEntriesByType('resource').filter(e => e.name.includes('/api/'))
              .map(e => [new URL(e.name).pathname, Math.round(e.duration)])""")
        print(f"drawn after {', '.join(f'{each:.2f}' for each in seconds)} s; {asked}", flush=True)
        self.assertLess(min(seconds), limit)
        self.assertEqual([path for path, _ in asked].count("/api/v1/vm-contexts"), 1)
        self.assertLess(self.browser.count("main tr"), 60, "only what is seen is made")
        self.browser.click("input[type=search]")
        self.browser.type("vm-0777")
        self.browser.wait("return document.querySelectorAll('main table tbody tr').length === 1")
        self.browser.run("location.hash = '#/vm/vm-0777'")
        self.browser.wait("return document.querySelectorAll('.timeline a.point').length === 100")


class Pictures(PageCase):
    def test_the_pictures_of_the_document_are_taken(self):
        where = os.environ.get("VARVE_PICTURES")
        if not where:
            self.skipTest("VARVE_PICTURES=DIR writes them")
        self.weeks_of_work()
        writers = [Writer(self, "web01", 20 * GIB, pause=0.03),
                   Writer(self, "files", 200 * GIB, pause=0.08, repository_id="vault")]  # fmt: skip
        try:
            self.take(Path(where))
        finally:
            for writer in writers:
                writer.stop()

    def take(self, where):
        point = self.hub.get("/points", vm_name="db01", point="latest").body["points"][0]["backup_id"]
        views = {"overview": ("", "Need attention", 730), "vm": ("vm/files", "Restore points", 1000),
                 "point": (f"vm/db01/{point}", "Regions touched", 1130),
                 "repositories": ("repositories", "if nothing is deleted", 690),
                 "history": ("history", "Stored each day", 900)}  # fmt: skip
        for name, view in views.items():
            self.picture(where / f"page-{name}.png", *view)
        self.browser.prefer(prefers_color_scheme="dark")
        self.picture(where / "page-overview-dark.png", *views["overview"])
        self.browser.prefer(prefers_color_scheme="light")
        self.picture(where / "page-narrow.png", *views["overview"], width=360)

    def picture(self, path, place, words, height, width=1280):
        self.browser.size(width, height)
        self.open(f"#/{place}")
        self.browser.wait_for_text(words, "main")
        time.sleep(8 if not place else 1)  # rates are measured over some seconds
        self.browser.screenshot(path)
        print(f"{path.name}: {path.stat().st_size >> 10} kB", flush=True)


if __name__ == "__main__":
    run.main()
