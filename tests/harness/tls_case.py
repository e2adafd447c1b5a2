# SPDX-License-Identifier: Apache-2.0
"""The case of the TLS suites: one image, served under some options, and certificates for everybody."""

import ssl
import subprocess
import unittest

from harness import image_server, scratch, tls_files
from harness.nbd_wire import *  # noqa: F403  the wire's words are this file's vocabulary

MIB = 1 << 20
SIZE = 32 * MIB
NAME = "vm/disk-0@p"
USER, KEY = "backup-vm-1", bytes(range(32))
NO_TLS_1_0 = "DEFAULT:@SECLEVEL=0"  # OpenSSL itself would not offer what we want to see refused


def run_client(*words, fails=False):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode != 0) == fails, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


class TlsCase(unittest.TestCase):
    """One image, served under `options` for all cases of a class; certificates for everybody."""

    options = ()
    port = None

    @classmethod
    def setUpClass(cls):
        cls.dir = cls.enterClassContext(scratch.directory())
        cls.authority = tls_files.Authority(cls.dir / "authority")
        cls.server_files = cls.authority.server(cls.dir / "server")
        cls.client_files = cls.authority.client(cls.dir / "client")
        cls.keys = tls_files.keys_file(cls.dir / "keys" / "keys.psk", {USER: KEY, "other": KEY[::-1]})
        cls.image = cls.dir / "image.qcow2"
        assert image_server.create(cls.image, SIZE).returncode == 0
        cls.address = str(cls.dir / "nbd.sock")
        cls.server = cls.serve(cls.options_of())

    @classmethod
    def options_of(cls):
        return [str(word).format(dir=cls.dir) for word in cls.options]

    @classmethod
    def serve(cls, options):
        place = {"port": cls.port} if cls.port else {"socket_path": cls.address}
        server = image_server.ImageServer(cls.image, export=NAME, options=options, **place)
        cls.addClassCleanup(server.close)

        def greets():
            assert server.process.poll() is None, server.log
            try:
                with Wire(cls.address) as wire:
                    return wire.receive(18)
            except OSError:
                return None

        scratch.wait_until(greets, 20, "a greeting")
        return server

    def tearDown(self):
        with self.hello() as wire:  # whatever the case did
            self.assertEqual(wire.ask(ABORT)[0], ACK)

    def connect(self):
        wire = Wire(self.address)
        self.addCleanup(wire.close)
        return wire

    def hello(self, flags=3):
        return self.connect().hello(flags)

    def context(self, certificate=None, oldest=ssl.TLSVersion.TLSv1_2, newest=ssl.TLSVersion.TLSv1_3):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.authority.certificate)
        context.minimum_version, context.maximum_version = oldest, newest
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # T12: an end without close-notify is one
        if certificate:
            context.load_cert_chain(certificate / "client-cert.pem", certificate / "client-key.pem")
        return context

    def secure(self, certificate=None):
        return self.hello().start_tls(self.context(certificate))

    def assert_log_says(self, text):
        scratch.wait_until(lambda: text in self.server.log, 5, f"{text!r} in the log")
