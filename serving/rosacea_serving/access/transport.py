"""The listening port, in plain text or TLS. New connections use the current certificate; open ones keep theirs."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from .certificate import Certificate, read_certificate

if TYPE_CHECKING:
    from .metrics import AccessMetrics


class ServerTls:
    """TLS settings of the server, with files that may be replaced at any time."""

    def __init__(self, chain: Path, key: Path, client_ca: Path | None, metrics: AccessMetrics) -> None:
        self._wants_clients = client_ca is not None
        paths = [path for path in (chain, key, client_ca) if path]
        self.files = metrics.watched("certificate", paths, lambda: read_certificate(chain, key, client_ca))
        self._given: Certificate = self.files.value
        metrics.certificate_expiry().set_function(lambda: self.files.value.expires)

    def credentials(self) -> grpc.ServerCredentials:
        """Server credentials for grpc, which asks for them before each handshake on its own thread; no file is read
        then."""
        configuration = self._given.configuration
        # The stub does not know that None stands for no change.
        return grpc.dynamic_ssl_server_credentials(configuration, self._changed, self._wants_clients)  # type: ignore[arg-type]

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        now = self.files.value
        if now is self._given:
            return None
        self._given = now
        return now.configuration


Tls = ServerTls  # its earlier name, which programs import


def listen(server: grpc.aio.Server, address: str, tls: ServerTls | None = None, name: str = "address") -> int:
    """Bind the TCP port or UNIX socket; the ValueError of a failure begins with `name`."""
    try:
        if is_in_use(address):
            raise RuntimeError
        if tls is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, tls.credentials())
    except RuntimeError as error:
        raise ValueError(f"{name} must be free and of this machine, got {address}") from error


def is_in_use(address: str) -> bool:
    """Whether the UNIX socket is in use, or its path is taken by a file that is not a socket; False for a TCP address.

    gRPC would take the socket's place without asking, and remove whatever a service that ended left there.
    """
    path = Path(address.removeprefix("unix:"))
    if not address.startswith("unix:") or not path.exists():
        return False
    if not path.is_socket():
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
