"""Several machines, IPv6, and what the environment says of them."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse

from rosacea_client import DEFAULT_ADDRESS, FaceClient, Tls, Unavailable
from rosacea_client.rpc.environment import stated

from ...serving.credentials import Authority, add_key
from ...serving.hosted import SETTINGS, hosted
from ..both import KINDS, Either
from ..fakes import FakeFaces, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
PATIENCE_SECONDS = 60.0

both = pytest.mark.parametrize("kind", KINDS)


class Machine:
    """A fake service that says how it is."""

    def __init__(self) -> None:
        self.faces = FakeFaces()
        self.health = HealthServicer()
        self.health.set("", SERVING)


@pytest.fixture
def machines() -> tuple[Machine, Machine]:
    return Machine(), Machine()


@pytest.fixture
def client(machines: tuple[Machine, Machine]) -> Iterator[FaceClient]:
    with contextlib.ExitStack() as stack:
        addresses = [stack.enter_context(serving(each.faces, each.health)) for each in machines]
        yield stack.enter_context(FaceClient(",".join(addresses), timeout_seconds=60))
        for each in machines:
            each.health.enter_graceful_shutdown()


def shares(client: FaceClient, machines: tuple[Machine, Machine]) -> list[int]:
    """How many of ten calls each machine gets."""
    before = [each.faces.calls for each in machines]
    for seed in range(10):
        client.generate([seed])
    return [each.faces.calls - calls for each, calls in zip(machines, before, strict=True)]


def settles(client: FaceClient, machines: tuple[Machine, Machine], wanted: list[int]) -> bool:
    """Whether calls come to be shared like that."""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE_SECONDS:
        if shares(client, machines) == wanted:
            return True
    return False


def test_a_machine_that_is_not_well_gets_no_calls_until_it_is(
    client: FaceClient, machines: tuple[Machine, Machine]
) -> None:
    assert settles(client, machines, [5, 5])

    machines[0].health.set("", NOT_SERVING)
    assert settles(client, machines, [0, 10])
    assert shares(client, machines) == [0, 10]

    machines[0].health.set("", SERVING)
    assert settles(client, machines, [5, 5])


def test_where_no_machine_is_well_that_is_the_error(client: FaceClient, machines: tuple[Machine, Machine]) -> None:
    for each in machines:
        each.health.set("", NOT_SERVING)

    with pytest.raises(Unavailable):
        client.generate([1])

    assert [each.faces.calls for each in machines] == [0, 0]


def test_several_addresses_are_reached_over_tls_under_one_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    certificate, key = authority.issue("server")
    api_key = add_key(tmp_path / "keys.jsonl", "clinic")
    update = {"tls_certificate": certificate, "tls_key": key, "api_keys": tmp_path / "keys.jsonl"}
    settings = SETTINGS.model_copy(update=update)
    with hosted(settings) as one, hosted(settings) as two:
        target = f"{one.gateway.address},{two.gateway.address}"
        for kind in KINDS:
            tls = Tls(ca_file=authority.file, server_name="localhost")
            either = Either(kind, target, tls=tls, api_key=api_key, timeout_seconds=60)
            assert [face.seed for face in either.stream(range(9))] == list(range(9))
        with (
            FaceClient(target, tls=Tls(ca_file=authority.file, server_name="another.example")) as client,
            pytest.raises(Unavailable),
        ):
            client.models()

    with pytest.raises(ValueError, match="several addresses over TLS need a server_name"):
        FaceClient(target, tls=Tls(ca_file=authority.file))


@both
@pytest.mark.parametrize("addresses", ["{0}", "{0},{0}"])
def test_ipv6_addresses_are_reached(kind: Any, addresses: str) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with serving(FakeFaces(), HealthServicer(), host="[::1]") as address:
        either = Either(kind, addresses.format(address), timeout_seconds=60)

        assert [face.seed for face in either.generate([1, 2])] == [1, 2]


def test_addresses_of_both_kinds_do_not_go_together() -> None:
    with FaceClient("127.0.0.1:7433,[::1]:7433") as client, pytest.raises(ValueError, match="all be IPv4 or all"):
        client.models()


# The environment


@both
def test_the_environment_says_where_and_who(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path, "ca")
    certificate, key = authority.issue("server")
    api_key = add_key(tmp_path / "keys.jsonl", "clinic")
    update = {"tls_certificate": certificate, "tls_key": key, "api_keys": tmp_path / "keys.jsonl"}
    with hosted(SETTINGS.model_copy(update=update)) as service:
        monkeypatch.setenv("ROSACEA_ADDRESS", service.gateway.address)
        monkeypatch.setenv("ROSACEA_CA_FILE", str(authority.file))
        monkeypatch.setenv("ROSACEA_API_KEY", api_key)

        models = Either(kind.from_environment).models()

    assert [model.name for model in models] == ["models/demo"]


def test_every_variable_is_read() -> None:
    found = stated({
        "ROSACEA_ADDRESS": "a:1", "ROSACEA_CA_FILE": "ca.pem", "ROSACEA_CLIENT_CERT": "me.pem",
        "ROSACEA_CLIENT_KEY": "me.key", "ROSACEA_SERVER_NAME": "faces", "ROSACEA_API_KEY_FILE": "mine.key",
    })  # fmt: skip

    tls = Tls(ca_file="ca.pem", certificate_file="me.pem", key_file="me.key", server_name="faces")
    assert found == {"target": "a:1", "tls": tls, "api_key": Path("mine.key")}


@pytest.mark.parametrize("switch", ["1", "true", "YES", "on"])
def test_empty_variables_are_none_and_a_switch_is_one(switch: str) -> None:
    empty = {"ROSACEA_ADDRESS": "", "ROSACEA_CA_FILE": "", "ROSACEA_API_KEY": "", "OTHER": "x"}

    assert stated(empty) == {"target": DEFAULT_ADDRESS, "tls": False, "api_key": None}
    assert stated({"ROSACEA_TLS": switch})["tls"] == Tls()
    assert stated({"ROSACEA_TLS": "off"})["tls"] is False


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ROSACEA_TLS": "perhaps"}, "ROSACEA_TLS must be 1 or 0, got 'perhaps'"),
        ({"ROSACEA_API_KEY": "a", "ROSACEA_API_KEY_FILE": "b"}, "cannot both be set"),
        ({"ROSACEA_CLIENT_CERT": "me.pem"}, "certificate_file and key_file go together"),
    ],
)
def test_what_cannot_be_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FaceClient.from_environment(environment=environment)


def test_arguments_beat_the_environment() -> None:
    client = FaceClient.from_environment(5.0, environment={"ROSACEA_ADDRESS": "a:1"}, target="b:2")

    assert (client.target, client.timeout_seconds) == ("b:2", 5.0)
