# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium, driven over the WebDriver protocol of Debian's chromium-driver."""

import base64
import json
import os
import shutil
import subprocess
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

from harness import scratch

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the member that names an element, by the standard
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c", "Shift": "\ue008", "Space": " "}
START_SECONDS = 30
CLICK_ATTEMPTS = 5
# Nothing of the browser's own leaves the machine, so that whatever leaves is the page's.
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
         "--disable-default-apps", "--no-proxy-server", "--hide-scrollbars", "--force-color-profile=srgb"]  # fmt: skip


def require():
    """A machine without the two programs skips the test."""
    for program, package in (("chromium", "chromium"), ("chromedriver", "chromium-driver")):
        if not shutil.which(program):
            raise unittest.SkipTest(f"no {program}: scripts/install-packages test installs {package}")


class Browser:
    """One window, until close()."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = scratch.free_port()
        environment = {**os.environ, "HOME": str(self.directory), "TMPDIR": str(self.directory),
                       "XDG_CONFIG_HOME": str(self.directory / "config"), "XDG_CACHE_HOME": str(self.directory / "cache")}  # fmt: skip
        with open(self.directory / "driver.log", "wb") as log:
            self.driver = subprocess.Popen(["chromedriver", f"--port={self.port}"], stdout=log, stderr=log,
                                           stdin=subprocess.DEVNULL, env=environment)  # fmt: skip
        self.session = None
        try:
            scratch.wait_until(self._is_up, START_SECONDS, "chromedriver answers")
            self.session = self._new_session()
        except BaseException:
            self.close()
            raise

    def _is_up(self):
        assert self.driver.poll() is None, (self.directory / "driver.log").read_text(errors="replace")
        try:
            return self._send("GET", "/status")["ready"]
        except (urllib.error.URLError, ConnectionError):
            return False

    def _new_session(self):
        options = {
            "args": [*FLAGS, f"--user-data-dir={self.directory / 'profile'}"],
            "binary": shutil.which("chromium"),
        }
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "timeouts": {"script": 30_000},
                  "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}  # fmt: skip
        answer = self._send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}}, timeout=90)
        return answer["sessionId"]

    def _send(self, method, path, body=None, timeout=60):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data,
                                         {"Content-Type": "application/json"}, method=method)  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as refusal:
            value = json.load(refusal)["value"]
            raise AssertionError(f"{method} {path}: {value['error']}: {value['message'][:800]}") from None

    def call(self, method, path, body=None):
        return self._send(method, f"/session/{self.session}{path}", body)

    def close(self):
        if self.session:
            try:
                self.call("DELETE", "")
            except (AssertionError, OSError):
                pass
        self.session = None
        scratch.end_process(self.driver)

    # --- the page ---

    def open(self, url):
        self.call("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        """What the function body `script` returns; arguments[0] and so on are its arguments."""
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script, *arguments, seconds=20, what=None):
        """The first true value of `script`."""
        end = time.monotonic() + seconds
        while not (value := self.run(script, *arguments)):
            if time.monotonic() > end:
                raise AssertionError(f"after {seconds} s still not: {what or script}\n{self.text()}\n{self.console()}")
            time.sleep(0.02)
        return value

    def text(self, selector="body"):
        """What is read there, without what is not shown."""
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def wait_for_text(self, text, selector="body", seconds=20):
        script = "return (document.querySelector(arguments[0])?.innerText ?? '').includes(arguments[1])"
        self.wait(script, selector, text, seconds=seconds, what=f"'{text}' in {selector}")

    def count(self, selector):
        return self.run("return document.querySelectorAll(arguments[0]).length", selector)

    def click(self, selector):
        """As a mouse does: what lies above it gets the click."""
        self._with_element(selector, lambda found: self.call("POST", f"/element/{found[ELEMENT]}/click", {}))

    def press(self, selector, while_held):
        """A click whose button is held down while `while_held()` runs."""
        move = {"type": "pointerMove", "duration": 0, "x": 0, "y": 0}
        down = {"type": "pointerDown", "button": 0}
        self._with_element(selector, lambda found: self._mouse({**move, "origin": found}, down))
        while_held()
        self._mouse({"type": "pointerUp", "button": 0})

    def _with_element(self, selector, action):
        """Once more if it was drawn anew between being found and being used."""
        for attempt in range(CLICK_ATTEMPTS):
            found = self.call("POST", "/element", {"using": "css selector", "value": selector})
            try:
                return action(found)
            except AssertionError as failure:
                if "stale element" not in str(failure) or attempt + 1 == CLICK_ATTEMPTS:
                    raise

    def _mouse(self, *actions):
        pointer = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}
        self.call("POST", "/actions", {"actions": [pointer]})

    def type(self, text):
        """To whatever has the focus; a key is named, as "Tab"."""
        actions = []
        for each in [KEYS[text]] if text in KEYS else text:
            actions += [{"type": "keyDown", "value": each}, {"type": "keyUp", "value": each}]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def focused(self):
        """The text of what has the focus, or what names it."""
        return self.run("""
            const e = document.activeElement;
            return e.innerText || e.getAttribute('aria-label') || e.id || e.tagName;""")

    # --- the window ---

    def cdp(self, command, **parameters):
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def size(self, width, height, scale=1):
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.cdp("Emulation.setDeviceMetricsOverride", **metrics)

    def prefer(self, **features):
        """prefers_color_scheme="dark", prefers_reduced_motion="reduce"."""
        wanted = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.cdp("Emulation.setEmulatedMedia", features=wanted)

    def screenshot(self, path):
        Path(path).write_bytes(base64.b64decode(self.call("GET", "/screenshot")))

    # --- what it did ---

    def console(self):
        """The messages since the last call: what the page says, and what the browser says of it."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.call("POST", "/se/log", {"type": "browser"})]

    def requests(self):
        """The addresses asked for since the last call, with the status of the answer, None until there is one."""
        log = self.call("POST", "/se/log", {"type": "performance"})
        events = [json.loads(entry["message"])["message"] for entry in log]
        asked = {}
        for event in events:
            parameters = event["params"]
            if event["method"] == "Network.requestWillBeSent":
                asked.setdefault(parameters["requestId"], [parameters["request"]["url"], None])
            elif event["method"] == "Network.responseReceived" and parameters["requestId"] in asked:
                asked[parameters["requestId"]][1] = parameters["response"]["status"]
        return list(asked.values())
