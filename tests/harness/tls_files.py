# SPDX-License-Identifier: Apache-2.0
"""Certificates and keys of a small authority, as files under the names that every NBD tool knows."""

import os
import subprocess
from pathlib import Path

CLIENT_NAME = "client.varve.test"


def openssl(*words):
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"openssl {words[0]}: {done.stderr}"


class Authority:
    """A certificate authority, and what it issues, in `directory`."""

    def __init__(self, directory, name="varve test authority"):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.certificate, self._key = self.directory / "ca-cert.pem", self.directory / "authority.key"
        self._serial = 0
        self._new_key(self._key)
        openssl("req", "-x509", "-key", self._key, "-subj", f"/CN={name}", "-days", 2, "-out", self.certificate,
                "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip

    @staticmethod
    def _new_key(path):
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path)

    def issue(self, directory, kind, common_name, purpose, *names, days=2):
        """KIND-cert.pem and KIND-key.pem, with a copy of the authority's certificate beside them."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        key, made = directory / f"{kind}-key.pem", directory / f"{kind}-cert.pem"
        wish, more = directory / f"{kind}.csr", directory / f"{kind}.ext"
        self._new_key(key)
        openssl("req", "-new", "-key", key, "-subj", f"/O=varve/CN={common_name}", "-out", wish)
        alternative = f"\nsubjectAltName={','.join(names)}" if names else ""
        more.write_text(f"keyUsage=digitalSignature\nextendedKeyUsage={purpose}{alternative}\n")
        self._serial += 1
        openssl("x509", "-req", "-in", wish, "-CA", self.certificate, "-CAkey", self._key, "-days", days,
                "-set_serial", self._serial, "-extfile", more, "-out", made)  # fmt: skip
        (directory / "ca-cert.pem").write_bytes(self.certificate.read_bytes())
        return directory

    def server(self, directory):
        return self.issue(directory, "server", "localhost", "serverAuth", "DNS:localhost", "IP:127.0.0.1", "IP:::1")

    def client(self, directory, common_name=CLIENT_NAME):
        return self.issue(directory, "client", common_name, "clientAuth")

    def revoke(self, certificate, into):
        """Writes ca-crl.pem, with that certificate in it, into the directory `into`."""
        base = self.directory / "revoked"
        base.mkdir(exist_ok=True)
        (base / "index").touch()
        (base / "crlnumber").write_text("01\n")
        settings = base / "ca.cnf"
        settings.write_text(
            f"[ca]\ndefault_ca=us\n[us]\ndatabase={base}/index\ncrlnumber={base}/crlnumber\ndefault_md=sha256\n"
            f"default_crl_days=2\n"
        )
        sign = ["ca", "-config", settings, "-cert", self.certificate, "-keyfile", self._key]
        openssl(*sign, "-revoke", certificate)
        openssl(*sign, "-gencrl", "-out", Path(into) / "ca-crl.pem")


def keys_file(path, users):
    """A file as psktool writes it, {user: key bytes}, for its owner only."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        file.writelines(f"{user}:{key.hex()}\n" for user, key in users.items())
    return path
