#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`varve serve` as a service: what the manager is told, SIGHUP, credentials, the journal, the unit's restrictions."""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run, scratch, tls_files  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.daemon import ROOT, Daemon, binary, http  # noqa: E402
from harness.nbd_wire import Wire  # noqa: E402
from harness.service_manager import NotifySocket, stopped_thread  # noqa: E402

UNITS = ROOT / "contrib" / "systemd"
WATCHDOG_SECONDS = 0.4  # what the tests' manager asks for


def varve(*words, environment=None, status=0, **more):
    done = subprocess.run([binary(), *map(str, words)], capture_output=True, text=True, timeout=60, check=False,
                          env=None if environment is None else {**os.environ, **environment}, **more)  # fmt: skip
    assert done.returncode == status, f"varve {words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stderr if status else done.stdout


class ServiceCase(HubCase):
    """A varve with a manager that listens, and a configuration file beside the options."""

    config = ""

    def setUp(self):
        self.base = self.enterContext(scratch.directory())
        self.manager = NotifySocket(self.base / "notify")
        self.addCleanup(self.manager.close)
        self.file = self.base / "varve.toml"
        self.write(self.config)
        environment = {**os.environ, **self.environment()}
        self.options = {"config": self.file, "environment": environment, **self.options}
        super().setUp()

    def write(self, text, mode=0o600):
        self.file.write_text(text)
        self.file.chmod(mode)

    def environment(self):
        return {"NOTIFY_SOCKET": str(self.manager.path), "WATCHDOG_USEC": str(int(WATCHDOG_SECONDS * 1e6))}

    def hang_up(self):
        """SIGHUP; returns the lines of the log that it makes."""
        before = len(self.hub.log)
        self.manager.drain()
        self.hub.process.send_signal(signal.SIGHUP)
        reloading = self.manager.wait_for("RELOADING", "^1$")
        self.assertRegex(reloading["MONOTONIC_USEC"], r"^\d+$")
        self.manager.wait_for("READY", "^1$")
        return self.hub.log[before:]


class Manager(ServiceCase):
    def test_the_manager_is_told_when_it_serves_what_it_does_and_that_it_stops(self):
        said = self.manager.wait_for("READY", "^1$")
        self.assertEqual(said["STATUS"], "serving")
        self.assertTrue(self.hub.options["ready_file"].exists(), "ready before the ready file")
        self.manager.wait_for("STATUS", "^no backup is running$")
        self.register("vm", [MIB])
        self.start("vm")
        self.manager.wait_for("STATUS", "^1 backup is running$")
        self.assertEqual(self.hub.stop(), 0)
        self.manager.wait_for("STOPPING", "^1$")

    def test_a_missing_repository_is_in_the_status(self):
        shutil.rmtree(self.hub.repository)
        self.manager.wait_for("STATUS", "repository 1 is unavailable: ", seconds=30)

    def test_a_control_thread_that_hangs_is_not_called_alive(self):
        """What the watchdog of systemd kills and starts again."""
        self.manager.wait_for("READY")
        for _ in range(3):
            self.manager.wait_for("WATCHDOG", "^1$", seconds=WATCHDOG_SECONDS * 5)
        try:
            with stopped_thread(self.hub.process.pid, "varve-control"):
                self.manager.listen(WATCHDOG_SECONDS)  # an answer that was on its way
                self.manager.drain()
                self.assertIsNone(self.manager.listen(WATCHDOG_SECONDS * 3), "a sign of life from a thread that stands")
        except OSError as refused:
            self.skipTest(f"a thread of another process cannot be stopped here: {refused}")
        self.manager.wait_for("WATCHDOG", "^1$", seconds=10)

    def test_children_and_later_commands_do_not_speak_for_the_service(self):
        variables = Path(f"/proc/{self.hub.process.pid}/environ").read_bytes()
        self.assertIn(b"NOTIFY_SOCKET", variables)  # as it was started; getenv no longer finds it
        self.manager.wait_for("READY")
        varve("--version", environment=self.environment())
        self.assertEqual([said for said in self.manager.drain() if "READY" in said], [])


class ApiToken(ServiceCase):
    config = 'api_token = "alpha"\n'

    def status(self, token):
        return http("GET", self.hub.url + "/api/v1/backups", headers={"Authorization": f"Bearer {token}"}).status

    def test_a_token_that_was_changed_is_worth_nothing_after_sighup(self):
        self.assertEqual([self.status("alpha"), self.status("beta")], [200, 401])
        self.write('api_token = "beta"\n')
        log = self.hang_up()
        self.assertIn("changed and in force: api-token", log)
        self.assertNotIn("beta", log)
        self.assertEqual([self.status("alpha"), self.status("beta")], [401, 200])
        self.write("")
        self.hang_up()
        self.assertEqual([self.status("beta"), self.status("")], [401, 401])


class HangUp(ServiceCase):
    config = 'first_connect = "10m"\n'

    def test_settings_that_can_change_while_it_runs_do_so_and_the_others_are_named(self):
        self.write('first_connect = "300ms"\nlog_level = "debug"\nrepository = "/elsewhere"\nthreads = 1\n')
        log = self.hang_up()
        self.assertIn("changed and in force: first-connect, log-level", log)
        self.assertIn("changed, but in force only after a restart: threads", log)  # --repository wins over the file
        self.register("vm", [MIB])
        job = self.start("vm")
        self.wait_for_status(job["backup_id"], "failed", 10)
        self.assertIn("no client connected within", self.job(job["backup_id"])["error_message"])
        self.write('first_connect = "10m"\nthreads = 1\n')
        log = self.hang_up()
        self.assertIn("changed and in force: first-connect, log-level", log)
        self.assertIn("restart: threads", log, "what waits is told again")

    def test_a_file_that_cannot_be_followed_changes_nothing(self):
        self.write('log_level = "debug"\nfirst_connect = "soon"\n')
        log = self.hang_up()
        self.assertRegex(log, rf"error .*nothing has changed: {re.escape(str(self.file))}:2: first-connect: ")
        self.write("log_level = [\n")
        self.assertIn(f"nothing has changed: {self.file}:", self.hang_up())
        self.assertNotIn(" debug ", self.hub.log)
        self.assertEqual(self.hub.root("/health").status, 200)

    def test_a_certificate_that_openssl_refuses_changes_nothing(self):
        """GnuTLS, which NBD has, takes it: without a look ahead the log level would change and HTTP would not"""
        weak = self.dir / "weak"
        weak.mkdir()
        made = subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-days", "2", "-subj", "/CN=localhost",
             "-keyout", weak / "server-key.pem", "-out", weak / "server-cert.pem"], capture_output=True, check=False)  # fmt: skip
        self.assertEqual(made.returncode, 0, made.stderr)
        (weak / "ca-cert.pem").write_bytes((weak / "server-cert.pem").read_bytes())
        self.write(f'log_level = "debug"\ntls_certificates = "{weak}"\n')
        said = subprocess.run([binary(), "config", "check", self.file], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(said.returncode, 2, said)
        self.assertIn("key too small", said.stderr)


class NewCertificates(ServiceCase):
    def setUp(self):
        self.files = self.enterContext(scratch.directory())
        self.old = tls_files.Authority(self.files / "old", "old")
        self.old.server(self.files / "server")
        self.options = {"tls_certificates": self.files / "server", "tls": "require"}
        super().setUp()

    def is_shown(self, authority):
        """Whether a new client that trusts this authority gets in."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(authority.certificate)
        try:
            with Wire(("127.0.0.1", self.hub.nbd_port)) as wire:
                wire.hello().start_tls(context)
            return True
        except (ssl.SSLError, OSError):
            return False

    def test_new_connections_get_the_new_certificate_and_bad_files_leave_the_old_one(self):
        self.assertTrue(self.is_shown(self.old))
        new = tls_files.Authority(self.files / "new", "new")
        new.server(self.files / "server")
        self.assertFalse(self.is_shown(new), "before SIGHUP")
        self.assertIn("TLS credentials just read", self.hang_up())
        self.assertTrue(self.is_shown(new))
        self.assertFalse(self.is_shown(self.old))
        (self.files / "server" / "server-key.pem").write_text("no key")
        self.assertIn("nothing has changed", self.hang_up())
        self.assertTrue(self.is_shown(new))


class Directories(unittest.TestCase):
    def setUp(self):
        self.dir = self.enterContext(scratch.directory())

    def shown(self, *words, **environment):
        text = varve("config", "show", "--json", *words, environment=environment)
        return {entry["setting"]: entry for entry in json.loads(text)}

    def test_the_state_directory_of_the_service_is_used(self):
        file = self.dir / "empty.toml"
        file.touch()
        shown = self.shown("--config", file, STATE_DIRECTORY=f"{self.dir}/one:{self.dir}/two")
        self.assertEqual(shown["repository"]["value"], f"{self.dir}/one/repository")
        self.assertEqual(shown["catalogue"]["value"], f"{self.dir}/one/catalogue.db")
        self.assertEqual(shown["repository"]["from"], "default")

    @unittest.skipUnless(os.geteuid() == 0, "only root can become another user")
    def test_a_user_without_a_home_is_told_what_to_give(self):
        self.dir.chmod(0o755)
        copy = shutil.copy(binary(), self.dir / "varve")
        done = subprocess.run([copy, "serve"], env={"HOME": "/nonexistent"}, user=65534, group=65534, extra_groups=[],
                              capture_output=True, text=True, timeout=30, check=False)  # fmt: skip
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("the home directory /nonexistent does not exist; give --repository and --catalogue", done.stderr)


class Credentials(ServiceCase):
    """LoadCredential= of a unit: files in a directory that only the service can read."""

    def environment(self):
        place = self.base / "credentials"
        if not place.is_dir():
            place.mkdir(mode=0o700)
            (place / "varve.api-token").write_text("a-token\n")
            tls_files.keys_file(place / "varve.tls-psk", {"alice": bytes(range(32))})
            for path in place.iterdir():
                path.chmod(0o440)  # as systemd 252 shows a file that an ACL gives to the service
        return {**super().environment(), "CREDENTIALS_DIRECTORY": str(place)}

    def test_token_and_keys_are_taken_from_there_and_not_shown(self):
        self.assertEqual(http("GET", self.hub.url + "/api/v1/repositories").status, 401)
        allowed = http("GET", self.hub.url + "/api/v1/repositories", headers={"Authorization": "Bearer a-token"})
        self.assertEqual(allowed.status, 200, allowed)
        text = varve("config", "show", "--config", self.file, environment=self.environment())
        self.assertRegex(text, r"(?m)^# api_token is set and not shown +# credential varve.api-token$")
        self.assertRegex(text, r'(?m)^tls_psk = ".*/credentials/varve.tls-psk" +# credential varve.tls-psk$')
        self.assertNotIn("a-token", text)
        self.assertNotIn("a-token", subprocess.run(["ps", "-o", "args=", "-p", str(self.hub.process.pid)],
                                                   capture_output=True, text=True, check=True).stdout)  # fmt: skip

    def test_any_path_can_name_one(self):
        self.write('tls_psk = "$CREDENTIALS_DIRECTORY/varve.tls-psk"\n')
        varve("config", "check", self.file, environment=self.environment())
        variables = {name: value for name, value in os.environ.items() if name != "CREDENTIALS_DIRECTORY"}
        done = subprocess.run([binary(), "config", "check", self.file], env=variables, capture_output=True, text=True,
                              timeout=30, check=False)  # fmt: skip
        self.assertEqual(done.returncode, 2)
        self.assertIn(f"{self.file}:1: tls-psk: $CREDENTIALS_DIRECTORY/varve.tls-psk: CREDENTIALS_DIRECTORY is not set",
                      done.stderr)  # fmt: skip


class Config(unittest.TestCase):
    def setUp(self):
        self.dir = self.enterContext(scratch.directory())
        self.file = self.dir / "varve.toml"

    def check(self, text, status=0, mode=0o644):
        self.file.write_text(text)
        self.file.chmod(mode)
        return varve("config", "check", self.file, status=status)

    def test_check_names_file_line_and_cause(self):
        self.assertEqual(self.check('stall = "5m"\n'), f"{self.file}: in order\n")
        self.assertIn(f'{self.file}:2: "repository" must be a text in quotes', self.check("\nrepository = 5\n", 2))
        self.assertIn(f"{self.file}:1: stall: ", self.check('stall = "soon"\n', 2))
        self.assertIn("not a loopback address", self.check('http = "192.0.2.1:8082"\n', 2))
        self.assertIn("ca-cert.pem", self.check(f'tls_certificates = "{self.dir}"\n', 2))
        self.assertIn("node-url", self.check('node_url = "nonsense"\n', 2))
        self.assertIn("No such file", varve("config", "check", self.dir / "missing.toml", status=2))

    def test_secrets_are_for_the_owner_and_the_group_only(self):
        secrets = '[secrets.vc1]\nusername = "u"\npassword = "p"\n'
        for text in (secrets, 'api_token = "t"\n'):
            self.assertIn("chmod 0640", self.check(text, 2, mode=0o644))
            self.assertIn("chmod 0640", self.check(text, 2, mode=0o660))
            self.check(text, mode=0o640)
            self.check(text, mode=0o600)
        if os.geteuid() == 0:
            os.chown(self.file, 65534, 0)
            self.assertIn("belongs to another user", varve("config", "check", self.file, status=2))

    def test_show_says_each_value_and_its_origin(self):
        self.file.write_text('stall = "5m"\nnbd = ["127.0.0.1:1", "[::1]:2"]\n'
                             'notify_url = "https://hooks.example.com/T0/hush"\n'
                             '[secrets.vc1]\nusername = "u"\npassword = "hush"\n')  # fmt: skip
        self.file.chmod(0o600)
        text = varve("config", "show", "--config", self.file)
        self.assertRegex(text, rf'(?m)^stall = "5m" +# {re.escape(str(self.file))}:1$')
        self.assertRegex(text, r'(?m)^nbd = \["127.0.0.1:1", "\[::1\]:2"\] +# ')
        self.assertRegex(text, r'(?m)^commit_interval = "1s" +# default$')
        self.assertIn('[secrets."vc1"]\nusername = "u"\n# password is set and not shown', text)
        self.assertIn('notify_url = ["https://hooks.example.com/…"]', text)
        self.assertNotIn("hush", text)
        self.assertNotIn("hush", varve("config", "show", "--json", "--config", self.file))

    def test_the_example_says_every_default_and_can_be_followed(self):
        example = varve("config", "example")
        self.assertEqual(self.check(example), f"{self.file}: in order\n")
        settings = re.findall(r"(?m)^#([a-z_]+) = ", example)
        help_text = varve("serve", "--help")
        for name in settings:
            if name not in ("username", "password"):
                self.assertIn("--" + name.replace("_", "-"), help_text)
        # Said in so many words, the defaults are the defaults.
        said = [line[1:] for line in example.splitlines() if re.match("#[a-z_]+ = ", line)]
        # The last ones are of a table, and some have no default: an example stands there, which is no metavariable.
        examples = ("space_reserve", "api_token_file", "http_tls", "tls ", "ports_tls", "allow_address", "threads")
        self.assertEqual([line for line in said if re.search(r'= \[?"[A-Z:]+"\]?$', line)], [])
        said = [line for line in said if not line.startswith(("username", "password", "api_token_file"))]
        self.assertEqual(self.check("\n".join(said), mode=0o600), f"{self.file}: in order\n")
        said = [line for line in said if not line.startswith(examples)]
        self.file.write_text("\n".join(said) + "\n")
        self.file.chmod(0o600)
        shown = json.loads(varve("config", "show", "--json", "--config", self.file))
        empty = self.dir / "empty.toml"
        empty.touch()
        usual = varve("config", "show", "--json", "--config", empty, environment={"STATE_DIRECTORY": "/var/lib/varve"})
        for entry, default in zip(shown, json.loads(usual)):
            self.assertEqual((entry["setting"], entry["value"]), (default["setting"], default["value"]))


class CatalogueBackup(HubCase):
    def test_a_copy_is_taken_while_a_backup_runs_and_can_take_the_place_of_the_catalogue(self):
        self.register("vm", [MIB])
        point = self.quick_backup("vm", ["u/1"], writes=[(0, b"x" * 65536)])["backup_id"]
        running = self.start("vm")
        handle = self.connect(running)
        handle.pwrite(b"y" * 65536, 0)
        copy = self.dir / "copy.db"
        command = ("catalogue", "backup", copy, "--catalogue", self.hub.catalogue)
        self.assertIn("checked", varve(*command))
        self.assertEqual(copy.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.sqlite(copy, "PRAGMA integrity_check"), "ok")
        self.assertEqual(self.sqlite(copy, "PRAGMA journal_mode"), "delete")  # one file, without a log
        self.assertEqual(self.sqlite(copy, "SELECT count(*) FROM job"), "2")
        self.assertEqual(sorted(path.name for path in self.dir.glob("copy*")), ["copy.db"])
        self.assertIn("exists; --force replaces it", varve(*command, status=11))
        varve(*command, "--force")
        handle.pwrite(b"z" * 65536, 65536)  # the backup has not noticed
        self.complete_ok(running, "u/2", running["disk_results"][0]["disk_id"])

        self.hub.stop()
        for path in self.hub.directory.glob("catalogue.db*"):
            path.unlink()
        shutil.copy(copy, self.hub.catalogue)
        self.hub.start()
        self.assertEqual(self.job(point)["status"], "completed")
        self.assertEqual(len(self.images("vm")), 1)

    def sqlite(self, file, question):
        asked = subprocess.run(["sqlite3", file, question], capture_output=True, text=True, timeout=20, check=True)
        return asked.stdout.strip()

    def test_what_is_no_catalogue_is_refused_and_leaves_nothing(self):
        nothing, target = self.dir / "no.db", self.dir / "copy.db"
        self.assertIn("there is no catalogue", varve("catalogue", "backup", target, "--catalogue", nothing, status=2))
        nothing.write_text("no database " * 1000)
        self.assertIn("not a database", varve("catalogue", "backup", target, "--catalogue", nothing, status=1))
        self.assertEqual(list(self.dir.glob("copy*")), [])


class JsonLog(HubCase):
    options = {"log_format": "json", "first_connect": "300ms"}

    def test_lines_name_the_job_the_vm_and_the_error_and_a_failed_job_is_an_error(self):
        self.register("vm", [MIB])
        self.quick_backup("vm", ["u/1"])
        job = self.start("vm")["backup_id"]
        self.wait_for_status(job, "failed", 10)
        lines = [json.loads(line) for line in self.hub.log.splitlines()]
        [failed] = [line for line in lines if line.get("job") == job and "failed" in line["message"]]
        self.assertEqual((failed["level"], failed["vm"]), ("error", "vm"))
        self.assertTrue(failed["error"].startswith("no client connected within"), failed)
        [sealed] = [line for line in lines if "sealed in" in line["message"]]
        self.assertEqual((sealed["disk"], sealed["vm"]), (0, "vm"))
        self.assertRegex(sealed["message"], r"\(0 bytes received, .* stored\)")
        self.assertIn("(1 disk)", next(line["message"] for line in lines if "backup of VM" in line["message"]))


class Log(HubCase):
    options = {"threads": 4}

    def test_a_point_that_several_threads_serve_is_opened_and_closed_once(self):
        self.register("vm", [MIB])
        point = self.quick_backup("vm", ["u/1"], writes=[(0, b"x" * 65536)])["backup_id"]
        varve("restore", "vm", "--to", self.dir / "restored.raw", "--server", self.hub.url)
        self.assertEqual(self.hub.stop(), 0)
        for what in ("open", "closed"):
            self.assertEqual(self.hub.log.count(f'"vm/disk-0@{point}" is {what}'), 1, self.hub.log)


class Journal(unittest.TestCase):
    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("unshare"), "a /run of one's own needs root and unshare")
    def test_entries_have_fields_when_standard_error_is_the_journal(self):
        with scratch.directory() as directory:
            journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.addCleanup(journal.close)
            journal.bind(str(directory / "socket"))
            journal.settimeout(20)
            mounts = ('mount -t tmpfs none /run && mkdir -p /run/systemd/journal && '
                      'mount --bind "$0" /run/systemd/journal && exec "$@"')  # fmt: skip
            hub = Daemon(directory / "hub", prefix=["unshare", "-m", "sh", "-c", mounts, directory],
                         first_connect="200ms")  # fmt: skip
            self.addCleanup(hub.close)
            hub.directory.mkdir(exist_ok=True)
            log = directory / "hub" / "varve-1.log"
            log.touch()
            status = log.stat()
            hub.environment = {**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
            try:
                hub.start()
            except AssertionError:
                if "mount" in hub.log:
                    self.skipTest(f"no mount namespace here: {hub.log}")
                raise
            self.assertEqual(hub.register("vm", [MIB]).status, 201)
            job = hub.api("POST", "/backups", {"vm_name": "vm", "backup_type": "full", "repository_id": "1"}).body
            while True:
                entry = dict(line.split("=", 1) for line in journal.recv(65536).decode().splitlines())
                if "failed" in entry["MESSAGE"]:
                    break
            self.assertEqual(entry["PRIORITY"], "3")
            self.assertEqual(entry["SYSLOG_IDENTIFIER"], "varve")
            self.assertEqual((entry["VARVE_JOB"], entry["VARVE_VM"]), (job["backup_id"], "vm"))
            self.assertTrue(entry["VARVE_ERROR"].startswith("no client connected"))
            self.assertEqual(hub.log, "", "said twice")


def unit(directory, name):
    """The unit as it is installed."""
    text = (UNITS / f"{name}.in").read_text().replace("@bindir@", str(Path(binary()).parent)).replace("@docdir@", "/")
    path = directory / name
    path.write_text(text)
    return path


@unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
class Unit(HubCase):
    def analyze(self, *words):
        done = subprocess.run(["systemd-analyze", *map(str, words)], capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr

    def test_its_exposure_is_at_most_2(self):
        status, said = self.analyze("security", "--offline=true", "--threshold=20", unit(self.dir, "varve.service"))
        self.assertEqual(status, 0, said)
        self.assertLessEqual(float(re.search(r"Overall exposure level.*: ([\d.]+)", said).group(1)), 2.0)

    def test_systemd_finds_nothing_wrong_in_the_units(self):
        units = [unit(self.dir, name) for name in ("varve.service", "varve.socket", "varve-nbd.socket")]
        status, said = self.analyze("verify", "--man=no", *units)
        ours = [line for line in said.splitlines() if "varve" in line and "SYSTEMD" not in line]
        self.assertEqual((status, ours), (0, []), said)

    def allowed_calls(self):
        """By the unit's filter, as systemd spells its groups out."""
        settings = re.findall(r"(?m)^SystemCallFilter=(~?)(.*)$", (UNITS / "varve.service.in").read_text())
        groups = {}
        for line in self.analyze("syscall-filter")[1].splitlines():
            if line.startswith("@"):
                groups[line.strip()] = group = []
            elif line.startswith("    ") and not line.strip().startswith("#"):
                group.append(line.strip())

        def expand(name):
            return {call for member in groups[name] for call in expand(member)} if name in groups else {name}

        allowed = set()
        for denied, names in settings:
            calls = {call for name in names.split() for call in expand(name)}
            allowed = allowed - calls if denied else allowed | calls
        return allowed

    @unittest.skipUnless(shutil.which("strace"), "strace is not installed")
    def test_every_system_call_of_a_backup_and_a_restore_is_allowed(self):
        allowed = self.allowed_calls()
        self.assertLessEqual({"io_uring_setup", "io_uring_enter", "io_uring_register", "read"}, allowed)
        self.hub.stop()
        trace = self.dir / "calls"
        # LeakSanitizer cannot look for leaks in a process that is traced, and ends it.
        options = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
        self.hub.prefix = ["env", f"ASAN_OPTIONS={options}", "strace", "-f", "-o", str(trace)]
        self.hub.start()
        self.register("vm", [MIB])
        job = self.quick_backup("vm", ["u/1"], writes=[(0, b"x" * 65536)])
        with self.subTest("verify"):
            varve("verify", "vm", "--server", self.hub.url)
        varve("restore", "vm", "--to", self.dir / "restored.raw", "--server", self.hub.url)
        self.assertEqual(self.hub.api("DELETE", f"/backups/{job['backup_id']}").status, 200)
        self.assertEqual(self.hub.stop(), 0)
        text = trace.read_text(errors="replace")
        called = set(re.findall(r"(?m)^\d+ +([a-z_0-9]+)\(", text))
        self.assertIn("io_uring_setup", called)
        # Asks for more descriptors and continues with those it has (io/file_limit.h). As root, which the service is not,
        # SQLite keeps the owner of its files, and a library of libvirt's tries out what memory policies there are.
        self.assertEqual(called - allowed - {"prlimit64", "setrlimit", "fchown", "set_mempolicy"}, set())
        self.assertNotIn("PROT_WRITE|PROT_EXEC", text)  # MemoryDenyWriteExecute=


if __name__ == "__main__":
    run.main()
