"""X6: every RPC, with every kind of credential that is none, over real connections."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import TYPE_CHECKING, Any

import grpc
import jwt
import pytest
from google.rpc.error_details_pb2 import RequestInfo
from grpc_status import rpc_status

from rosacea_serving.access.rules import RULES, Rule

from ..credentials import AUDIENCE, DAY, Authority, Issuer, add_key, as_bearer, client_credentials
from ..hosted import SETTINGS, Hosted, hosted, open_channel
from ..rpcs import call, path_of, rpcs_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MANY = 10**6


class Scene:
    """A gateway with TLS that knows callers by key and by token."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder, "ca")
        self.issuer = Issuer()
        self.other_issuer = Issuer()
        certificate, key = self.authority.issue("server")
        self.key_file = folder / "keys.jsonl"
        self.alice = add_key(self.key_file, "alice")
        self.bob = add_key(self.key_file, "bob")
        self.expired = add_key(self.key_file, "alice", begins=-7200)
        self.future = add_key(self.key_file, "alice", begins=3600)
        self.revoked = add_key(self.key_file, "alice", revoked=True)
        (folder / "jwks.json").write_bytes(self.issuer.jwks)
        self.settings = SETTINGS.model_copy(update={
            "tls_certificate": certificate, "tls_key": key, "api_keys": self.key_file,
            "oidc_issuer": self.issuer.name, "oidc_audience": AUDIENCE, "oidc_jwks": str(folder / "jwks.json"),
            "failed_attempts_per_minute": MANY, "reflection": True, "channelz": True,
        })  # fmt: skip

    def bad(self) -> dict[str, list[tuple[str, str]]]:
        """Metadata of callers who are nobody, by what is wrong."""
        now = int(time.time())
        token, stranger = self.issuer.token, self.other_issuer
        wrong = {
            "a wrong secret": self.alice[:-1] + ("A" if self.alice[-1] != "A" else "B"),
            "an id that there is not": f"rsk_aaaaaaaa{self.alice[12:]}",
            "another's secret": self.bob[:12] + self.alice[12:],
            "an expired key": self.expired,
            "a key for later": self.future,
            "a revoked key": self.revoked,
            "half a key": self.alice[:30],
            "nothing": "",
            "no algorithm": unsigned(self.issuer.name, now),
            "HS256 with the public key": by_hand("HS256", self.issuer, now),
            "RS512": jwt.encode({"sub": "alice"}, self.issuer.rsa, "RS512", headers={"kid": "rsa"}),
            "another audience": token(aud="others"),
            "no audience": token(aud=None),
            "another issuer": token(iss="https://other.example"),
            "no issuer": token(iss=None),
            "an expired token": token(exp=now - 120),
            "a token without end": token(exp=None),
            "a token for later": token(nbf=now + 120),
            "nobody's token": token(sub=None),
            "a name that cannot be printed": token(sub="a\nb"),
            "another's signature": token(signed_by=stranger),
            "a key that the issuer has not": token("none"),
            "elliptic with another key": token("ec", signed_by=stranger),
            "a deep header": f"{coded(b'[' * 5000)}.e30.e30",
            "much": "a" * 7000,
        }
        bad = {name: as_bearer(credential) for name, credential in wrong.items()}
        return bad | {
            "none": [],
            "another scheme": [("authorization", f"Basic {self.alice}")],
            "no scheme": [("authorization", self.alice)],
            "two at once": as_bearer(self.alice) + as_bearer(self.bob),
            "in another place": [("x-api-key", self.alice)],
        }

    def good(self) -> list[list[tuple[str, str]]]:
        token = self.issuer.token
        good = [self.alice, self.bob, token(), token("ec"), token(nbf=time.time() + 30)]
        return [as_bearer(credential) for credential in good]


def coded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unsigned(issuer: str, now: int) -> str:
    claims = {"iss": issuer, "aud": AUDIENCE, "sub": "alice", "exp": now + 600}
    return jwt.encode(claims, "", "none", headers={"kid": "rsa"})


def by_hand(algorithm: str, issuer: Issuer, now: int) -> str:
    """A token signed with the issuer's public key as if it were a shared secret, which PyJWT refuses to make."""
    header = coded(json.dumps({"alg": algorithm, "kid": "rsa", "typ": "JWT"}).encode())
    claims = coded(json.dumps({"iss": issuer.name, "aud": AUDIENCE, "sub": "alice", "exp": now + 600}).encode())
    signature = hmac.new(issuer.public_pem, f"{header}.{claims}".encode(), hashlib.sha256).digest()
    return f"{header}.{claims}.{coded(signature)}"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("access"))


@pytest.fixture(scope="module")
def service(scene: Scene) -> Iterator[Hosted]:
    with hosted(scene.settings, credentials=client_credentials(scene.authority)) as service:
        yield service


def told(error: Any) -> tuple[grpc.StatusCode, str, bytes]:
    """Everything that a caller hears, but for the id of its call."""
    status = rpc_status.from_call(error)
    assert status is not None
    (own,) = [detail for detail in status.details if detail.Is(RequestInfo.DESCRIPTOR)]
    status.details.remove(own)
    return error.code(), error.details(), status.SerializeToString()


def test_nobody_is_let_in_and_all_hear_the_same(scene: Scene, service: Hosted) -> None:
    closed = [method for method in rpcs_of(service.gateway) if RULES[path_of(method)] is Rule.IDENTIFIED]
    heard = {
        (path_of(method), name): told(call(service.channel, method, metadata))
        for method in closed
        for name, metadata in scene.bad().items()
    }

    assert {method.containing_service.name for method in closed} == {"FaceService", "ServerReflection", "Channelz"}
    assert len(heard) == len(closed) * 30
    assert {code for code, _, _ in heard.values()} == {grpc.StatusCode.UNAUTHENTICATED}
    assert len(set(heard.values())) == 1
    assert service.workers.jobs == []


def test_whoever_is_somebody_is_let_in(scene: Scene, service: Hosted) -> None:
    """The control of the matrix: the same calls come through with credentials that are good."""
    codes = {
        error and error.code()
        for method in rpcs_of(service.gateway)
        for metadata in scene.good()
        for error in [call(service.channel, method, metadata)]
    }

    assert None in codes
    assert not codes & {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


def test_health_is_told_to_everybody(service: Hosted) -> None:
    open_ = [method for method in rpcs_of(service.gateway) if RULES[path_of(method)] is Rule.OPEN]

    assert {method.name for method in open_} == {"Check", "List", "Watch"}
    assert {call(service.channel, method) for method in open_} == {None}


def test_a_request_of_nobodys_is_not_even_parsed(service: Hosted) -> None:
    for method in rpcs_of(service.gateway):
        if RULES[path_of(method)] is Rule.IDENTIFIED:
            assert call(service.channel, method, data=b"\xff\xff").code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.fixture(scope="module")
def mutual(scene: Scene) -> Iterator[Hosted]:
    """The same, known by certificate as well."""
    settings = scene.settings.model_copy(update={"tls_client_ca": scene.authority.file})
    pair = scene.authority.issue("carol", uri="spiffe://example/carol")
    with hosted(settings, credentials=client_credentials(scene.authority, pair)) as service:
        yield service


@pytest.mark.parametrize("shown", ["none", "another authority's", "expired"])
def test_no_call_of_a_strangers_certificate_arrives(scene: Scene, mutual: Hosted, tmp_path: Path, shown: str) -> None:
    pairs = {
        "none": None,
        "another authority's": Authority(tmp_path, "stranger").issue("carol"),
        "expired": scene.authority.issue("late", lasts=-DAY),
    }
    with open_channel(mutual.gateway.address, client_credentials(scene.authority, pairs[shown])) as channel:
        errors = [call(channel, method, as_bearer(scene.alice)) for method in rpcs_of(mutual.gateway)]

    # TLS itself refuses them: no status of ours is told, and no key or token helps.
    assert {error and error.code() for error in errors} == {grpc.StatusCode.UNAVAILABLE}
    assert mutual.gateway.metrics.registry.get_sample_value("rosacea_access_principals") in (None, 0)


def test_a_certificate_is_enough(mutual: Hosted) -> None:
    """The control; it goes last, because the test above looks at who was let in."""
    errors = [call(mutual.channel, method) for method in rpcs_of(mutual.gateway)]

    refused = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE}
    assert not {error.code() for error in errors if error} & refused
    assert mutual.gateway.metrics.registry.get_sample_value("rosacea_access_principals") == 1
