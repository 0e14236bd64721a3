"""Throw-away certificates for TLS between test and broker or simulator."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Certificates:
    """A private authority and a server certificate for ``localhost`` and 127.0.0.1, as files in ``folder``.

    ``folder`` holds ca.pem, server.pem, server.key (what PrivateNode takes as ``tls``), client.pem and client.key.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = trustme.CA(organization_name="cancel-worker tests")
        authority.cert_pem.write_to_path(folder / "ca.pem")
        server = authority.issue_cert("localhost", "127.0.0.1")
        server.private_key_pem.write_to_path(folder / "server.key")
        (folder / "server.pem").write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
        client = authority.issue_cert("worker@cancel-worker.test")
        client.private_key_pem.write_to_path(folder / "client.key")
        (folder / "client.pem").write_bytes(b"".join(blob.bytes() for blob in client.cert_chain_pems))

    def client_context(self) -> ssl.SSLContext:
        """Trusts this authority alone."""
        return ssl.create_default_context(cafile=str(self.folder / "ca.pem"))

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        return context
