"""The port for metrics: whatever arrives there, it answers Prometheus, holds little, and logs nothing but JSON."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import struct
import time
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from rosacea_serving.background import Background
from rosacea_serving.observe import exposition
from rosacea_serving.observe.exposition import MOST_CONNECTIONS, REQUEST_BYTES, Pages, Server, serve_metrics
from rosacea_serving.observe.logs import JsonFormatter
from rosacea_serving.observe.metrics import Metrics
from tests.faults.garbage import garbage

from ...ports import free_port
from ...waiting import HANG_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, a scrape is answered before its connection has had its time."""
    monkeypatch.setattr(exposition, "CONNECTION_SECONDS", HANG_SECONDS)
    monkeypatch.setattr(exposition.Handler, "timeout", HANG_SECONDS)


HALF_REQUESTS = [*garbage(), b"GET", b"GET /metrics HTTP/1.1\r\n", b"GET /metrics HTTP/9.9\r\n\r\n", b"\r\n" * 100]


@contextmanager
def port_of(metrics: Metrics) -> Iterator[int]:
    port = free_port()
    with serve_metrics(f"127.0.0.1:{port}", metrics.registry, metrics.background):
        yield port


def scrape(port: int, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    "accept",
    ["", "*/*", ";;;,,,", "text/plain;version=abc", "application/openmetrics-text;version=abc", "a/b;version=1.0.0;x",
     "application/openmetrics-text;version=99.0.0;escaping=odd", "\xff",
     "text/plain;version=1.0.0;escaping=allow-utf-8", "application/openmetrics-text;version=" + "1." * 1000],
)  # fmt: skip
def test_whatever_form_is_asked_for_there_is_a_page(accept: str) -> None:
    with port_of(Metrics()) as port:
        status, page = scrape(port, Accept=accept)

    assert status == 200
    assert b"rosacea_build_info" in page


def test_prometheus_gets_its_own_form_and_compressed() -> None:
    accept = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain"
    with port_of(Metrics()) as port:
        _, page = scrape(port, Accept=accept, Accept_Encoding="gzip")

    parse: Any = text_string_to_metric_families
    assert "rosacea_build_info" in {each.name for each in parse(gzip.decompress(page).decode())}


@pytest.mark.parametrize("method", ["POST", "PUT", "TRACE", "OPTIONS", "FOO"])
def test_other_methods_and_paths_are_refused_without_a_word_of_what_we_are_made_of(method: str) -> None:
    with port_of(Metrics()) as port:
        answers = [scrape(port, method=method), scrape(port, "/"), scrape(port, "/metrics/../etc"), scrape(port, "//")]

    for status, body in answers:
        assert 400 <= status <= 501 and status != 500
        assert b"Python" not in body and b"Traceback" not in body


def test_garbage_resets_and_silence_end_in_no_line_on_stderr_and_in_no_failure(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics()
    with port_of(metrics) as port:
        with monkeypatch.context() as hasty:
            hasty.setattr(exposition, "CONNECTION_SECONDS", 0.2)
            idle = socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS)
            for data in HALF_REQUESTS:
                with (
                    socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS) as attacker,
                    suppress(OSError),  # it has been let go already
                ):
                    attacker.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    attacker.sendall(data)
            assert idle.recv(1) == b"", "who says nothing is let go"
            idle.close()
        assert scrape(port)[0] == 200

    assert capfd.readouterr().err == ""
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


def test_who_dribbles_is_let_go_like_who_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "CONNECTION_SECONDS", 0.3)
    with (
        port_of(Metrics()) as port,
        socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS) as attacker,
        pytest.raises(OSError),
    ):
        for _ in range(REQUEST_BYTES // 2):  # fewer than what a request may have
            attacker.sendall(b"G")
            time.sleep(0.01)


def test_headers_without_end_are_cut() -> None:
    with port_of(Metrics()) as port, socket.create_connection(("127.0.0.1", port), timeout=120) as attacker:
        with pytest.raises(OSError):
            for _ in range(100_000):
                attacker.sendall(b"x: " + b"y" * 1000 + b"\r\n")
        assert scrape(port)[0] == 200


def test_more_connections_than_there_may_be_cost_the_oldest_and_no_scrape() -> None:
    with port_of(Metrics()) as port:
        held = [socket.create_connection(("127.0.0.1", port), timeout=120) for _ in range(3 * MOST_CONNECTIONS)]
        assert scrape(port)[0] == 200
        assert held[0].recv(1) == b""
        for each in held:
            each.close()


def test_a_page_that_cannot_be_written_is_told_logged_and_counted_and_the_next_one_is(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics()

    def odd(self: Any, form: Any) -> bytes:
        raise ArithmeticError("a metric of the wrong kind")

    with port_of(metrics) as port:
        with monkeypatch.context() as broken:
            broken.setattr(Pages, "get", odd)
            assert scrape(port) == (503, b"the metrics cannot be written now\n")
        assert b'rosacea_background_failures_total{task="metrics"} 1.0' in scrape(port)[1]

    (line,) = [JsonFormatter().format(each) for each in caplog.records if each.exc_info]
    assert "ArithmeticError" in json.loads(line)["trace"]


def test_the_server_goes_on_after_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[None] = []

    def odd(self: Server) -> None:
        turns.append(None)
        if len(turns) == 1:
            raise LookupError("odd")

    monkeypatch.setattr(Server, "service_actions", odd)
    port = free_port()
    with serve_metrics(f"127.0.0.1:{port}", CollectorRegistry(), Background()):
        assert scrape(port)[0] == 200
        assert scrape(port)[0] == 200
    assert turns
