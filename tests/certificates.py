"""A certificate for 127.0.0.1 and `files.example`, for targets that are reached over TLS."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest


class Certificate:
    """What proves that a target is 127.0.0.1 or `files.example`, to those who know it."""

    def __init__(self, folder: Path) -> None:
        self.key, self.file = folder / "key.pem", folder / "certificate.pem"

    def shown(self) -> ssl.SSLContext:
        """What a target shows."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.file, self.key)
        return context

    def trusted(self) -> ssl.SSLContext:
        """What those have who know it."""
        return ssl.create_default_context(cafile=self.file)


def make(folder: Path) -> Certificate:
    """Make one; skips the test where there is no openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl to make a certificate with")
    made = Certificate(folder)
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=target", "-addext", "subjectAltName=IP:127.0.0.1,DNS:files.example"]
    files = ["-keyout", str(made.key), "-out", str(made.file)]
    subprocess.run([openssl, "req", "-x509", *kind, *names, *files], check=True, capture_output=True)
    return made
