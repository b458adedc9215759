"""Certificates, keys and tokens of tests: an authority, an issuer, and what they hand out."""

from __future__ import annotations

import ipaddress
import json
import time
from datetime import UTC, datetime, timedelta
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any, Self

import grpc
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from rosacea_client.secrets import write_secret
from rosacea_serving.access.api_keys.file import changing
from rosacea_serving.access.api_keys.keys import make_key

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

DAY = timedelta(days=1)
ISSUER = "https://issuer.example"
AUDIENCE = "rosacea"


class Authority:
    """A certificate authority, and the files of what it signs."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = folder / f"{name}.pem"
        builder = self._builder(self._name, self._key, 10 * DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.pem = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        self.file.write_bytes(self.pem)

    def issue(
        self,
        name: str,
        *,
        uri: str = "",
        lasts: timedelta = DAY,
        key: PrivateKeyTypes | None = None,
        password: bytes = b"",
    ) -> tuple[Path, Path]:
        """A certificate for this machine and its key, written where the last ones of that name were."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        names += [x509.UniformResourceIdentifier(uri)] if uri else []
        builder = self._builder(subject, key, lasts)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        pem = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        coded = BestAvailableEncryption(password) if password else NoEncryption()
        return self.put(name, pem, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, coded))

    def put(self, name: str, chain: bytes, key: bytes) -> tuple[Path, Path]:
        """Write a pair over the last one of that name, each by a rename."""
        files = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        for file, data in zip(files, (chain, key), strict=True):
            partial = file.with_suffix(".part")
            write_secret(partial, data)
            partial.replace(file)
        return files

    def _builder(self, subject: x509.Name, key: PrivateKeyTypes, lasts: timedelta) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())  # type: ignore[arg-type]  # of kinds that can be certified
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * DAY)
            .not_valid_after(now + lasts)
        )


def client_credentials(authority: Authority, pair: tuple[Path, Path] | None = None) -> grpc.ChannelCredentials:
    """What a client trusts and, with a pair, shows."""
    if pair is None:
        return grpc.ssl_channel_credentials(authority.pem)
    return grpc.ssl_channel_credentials(authority.pem, pair[1].read_bytes(), pair[0].read_bytes())


def add_key(file: Path, principal: str, begins: float = 0.0, lasts: float = 3600.0, revoked: bool = False) -> str:
    """A new key in the file; times in seconds from now."""
    now = time.time()
    with changing(file) as records:
        key, record = make_key(principal, now + begins, now + begins + lasts)
        object.__setattr__(record, "revoked", revoked)
        records.append(record)
    return key


def as_bearer(credential: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {credential}")]


def jwk(algorithm: str, key: PrivateKeyTypes | PublicKeyTypes) -> dict[str, Any]:
    """A key as an entry of a set."""
    found: Any = jwt.get_algorithm_by_name(algorithm)
    made: dict[str, Any] = found.to_jwk(key, as_dict=True)
    return made


class Issuer:
    """An OpenID Connect issuer with one RSA and one elliptic key."""

    def __init__(self, name: str = ISSUER) -> None:
        self.name = name
        self.rsa = rsa.generate_private_key(65537, 2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())

    @cached_property
    def jwks(self) -> bytes:
        """Its public keys."""
        made = [
            {**self._public("RS256", self.rsa), "kid": "rsa"},
            {**self._public("ES256", self.ec), "kid": "ec"},
        ]
        return json.dumps({"keys": made}).encode()

    @property
    def public_pem(self) -> bytes:
        return self.rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def _public(self, algorithm: str, key: PrivateKeyTypes) -> dict[str, Any]:
        return jwk(algorithm, key.public_key())

    def token(self, kid: str | None = "rsa", signed_by: Issuer | None = None, **claims: Any) -> str:
        """A token of alice's that is good unless `claims` say otherwise; a claim of None is left out."""
        now = int(time.time())
        told = {"iss": self.name, "aud": AUDIENCE, "sub": "alice", "exp": now + 600, "iat": now} | claims
        told = {name: value for name, value in told.items() if value is not None}
        by = signed_by or self
        key, algorithm = (by.ec, "ES256") if kid == "ec" else (by.rsa, "RS256")
        return jwt.encode(told, key, algorithm, headers={"kid": kid} if kid else None)


class JwksServer:
    """`with JwksServer(body) as server:` - the issuer's keys behind a URL here, and how often they were got."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.status = 200
        self.calls = 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.calls += 1
                self.send_response(owner.status)
                if owner.status == 302:
                    self.send_header("Location", "http://127.0.0.1:1/")
                self.end_headers()
                self.wfile.write(owner.body)

            def log_message(self, *arguments: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
