"""HTTP proxies in the environment: calls to this machine never go there, and errors that come from one say so."""

from __future__ import annotations

import socket
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import typer
from typer.testing import CliRunner

from rosacea_client import FaceClient, Unavailable
from rosacea_client.commands.health import health
from rosacea_client.rpc.channels import channel_options
from rosacea_client.rpc.proxies import EXCEPTIONS, VARIABLES, goes_direct, proxy_of

from ..both import KINDS, Either
from ..fakes import FakeFaces, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

both = pytest.mark.parametrize("kind", KINDS)


@contextmanager
def refusing_proxy() -> Iterator[tuple[str, list[bytes]]]:
    """An HTTP proxy that refuses every CONNECT: its address, and the first lines of what it was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, suppress(OSError):  # who asks may be gone
                    asked.append(connection.recv(4096).partition(b"\r\n")[0])
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

        thread = Thread(target=serve)
        thread.start()
        try:
            yield "{}:{}".format(*server.getsockname()), asked
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *EXCEPTIONS):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("target", "direct"),
    [
        ("127.0.0.1:7433", True), ("127.9.9.9:7433", True), ("localhost:7433", True), ("LOCALHOST:7433", True),
        ("faces.localhost:7433", True), ("[::1]:7433", True), ("ipv6:[::1]:7433", True), ("0.0.0.0:7433", True),
        ("[::ffff:127.0.0.1]:7433", True), ("dns:///localhost:7433", True), (f"{socket.gethostname()}:7433", True),
        ("unix:/run/faces.sock", True), ("unix-abstract:faces", True), ("10.0.0.1:7433,10.0.0.2:7433", True),
        ("faces.example:7433", False), ("10.0.0.1:7433", False), ("localhost.example:7433", False),
        ("dns:///faces.example:7433", False), ("ipv4:10.0.0.1:7433", False),
    ],
)  # fmt: skip
def test_which_targets_never_go_through_a_proxy(target: str, direct: bool) -> None:
    assert goes_direct(target) is direct
    assert (("grpc.enable_http_proxy", 0) in channel_options(target)) is direct


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        ({"http_proxy": "http://10.1.1.1:3128"}, "the HTTP proxy 10.1.1.1:3128 (http_proxy)"),
        ({"http_proxy": "http://one:1", "grpc_proxy": "http://two:2"}, "the HTTP proxy two:2 (grpc_proxy)"),
        ({"https_proxy": "http://user:secret@10.1.1.1:3128"}, "the HTTP proxy 10.1.1.1:3128 (https_proxy)"),
        ({"http_proxy": "http://one:1", "grpc_proxy": ""}, None),
        ({"http_proxy": "socks5://one:1"}, None),
        ({"http_proxy": "http://one:1", "no_proxy": "clinic.test, example"}, None),
        ({"http_proxy": "http://one:1", "no_proxy": "example.org"}, "the HTTP proxy one:1 (http_proxy)"),
    ],
)  # fmt: skip
def test_the_proxy_is_named_as_grpc_finds_it_and_without_its_password(
    environment: dict[str, str], found: str | None
) -> None:
    proxy = proxy_of("faces.example:7433", environment)

    assert (str(proxy) if proxy else None) == found


def test_networks_in_no_proxy_are_understood() -> None:
    environment = {"http_proxy": "http://one:1", "no_proxy": "10.0.0.0/8"}

    assert proxy_of("10.2.3.4:7433", environment) is None
    assert proxy_of("11.2.3.4:7433", environment) is not None


@both
@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_calls_to_this_machine_go_past_the_proxy(
    monkeypatch: pytest.MonkeyPatch, kind: Any, variable: str, host: str
) -> None:
    listens = "127.0.0.1" if host == "localhost" else host
    with refusing_proxy() as (proxy, asked), serving(FakeFaces(), host=listens) as bound:
        monkeypatch.setenv(variable, f"http://{proxy}")
        port = bound.rpartition(":")[2]

        assert len(Either(kind, f"{host}:{port}", timeout_seconds=60).generate([1, 2])) == 2
        assert asked == []


def test_grpc_by_itself_would_ask_the_proxy(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    with refusing_proxy() as (proxy, asked):
        monkeypatch.setenv("http_proxy", f"http://{proxy}")
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary("/rosacea.v1.FaceService/GetModel")(b"", timeout=60)  # type: ignore[arg-type]

    assert asked[0] == f"CONNECT {address} HTTP/1.1".encode()


@both
def test_an_error_that_comes_from_a_proxy_says_so(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    with refusing_proxy() as (proxy, asked):
        monkeypatch.setenv("https_proxy", f"http://doctor:secret@{proxy}")
        with pytest.raises(Unavailable) as caught:
            Either(kind, "faces.example:7433", timeout_seconds=60, retries=False).generate([1])

    assert asked[0] == b"CONNECT faces.example:7433 HTTP/1.1"
    message = str(caught.value)
    assert message.startswith(f"no answer from faces.example:7433 through the HTTP proxy {proxy} (https_proxy): ")
    assert "secret" not in message


def test_health_and_calls_take_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    with refusing_proxy() as (proxy, asked):
        monkeypatch.setenv("http_proxy", f"http://{proxy}")
        app = typer.Typer()
        app.command()(health)
        done = CliRunner().invoke(app, ["faces.example:7433", "--timeout", "60"])

    assert (done.exit_code, done.stdout.strip()) == (1, "UNAVAILABLE")
    assert f"through the HTTP proxy {proxy} (http_proxy); no_proxy=faces.example makes it go directly" in done.stderr
    assert asked


def test_nothing_is_said_of_a_proxy_that_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    with FaceClient("127.0.0.1:1", retries=False) as client, pytest.raises(Unavailable) as caught:
        client.model()

    assert "proxy" not in str(caught.value)
