"""The issuer's keys: from where, for how long, and which of them count. Tokens themselves are in the matrix."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from rosacea_serving.access.identity import Cause, Identity, Refused
from rosacea_serving.access.issuer import jwks
from rosacea_serving.access.issuer.jwks import KEEP_SECONDS, MAX_BYTES, FetchedKeys, fetch, read_jwks
from rosacea_serving.access.issuer.tokens import Tokens
from rosacea_serving.access.metrics import AccessMetrics

from ...waiting import HANG_SECONDS
from ..credentials import AUDIENCE, Issuer, JwksServer, jwk

if TYPE_CHECKING:
    from collections.abc import Iterator

HOUR = 3600.0


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """Tokens whose issuer's keys are behind a URL."""

    def __init__(self, issuer: Issuer, server: JwksServer) -> None:
        self.clock = Clock()
        self.server = server
        self.registry = CollectorRegistry()
        self.keys = FetchedKeys(server.url, AccessMetrics(self.registry).reloads, self.clock)
        self._tokens = Tokens(issuer.name, AUDIENCE, self.keys)

    def check(self, token: str) -> Identity | Cause:
        """Who it is, or why nobody; as at the watcher's next look."""

        async def run() -> Identity | Cause:
            try:
                return await self._tokens.check(token)
            except Refused as refused:
                return refused.cause

        return asyncio.run(run())

    def look(self) -> None:
        asyncio.run(self.keys.refresh(HOUR / 2))

    def reloads(self, outcome: str) -> float | None:
        labels = {"files": "issuer_keys", "outcome": outcome}
        return self.registry.get_sample_value("rosacea_access_reloads_total", labels)


@pytest.fixture
def scene(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT_SECONDS", HANG_SECONDS)
    with JwksServer(issuer.jwks) as server:
        yield Scene(issuer, server)


ALICE = Identity("token", "alice")


def test_keys_are_fetched_once_for_many_tokens(scene: Scene, issuer: Issuer) -> None:
    assert [scene.check(issuer.token(kid)) for kid in ("rsa", "ec", "rsa")] == [ALICE] * 3
    assert scene.server.calls == 1


def test_keys_are_never_older_than_an_hour_where_the_issuer_answers(scene: Scene, issuer: Issuer) -> None:
    scene.look()
    scene.clock.now += HOUR / 2 + 60
    scene.look()

    assert scene.server.calls == 2


def test_keys_are_kept_for_a_day_where_the_issuer_fails_and_no_longer(scene: Scene, issuer: Issuer) -> None:
    scene.look()
    scene.server.status = 500
    for _ in range(23):
        scene.clock.now += HOUR
        scene.look()
        assert scene.check(issuer.token()) == ALICE
    scene.clock.now += KEEP_SECONDS - 23 * HOUR + 1

    assert scene.check(issuer.token()) == Cause.NO_ISSUER_KEYS
    assert scene.reloads("refused") == 23

    scene.server.status = 200
    scene.clock.now += 60
    scene.look()
    assert scene.check(issuer.token()) == ALICE


def test_a_new_key_of_the_issuer_is_fetched_when_it_is_first_seen_but_not_for_every_stranger(
    scene: Scene, issuer: Issuer
) -> None:
    scene.look()
    assert [scene.check(issuer.token(f"made up {n}")) for n in range(50)] == [Cause.TOKEN] * 50
    assert scene.server.calls == 1  # just fetched
    scene.clock.now += 61
    [scene.check(issuer.token(f"made up {n}")) for n in range(50)]
    assert scene.server.calls == 2

    scene.server.body = scene.server.body.replace(b'"rsa"', b'"new"')
    scene.clock.now += 61
    assert scene.check(issuer.token("new")) == ALICE


def test_a_call_whose_key_is_known_does_not_wait_for_the_issuer(scene: Scene, issuer: Issuer) -> None:
    scene.look()

    async def run() -> Identity:
        async with scene.keys._fetching:  # as while the issuer does not answer
            return await asyncio.wait_for(scene._tokens.check(issuer.token()), 120)

    assert asyncio.run(run()) == ALICE


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"keys": [1]}', b'{"keys": []}', b"[" * 10**5, b"\xff"])
def test_what_is_no_key_set_changes_nothing(scene: Scene, issuer: Issuer, body: bytes) -> None:
    scene.look()
    scene.server.body = body
    scene.clock.now += HOUR
    scene.look()

    assert scene.reloads("refused") == 1
    assert scene.check(issuer.token()) == ALICE


def test_a_redirection_is_not_followed(scene: Scene) -> None:
    scene.server.status = 302

    with pytest.raises(ValueError, match="must answer itself, it redirects with 302"):
        fetch(scene.server.url)


def test_an_endless_answer_is_refused(scene: Scene) -> None:
    scene.server.body = b" " * (MAX_BYTES + 1)

    with pytest.raises(ValueError, match="must be at most"):
        fetch(scene.server.url)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/keys", "data:,x"])
def test_only_http_is_spoken(url: str) -> None:
    with pytest.raises(ValueError, match="must begin with https"):
        fetch(url)


def entry(issuer: Issuer, kid: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in json.loads(issuer.jwks)["keys"] if each["kid"] == kid)
    return found


def test_only_public_signing_keys_of_the_two_kinds_count(issuer: Issuer) -> None:
    rsa_entry, ec_entry = entry(issuer, "rsa"), entry(issuer, "ec")
    weak = issuer._public("RS256", rsa.generate_private_key(65537, 1024))
    other_curve = issuer._public("ES384", ec.generate_private_key(ec.SECP384R1()))
    useless = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"},
        {**rsa_entry, "alg": "RS512", "kid": "other algorithm"},
        {**rsa_entry, "use": "enc", "kid": "for encryption"},
        {**jwk("RS256", issuer.rsa), "kid": "private"},
        {**weak, "kid": "weak"},
        {**other_curve, "kid": "other curve"},
        {**ec_entry, "x": "AA", "kid": "not on the curve"},
    ]

    assert set(read_jwks(json.dumps({"keys": [rsa_entry, ec_entry, *useless]}).encode())) == {"rsa", "ec"}
    for each in useless:
        with pytest.raises(ValueError, match="must hold a public key for RS256 or ES256"):
            read_jwks(json.dumps({"keys": [each]}).encode())


def test_a_token_without_a_key_name_is_of_the_only_key_there_is(scene: Scene, issuer: Issuer) -> None:
    assert scene.check(issuer.token(None)) == Cause.TOKEN

    scene.server.body = json.dumps({"keys": [entry(issuer, "rsa")]}).encode()
    scene.clock.now += 61
    scene.look()
    asyncio.run(scene.keys.refresh(0.0))
    assert scene.check(issuer.token(None)) == ALICE


PARTS = st.one_of(
    st.text("abcAB01-_=.", max_size=30),
    st.sampled_from(["e30", "eyJhbGciOiJSUzI1NiJ9", "eyJhbGciOiJub25lIn0", "W10", "bnVsbA", "MQ", "IiI"]),
)


class NoKeys:
    """An issuer that has none."""

    async def find(self, kid: str | None) -> Any:
        raise Refused(Cause.TOKEN)

    async def watch(self) -> None: ...


@settings(deadline=None, max_examples=60)
@given(parts=st.lists(PARTS, max_size=5), junk=st.text(max_size=10))
def test_no_text_whatever_is_an_error_of_another_kind(parts: list[str], junk: str) -> None:
    tokens = Tokens("issuer", "audience", NoKeys())

    async def run() -> None:
        for text in (".".join(parts), ".".join(parts) + junk):
            with pytest.raises(Refused):
                await tokens.check(text)

    asyncio.run(run())
