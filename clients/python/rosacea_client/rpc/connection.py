"""Connection settings of a client: TLS and credentials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from grpc.experimental import ChannelOptions

from rosacea_client.relay.channel import RelayChannel
from rosacea_client.relay.forked import may_enter_grpc, note_channel
from rosacea_client.rpc.address import stays_here
from rosacea_client.rpc.endpoint import grpc_target, service_options
from rosacea_client.rpc.proxies import proxy_of
from rosacea_client.secrets import read_secret

if TYPE_CHECKING:
    from collections.abc import Sequence

# Whoever reads a stream does its work as well. By default grpc has a thread that waits for it, and a process that
# forks while such a thread waits leaves its children a broken gRPC.
_NO_THREADS = (ChannelOptions.SingleThreadedUnaryStream, 1)


@dataclass(frozen=True, kw_only=True)
class Tls:
    """TLS settings with root certificates and, for mutual TLS, a client certificate. All files are PEM.

    Example:

        Tls()                                                       # the roots that come with grpc
        Tls(ca_file="ca.pem")
        Tls(ca_file="ca.pem", certificate_file="me.pem", key_file="me.key")
        Tls(ca_file="ca.pem", server_name="faces.example")          # whom certificates must name, if not the host
    """

    ca_file: str | Path | None = None
    certificate_file: str | Path | None = None
    key_file: str | Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together, got only one of them")

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Read root certificates, private key and certificate chain; a ValueError or OSError names the unusable
        file."""
        ca, chain, key = self.ca_file, self.certificate_file, self.key_file
        return (
            Path(ca).read_bytes() if ca is not None else None,
            read_secret(Path(key)) if key is not None else None,
            Path(chain).read_bytes() if chain is not None else None,
        )

    def credentials(self) -> grpc.ChannelCredentials:
        """gRPC channel credentials; raises as `read` does."""
        return grpc.ssl_channel_credentials(*self.read())


class ApiKey:
    """An API key, or a token of an issuer that the service trusts. Its text is never shown.

    One from a file is read again when the file changes, so that keys can be exchanged while a client runs.
    """

    def __init__(self, key: str | Path) -> None:
        self._path = key if isinstance(key, Path) else None
        self._key = "" if isinstance(key, Path) else _checked(key)
        self._stamp: tuple[int, int] | None = None
        self.metadata()

    def __repr__(self) -> str:
        return f"ApiKey({str(self._path) if self._path else '...'!r})"

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata that sends the key with a call; a key's file is read again if it has changed."""
        if self._path is not None:
            found = self._path.stat()
            if (found.st_ino, found.st_mtime_ns) != self._stamp:
                self._key = _checked(read_secret(self._path).decode(errors="replace").strip())
                self._stamp = found.st_ino, found.st_mtime_ns
        return (("authorization", f"Bearer {self._key}"),)


@dataclass(frozen=True, kw_only=True)
class ConnectionSettings:
    """Target, TLS and credentials of a client: what is needed to open a channel in any process or event loop.

    Raises ValueError for what cannot go together, for instance a key that would travel in plain text to another
    machine, unless that is wanted.
    """

    target: str
    tls: Tls | None = None
    api_key: ApiKey | None = None
    api_key_in_plain_text: bool = False

    def __post_init__(self) -> None:
        if self.tls is not None:
            if "," in self.target and not self.tls.server_name:
                raise ValueError("several addresses over TLS need a server_name, which all their certificates have")
            self.tls.read()  # says now what is wrong with a file
        elif self.api_key is not None and not self.api_key_in_plain_text and not stays_here(self.target):
            rule = "an API key travels over TLS, or on this machine"
            raise ValueError(f"{rule}: give tls, or no key, got {self.target!r}")

    def open(self, *, in_helper: bool = False) -> grpc.Channel | RelayChannel:
        """Open a channel. Its calls run in a helper process if requested, or if gRPC cannot be used safely in this
        process (`relay.forked.may_enter_grpc`)."""
        target, options = self._destination()
        if in_helper or not may_enter_grpc():
            return RelayChannel(target, options, self.tls.read() if self.tls else None)
        options.append(_NO_THREADS)
        note_channel()
        if self.tls is not None:
            return grpc.secure_channel(target, self.tls.credentials(), options=options)
        return grpc.insecure_channel(target, options=options)

    def open_here(self, interceptors: Sequence[grpc.aio.ClientInterceptor] = ()) -> grpc.aio.Channel:
        """Open a channel for the running event loop; `interceptors` see its calls."""
        target, options = self._destination()
        note_channel()
        if self.tls is not None:
            credentials = self.tls.credentials()
            return grpc.aio.secure_channel(target, credentials, options=options, interceptors=interceptors)
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)

    def _destination(self) -> tuple[str, list[tuple[str, Any]]]:
        options = service_options(self.target, self.tls.server_name if self.tls else None)
        return grpc_target(self.target), options

    def __str__(self) -> str:
        """The target, and the proxy in front of it, for error messages."""
        proxy = proxy_of(self.target)
        return f"{self.target} through {proxy}" if proxy else self.target

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Credentials metadata of every call."""
        return self.api_key.metadata() if self.api_key else ()


def _checked(key: str) -> str:
    if not (key and key.isascii() and key.isprintable() and " " not in key):
        raise ValueError("an API key must be printable and without spaces; this one is not shown")
    return key
