"""X10, as far as secrets go: no key, token, latent or private key in a log, a metric or an error; and safe settings."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry, generate_latest

from rosacea_client import FaceClient, FaceError, Tls
from rosacea_serving.access.access import Access
from rosacea_serving.settings import Settings

from ..credentials import AUDIENCE, Authority, Issuer, add_key, client_credentials
from ..hosted import SETTINGS, hosted, open_channel

if TYPE_CHECKING:
    from pathlib import Path

CANARY = 0.123456789
LATENT = str(np.float32(CANARY))[:8]


class Told:
    """Everything that was logged at any level, by anybody, and everything that callers and scrapers were told."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        self._caplog = caplog
        self.texts: list[str] = []

    def text(self) -> str:
        formatter = logging.Formatter("%(name)s %(message)s %(args)s %(pathname)s")
        return "\n".join([*self.texts, *(formatter.format(record) for record in self._caplog.records)])


def ask(told: Told, address: str, tls_files: Authority, credential: str) -> None:
    """Good and bad requests with a credential, each with a latent that must be told to nobody."""
    with FaceClient(address, tls=Tls(ca_file=tls_files.file), api_key=credential) as client:
        for z in ([CANARY] * 8, [CANARY] * 9, [CANARY] * 7 + [float("inf")]):
            try:
                client.generate(z=[z])
            except FaceError as error:
                told.texts += [str(error), repr(error), str(error.metadata), str(error.violations)]
        told.texts.append(repr(vars(client)))


def test_nothing_secret_is_told_to_anybody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority, issuer = Authority(tmp_path, "ca"), Issuer()
    certificate, tls_key = authority.issue("server")
    keys = tmp_path / "keys.jsonl"
    key, expired = add_key(keys, "alice"), add_key(keys, "alice", begins=-7200)
    (tmp_path / "jwks.json").write_bytes(issuer.jwks)
    update = {
        "tls_certificate": certificate, "tls_key": tls_key, "api_keys": keys, "oidc_issuer": issuer.name,
        "oidc_audience": AUDIENCE, "oidc_jwks": str(tmp_path / "jwks.json"),
    }  # fmt: skip
    token, strange = issuer.token(), Issuer().token()
    credentials = [key, key[:-1], key[:-4] + "aaaa", expired, token, strange]
    told = Told(caplog)
    settings = SETTINGS.model_copy(update=update)
    with hosted(settings, credentials=client_credentials(authority)) as service:
        service.workers.fail = lambda job: fail_with(job) if job.items[0].HasField("z") else None
        for credential in credentials:
            ask(told, service.gateway.address, authority, credential)
        told.texts.append(generate_latest(service.gateway.metrics.registry).decode())
    told.texts.append(str(settings) + repr(settings))

    text = told.text()
    private = tls_key.read_text().splitlines()[1]
    canaries = [*credentials, *(each[-40:] for each in credentials), private, LATENT]
    assert "were refused: unknown_key" in text and "rosacea_access_refused_total" in text
    assert [canary for canary in canaries if canary in text] == []


def fail_with(job: Any) -> None:
    """A defect of ours, which is logged with its traceback."""
    raise RuntimeError("could not draw")


@pytest.mark.parametrize("logger", ["rosacea_serving.access.door", "grpc", "anybody"])
def test_a_secret_that_is_logged_would_be_found(caplog: pytest.LogCaptureFixture, logger: str) -> None:
    told = Told(caplog)

    logging.getLogger(logger).debug("checking %s", "rsk_canary")

    assert "rsk_canary" in told.text()


def test_a_service_does_not_start_with_a_secret_that_others_can_read(tmp_path: Path) -> None:
    certificate, tls_key = Authority(tmp_path, "ca").issue("server")
    keys = tmp_path / "keys.jsonl"
    add_key(keys, "alice")
    for file, update in [
        (tls_key, {"tls_certificate": certificate, "tls_key": tls_key}),
        (keys, {"api_keys": keys}),
    ]:
        settings = SETTINGS.model_copy(update=update)
        Access(settings, CollectorRegistry())
        file.chmod(0o640)
        with pytest.raises(ValueError, match=f"{file.name}: .* must have mode 0600 or less, it has 0640"):
            Access(settings, CollectorRegistry())


BEYOND = {"address": "0.0.0.0:7433"}
TLS = {"tls_certificate": "server.pem", "tls_key": "server.key"}
OIDC = {"oidc_issuer": "i", "oidc_audience": "a", "oidc_jwks": "https://issuer.example/jwks"}


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (BEYOND, r"address beyond loopback needs TLS \(.*\) and identity \(.*\), or insecure = true, got '0.0.0.0"),
        ({"address": "[::]:7433"}, "address beyond loopback needs TLS"),
        ({"address": "faces.example:7433"}, "address beyond loopback needs TLS"),
        (BEYOND | TLS, r"address beyond loopback needs identity \("),
        (BEYOND | {"api_keys": "keys.jsonl"}, r"address beyond loopback needs TLS \([a-z_, ]*\), or insecure"),
        ({"tls_key": "server.key"}, "tls_certificate and tls_key go together"),
        ({"tls_client_ca": "ca.pem"}, "tls_client_ca needs tls_certificate and tls_key"),
        ({"oidc_issuer": "https://issuer.example"}, "oidc_issuer, oidc_audience and oidc_jwks go together"),
        (OIDC | {"oidc_jwks": "http://issuer.example/jwks"}, "oidc_jwks must be a file or begin with https://"),
        (
            OIDC | {"oidc_jwks": "http://127.0.0.1@issuer.example/jwks"},
            "oidc_jwks must be a file or begin with https://",
        ),
        (OIDC | {"oidc_jwks": "ftp://127.0.0.1/jwks"}, "oidc_jwks must be a file or begin with https://"),
        (BEYOND | {"insecure": True, "channelz": True}, "channelz shows every connection"),
    ],
)
def test_settings_that_leave_something_open_are_refused(update: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings.read(update)


@pytest.mark.parametrize(
    "update",
    [
        BEYOND | {"insecure": True},
        BEYOND | TLS | {"api_keys": "keys.jsonl"},
        BEYOND | TLS | {"tls_client_ca": "ca.pem"},
        BEYOND | TLS | OIDC,
        OIDC | {"oidc_jwks": "http://127.0.0.1:80/jwks"},
        {"address": "localhost:7433"},
        {"address": "[::1]:7433"},
        {"address": "127.1.2.3:7433"},
    ],
)
def test_settings_that_leave_nothing_open_are_taken(update: dict[str, Any]) -> None:
    assert Settings.read(update)


def test_what_is_missing_is_said_when_it_is_wanted_so(caplog: pytest.LogCaptureFixture) -> None:
    with hosted(SETTINGS.model_copy(update={"address": "0.0.0.0:0", "insecure": True})):
        pass

    assert "listening on 0.0.0.0:0 without TLS" in caplog.text and "and identity" in caplog.text


def test_health_alone_is_told_in_plain_text_where_it_is_wanted(tmp_path: Path) -> None:
    certificate, tls_key = Authority(tmp_path, "ca").issue("server")
    update = {"tls_certificate": certificate, "tls_key": tls_key, "health_address": "127.0.0.1:0"}
    with hosted(SETTINGS.model_copy(update=update)) as service:
        address = f"127.0.0.1:{service.gateway.health_port}"
        with open_channel(address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=120)
            with pytest.raises(grpc.RpcError) as refusal:
                call: Any = channel.unary_unary("/rosacea.v1.FaceService/ListModels")
                call(b"", timeout=120)

    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    error: Any = refusal.value
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
