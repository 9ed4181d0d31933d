"""Certificates for servers on loopback, good and bad."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path


class Authority:
    """A certificate authority that only those know who are given its ``file``.

    Args:
        folder: Where its certificate is written, such as pytest's ``tmp_path``.
    """

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.file = folder / "authority.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def server(self, *names: str) -> ssl.SSLContext:
        """Return a server's context with a valid certificate, by default for 127.0.0.1 and localhost."""
        return _context(self._ca.issue_cert(*(names or ("127.0.0.1", "localhost"))))

    def server_of_another_host(self) -> ssl.SSLContext:
        """Return a server's context with a certificate for a host that this one is not."""
        return self.server("elsewhere.example")

    def expired_server(self) -> ssl.SSLContext:
        """Return a server's context whose certificate ran out yesterday."""
        now = datetime.now(UTC)
        start, end = now - timedelta(days=30), now - timedelta(days=1)
        return _context(self._ca.issue_cert("127.0.0.1", "localhost", not_before=start, not_after=end))

    def client(self) -> ssl.SSLContext:
        """Return a client's context that trusts this authority and no other."""
        return ssl.create_default_context(cafile=str(self.file))


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context
