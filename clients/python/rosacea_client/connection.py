"""How a client reaches the service: in plain text or over TLS, and with what to say who it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from rosacea_client.address import is_loopback
from rosacea_client.secrets import read_secret

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMES = ("dns:///", "ipv4:", "ipv6:", "passthrough:///")


@dataclass(frozen=True, kw_only=True)
class Tls:
    """TLS, with roots of your own and, where the service wants one, a certificate. All files are PEM.

    Tls()                                                           # the roots that come with grpc
    Tls(ca_file="ca.pem")
    Tls(ca_file="ca.pem", certificate_file="me.pem", key_file="me.key")
    """

    ca_file: str | Path | None = None
    certificate_file: str | Path | None = None
    key_file: str | Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together, got only one of them")

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files; a ValueError or OSError names the one that cannot be used."""
        ca, chain, key = self.ca_file, self.certificate_file, self.key_file
        return grpc.ssl_channel_credentials(
            root_certificates=Path(ca).read_bytes() if ca is not None else None,
            private_key=read_secret(Path(key)) if key is not None else None,
            certificate_chain=Path(chain).read_bytes() if chain is not None else None,
        )


class ApiKey:
    """An API key, or a token of an issuer that the service trusts. Its text shows nowhere.

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
        """What a call says."""
        if self._path is not None:
            found = self._path.stat()
            if (found.st_ino, found.st_mtime_ns) != self._stamp:
                self._key = _checked(read_secret(self._path).decode(errors="replace").strip())
                self._stamp = found.st_ino, found.st_mtime_ns
        return (("authorization", f"Bearer {self._key}"),)


def open_channel(
    target: str, tls: Tls | bool, keyed: bool, plain_text: bool, options: Sequence[tuple[str, Any]]
) -> grpc.Channel:
    """A channel; ValueError where a key would travel in plain text to another machine, unless that is wanted."""
    if tls:
        return grpc.secure_channel(target, (Tls() if tls is True else tls).credentials(), options)
    if keyed and not plain_text and not stays_here(target):
        raise ValueError(f"an API key travels over TLS, or on this machine: give tls, or no key, got {target!r}")
    return grpc.insecure_channel(target, options)


def stays_here(target: str) -> bool:
    """Whether a target of grpc is on this machine."""
    if target.startswith("unix:"):
        return True
    for scheme in SCHEMES:
        target = target.removeprefix(scheme)
    return all(is_loopback(each) for each in target.split(","))


def _checked(key: str) -> str:
    if not (key and key.isascii() and key.isprintable() and " " not in key):
        raise ValueError("an API key must be printable and without spaces; this one is not shown")
    return key
