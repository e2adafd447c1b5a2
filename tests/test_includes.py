#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The include arrows of ARCHITECTURE.md hold, and io_uring and Boost stay where they belong."""
import pathlib
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from harness import run  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
# A room stands on those that it may include. A folder with rooms stands on what all of them do.
MAY_INCLUDE = {
    "io": {"io"},
    "nbd": {"io", "nbd"},
    "qcow": {"io", "qcow"},
    "qcow/format": {"io", "qcow/format"},
    "qcow/chain": {"io", "qcow/format", "qcow/chain"},
    "qcow/image": {"io", "qcow/format", "qcow/chain", "qcow/image"},
    "qcow/check": {"io", "qcow/format", "qcow/chain", "qcow/check"},
    "engine": {"io", "nbd", "qcow", "engine"},
    "engine/values": {"io", "nbd", "engine/values"},
    "engine/catalogue": {"io", "qcow", "engine/values", "engine/catalogue"},
    "engine/repository": {"io", "qcow", "engine/values", "engine/catalogue", "engine/repository"},
    "engine/ingest": {"io", "nbd", "qcow", "engine/values", "engine/ingest"},
    "engine/restore": {"io", "nbd", "qcow", "engine/values", "engine/catalogue", "engine/repository",
                       "engine/ingest", "engine/restore"},
    "engine/care": {"io", "qcow", "engine/values", "engine/catalogue", "engine/repository", "engine/care"},
    "engine/jobs": {"io", "nbd", "qcow", "engine/values", "engine/catalogue", "engine/repository", "engine/ingest",
                    "engine/restore", "engine/care", "engine/jobs"},
    "api": {"io", "engine", "api"},
    "app": {"io", "nbd", "qcow", "engine", "api", "app"},
}
BOOST_FILES = {"api/event_feed.cc", "api/event_feed.h", "api/http_connection.cc", "api/http_connection.h",
               "api/http_server.cc", "api/http_stream.cc", "api/http_stream.h", "api/tls_context.cc",
               "api/tls_context.h", "app/http_client.cc",
               "app/notify/webhook.cc", "engine/ingest/node_client.cc"}
OPENSSL_FILES = {"api/tls_context.cc", "app/http_client.cc"}
GNUTLS_FILES = {"engine/values/digest.cc", "nbd/tls_credentials.cc", "nbd/tls_gnutls.h"}
LIBVIRT_FILES = {f"app/pull/libvirt{part}" for part in (".cc", "_domain.h", "_freeze.h", "_idle.cc",
                                                         "_running.cc")}
LIBQCOW_FILES = {"app/libqcow.cc"}
GNUTLS_USERS = {"tls_client.cc", "tls_credentials.cc", "tls_stream.cc"}
INCLUDE = re.compile(r'#include [<"]([^">]+)[>"]')


def sources(folder):
    return sorted(path for path in (ROOT / folder).rglob("*") if path.suffix in {".h", ".cc"})


def includes(path):
    return INCLUDE.findall(path.read_text())


def room_of(name):
    """The innermost folder of the table that the file, "engine/jobs/publish.h", lies in; or None."""
    folder = name.rpartition("/")[0]
    while folder and folder not in MAY_INCLUDE:
        folder = folder.rpartition("/")[0]
    return folder or None


def may_include(room, target):
    return any(target == allowed or target.startswith(allowed + "/") for allowed in MAY_INCLUDE[room])


class IncludeArrows(unittest.TestCase):
    def test_each_folder_includes_only_what_the_table_allows(self):
        """A1 the API sees plain values only; nbd and qcow never meet."""
        for folder in MAY_INCLUDE:
            self.assertTrue(sources(folder), f"{folder}/ has no sources")
            for path in sources(folder):
                room = room_of(str(path.relative_to(ROOT)))
                for name in includes(path):
                    target = room_of(name)
                    if target:
                        allowed = may_include(room, target)
                        self.assertTrue(allowed, f"{path.relative_to(ROOT)} includes {name}")

    def test_the_api_sees_the_facade_of_the_engine_and_its_values(self):
        for path in sources("api"):
            for name in includes(path):
                if name.startswith("engine/"):
                    self.assertIn(room_of(name), {"engine", "engine/values"}, f"{path} includes {name}")

    def test_only_the_server_of_the_api_touches_io(self):
        """But for one header that is pure text."""
        found = {path.name for path in sources("api")
                 if any(name.startswith("io/") and name != "io/percent_encoding.h" for name in includes(path))}  # fmt: skip
        self.assertEqual(found, {"http_server.cc"})

    def test_openssl_is_behind_the_files_of_http(self):
        """NBD has GnuTLS; Asio's streams speak OpenSSL."""
        found = set()
        for folder in MAY_INCLUDE:
            for path in sources(folder):
                if any(name.startswith("openssl/") for name in includes(path)):
                    found.add(str(path.relative_to(ROOT)))
        self.assertEqual(found, OPENSSL_FILES)

    def test_boost_is_in_its_own_files_only(self):
        found = set()
        for folder in MAY_INCLUDE:
            for path in sources(folder):
                if any(name.startswith("boost/") for name in includes(path)):
                    found.add(str(path.relative_to(ROOT)))
        self.assertEqual(found, BOOST_FILES)

    def test_gnutls_is_behind_its_own_files(self):
        """TLS is a stream to the session; SHA-256 is the engine's only other use of the library."""
        found = set()
        for folder in MAY_INCLUDE:
            for path in sources(folder):
                if any(name.startswith("gnutls/") for name in includes(path)):
                    found.add(str(path.relative_to(ROOT)))
                if "nbd/tls_gnutls.h" in includes(path):
                    self.assertIn(path.name, GNUTLS_USERS)
        self.assertEqual(found, GNUTLS_FILES)

    def test_libvirt_and_its_xml_are_in_files_of_their_own(self):
        """What was built without them lacks these and nothing else."""
        found = set()
        for folder in MAY_INCLUDE:
            for path in sources(folder):
                if any(name.startswith(("libvirt/", "pugixml")) for name in includes(path)):
                    found.add(str(path.relative_to(ROOT)))
        self.assertEqual(found, LIBVIRT_FILES)

    def test_libqcow_is_in_one_file(self):
        """It runs in a process of its own, because it loops and crashes: nothing else may call it."""
        found = set()
        for folder in MAY_INCLUDE:
            for path in sources(folder):
                if any(name.startswith("libqcow") for name in includes(path)):
                    found.add(str(path.relative_to(ROOT)))
        self.assertEqual(found, LIBQCOW_FILES)

    def test_no_sqe_is_prepared_outside_io(self):
        for folder in set(MAY_INCLUDE) - {"io"}:
            for path in sources(folder):
                self.assertNotRegex(path.read_text(), r"io_uring_(prep|get_sqe)", str(path))

    def test_bugs_are_planted_in_the_crash_tests_only(self):
        """Without the define the hooks of io/planted_bug.h leave nothing behind."""
        defined = [path for path in ROOT.rglob("meson.build")
                   if "VARVE_PLANTED_BUGS" in path.read_text()]
        self.assertEqual(defined, [ROOT / "tests/crash/meson.build"])

    def test_nothing_above_io_opens_files_or_starts_threads(self):
        """The lower seam: the crash simulation must see every file operation."""
        forbidden = re.compile(r"#include <(fcntl\.h|fstream|sys/stat\.h|thread|random)>")
        for folder in ("nbd", "qcow"):
            for path in sources(folder):
                self.assertNotRegex(path.read_text(), forbidden, str(path))


if __name__ == "__main__":
    run.main()
