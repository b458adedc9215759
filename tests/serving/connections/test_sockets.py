"""The service at a Unix socket."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from rosacea_client import FaceClient, Tls
from rosacea_client.commands.health import ask
from rosacea_serving.settings import Settings

from ...client.both import KINDS, Either
from ..credentials import Authority, add_key
from ..hosted import SETTINGS, Hosted, hosted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def at(path: Path, **more: Any) -> Settings:
    return SETTINGS.model_copy(update={"address": f"unix:{path}", **more})


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Hosted]:
    with hosted(at(tmp_path / "faces.sock", health_address=f"unix:{tmp_path}/health.sock")) as service:
        yield service


@pytest.mark.parametrize("kind", KINDS)
def test_clients_call_over_a_socket(service: Hosted, kind: Any) -> None:
    assert service.gateway.address.startswith("unix:/")
    assert [face.seed for face in Either(kind, service.gateway.address).generate(range(5))] == list(range(5))
    assert [face.seed for face in Either(kind, service.gateway.address).stream(range(50))] == list(range(50))


def test_health_answers_at_sockets(service: Hosted, tmp_path: Path) -> None:
    assert ask(service.gateway.address, "", 10) == "SERVING"
    assert ask(f"unix:{tmp_path}/health.sock", "", 10) == "SERVING"


def test_a_key_may_travel_over_a_socket_in_plain_text(tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys.jsonl", "clinic")
    settings = at(tmp_path / "faces.sock", api_keys=tmp_path / "keys.jsonl")
    with hosted(settings) as service, FaceClient(service.gateway.address, api_key=key) as client:
        assert client.models()


def test_tls_works_over_a_socket(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    certificate, key = authority.issue("server")
    settings, tls = at(tmp_path / "faces.sock", tls_certificate=certificate, tls_key=key), Tls(ca_file=authority.file)
    with hosted(settings) as service, FaceClient(service.gateway.address, tls=tls) as client:
        assert client.models()


def test_a_socket_in_use_is_not_taken_and_one_that_was_left_is(service: Hosted, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="address must be free and of this machine, got unix:/"), ExitStack() as stack:
        stack.enter_context(hosted(at(tmp_path / "faces.sock")))
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="must be free"), ExitStack() as stack:
        stack.enter_context(hosted(at(tmp_path / "file")))
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left.sock"))
    with hosted(at(tmp_path / "left.sock")) as other, FaceClient(other.gateway.address) as client:
        assert client.models()
    assert not (tmp_path / "left.sock").exists()
    with FaceClient(service.gateway.address) as client:
        assert client.models()


@pytest.mark.parametrize("address", ["unix:", "unix:/" + "x" * 107, "unix.sock", "metrics"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="an address must be HOST:PORT"):
        Settings(address=address)


def test_metrics_have_a_port_in_any_case() -> None:
    with pytest.raises(ValueError, match="an address must be HOST:PORT, got"):
        Settings(metrics_address="unix:/run/metrics.sock")


def test_a_socket_is_as_safe_as_loopback() -> None:
    settings = Settings(address="unix:/run/rosacea/faces.sock")

    assert not settings.missing_protection
    assert settings.shows_itself
