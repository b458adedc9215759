"""The port, in plain text or with TLS. New connections get the certificate in use; old ones go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from .certificate import Certificate, read_certificate

if TYPE_CHECKING:
    from pathlib import Path

    from .metrics import AccessMetrics


class Tls:
    """A server's side of TLS, with files that may be exchanged at any time."""

    def __init__(self, chain: Path, key: Path, client_ca: Path | None, metrics: AccessMetrics) -> None:
        self._wants_clients = client_ca is not None
        paths = [path for path in (chain, key, client_ca) if path]
        self.files = metrics.watched("certificate", paths, lambda: read_certificate(chain, key, client_ca))
        self._given: Certificate = self.files.value
        metrics.certificate_expiry().set_function(lambda: self.files.value.expires)

    def credentials(self) -> grpc.ServerCredentials:
        """For a port. grpc asks before each handshake, on a thread of its own, so asking reads no file."""
        configuration = self._given.configuration
        # The stub does not know that None stands for no change.
        return grpc.dynamic_ssl_server_credentials(configuration, self._changed, self._wants_clients)  # type: ignore[arg-type]

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        now = self.files.value
        if now is self._given:
            return None
        self._given = now
        return now.configuration


def listen(server: grpc.aio.Server, address: str, tls: Tls | None = None) -> int:
    """Take the port; ValueError where that is not possible."""
    try:
        if tls is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, tls.credentials())
    except RuntimeError as error:
        raise ValueError(f"address must be free and of this machine, got {address}") from error
