"""Connections of the service: how long they live, what goes on over them, and how often they may be pinged."""

from __future__ import annotations

import select
import socket
import time
from typing import TYPE_CHECKING, Any

import grpc
import h2.config
import h2.connection
import h2.errors
import h2.events
import psutil
import pytest

from rosacea.v1 import faces_pb2 as pb
from rosacea_client import FaceClient
from rosacea_serving.connections.ports import port_options
from rosacea_serving.settings import Settings

from ...waiting import HANG_SECONDS, wait_for
from ..hosted import SETTINGS, Hosted, hosted
from ..names import NAME, names

if TYPE_CHECKING:
    from collections.abc import Iterator

CHANGES = 20
SHORT_LIVED = SETTINGS.model_copy(update={"connection_age_seconds": 0.4})
PATIENCE_SECONDS = 150.0  # for what takes some seconds where nothing else runs


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        ({}, {"grpc.max_connection_age_ms": 60_000}),
        ({"connection_age_seconds": 0.0}, {}),
        (
            {"connection_age_seconds": 90.0, "connection_grace_seconds": 30.0},
            {"grpc.max_connection_age_ms": 90_000, "grpc.max_connection_age_grace_ms": 30_000},
        ),
    ],
)
def test_the_settings_say_how_long_connections_live(update: dict[str, Any], expected: dict[str, int]) -> None:
    options = dict(port_options(Settings().model_copy(update=update)))

    assert {name: value for name, value in options.items() if "connection_age" in name} == expected


def connections(service: Hosted) -> set[int]:
    """The ports at the other end of the service's connections."""
    return {
        each.raddr.port
        for each in psutil.Process().net_connections("tcp")
        if each.status == psutil.CONN_ESTABLISHED and each.laddr.port == service.gateway.port
    }


@pytest.mark.slow
def test_no_call_and_no_stream_fails_when_connections_reach_their_age() -> None:
    """Without retries: a call that the end of a connection hit would be seen."""
    seen: set[int] = set()
    with (
        hosted(SHORT_LIVED) as service,
        FaceClient(service.gateway.address, retries=False) as caller,
        FaceClient(service.gateway.address, retries=False, timeout_seconds=2 * PATIENCE_SECONDS) as streamer,
    ):
        stream = streamer.stream(range(100_000))
        began, seeds, calls = time.monotonic(), [], 0
        while len(seen) < CHANGES + 1 and time.monotonic() - began < PATIENCE_SECONDS:
            caller.generate([calls])
            calls += 1
            seeds += [next(stream).seed for _ in range(5)]
            seen |= connections(service)
        stream.close()

    assert len(seen) > CHANGES, "so many connections came and went"
    assert seeds == list(range(len(seeds)))
    assert calls > CHANGES


@pytest.mark.slow
def test_connections_of_clients_that_watch_health_come_and_go_as_well() -> None:
    seen: set[int] = set()
    with (
        hosted(SHORT_LIVED) as one,
        hosted(SHORT_LIVED) as two,
        FaceClient(f"{one.gateway.address},{two.gateway.address}", retries=False) as client,
    ):
        while len(seen) < CHANGES:
            client.generate([1])
            seen |= connections(one)
        # None stays beyond its age for its watch of health.
        wait_for(lambda: client.generate([1]) and not seen & connections(one))


def served(service: Hosted) -> float:
    """Calls of GetModel that were answered."""
    labels = {"grpc_method": "GetModel", "grpc_code": "OK", "grpc_service": "rosacea.v1.FaceService"}
    labels["grpc_type"] = "unary"
    return service.gateway.metrics.registry.get_sample_value("grpc_server_handled_total", labels) or 0.0


@pytest.mark.slow
@pytest.mark.parametrize("age_seconds", [1.0, 0.0])
def test_a_running_client_finds_a_replica_that_is_added(age_seconds: float) -> None:
    """Without an age it never does."""
    settings = SETTINGS.model_copy(update={"connection_age_seconds": age_seconds})
    with hosted(settings) as one, names() as found:
        port = one.gateway.port
        with (
            hosted(settings.model_copy(update={"address": f"127.0.0.2:{port}"})) as two,
            FaceClient(f"dns://{found.server}/{NAME}:{port}", retries=False) as client,
        ):
            client.model()
            found.found.append("127.0.0.2")

            def call_until_served(service: Hosted, calls: int) -> None:
                enough = served(service) + calls
                wait_for(lambda: client.model() and served(service) >= enough)

            if age_seconds:
                for each in (two, one, two):  # neither is left out from then on
                    call_until_served(each, 10)
            else:
                end = time.monotonic() + 10
                while time.monotonic() < end:
                    client.model()
                    assert not served(two)
                    time.sleep(0.02)

    assert found.questions


def goaway(events: list[h2.events.Event]) -> h2.events.ConnectionTerminated | None:
    return next((event for event in events if isinstance(event, h2.events.ConnectionTerminated)), None)


def ping(port: int, times: int, every_seconds: float) -> Iterator[h2.events.ConnectionTerminated]:
    """Ping over a connection without calls, each time so long after the answer to the last ping; what the service says
    when it hangs up, nothing where it does not."""
    http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    with socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS) as raw:
        http.initiate_connection()
        for _ in range(times):
            http.ping(b"rosacea!")
            events: list[h2.events.Event] = []
            while not any(isinstance(event, h2.events.PingAckReceived) for event in events):
                raw.sendall(http.data_to_send())
                data = raw.recv(4096)
                events += http.receive_data(data)
                if said := goaway(events):
                    yield said
                if said or not data:
                    return
            end = time.monotonic() + every_seconds
            raw.sendall(http.data_to_send())
            while (left := end - time.monotonic()) > 0:  # the service's settings are answered meanwhile
                if select.select([raw], [], [], left)[0]:
                    data = raw.recv(4096)
                    if said := goaway(http.receive_data(data)):
                        yield said
                    if said or not data:
                        return
                    raw.sendall(http.data_to_send())


@pytest.mark.slow
@pytest.mark.parametrize(("times", "every_seconds", "hangs_up"), [(5, 6.0, False), (1000, 0.0, True)])
def test_pings_without_calls_are_welcome_unless_they_are_a_flood(
    times: int, every_seconds: float, hangs_up: bool
) -> None:
    with hosted() as service:
        said = list(ping(service.gateway.port, times, every_seconds))

    assert [each.error_code for each in said] == [h2.errors.ErrorCodes.ENHANCE_YOUR_CALM] * hangs_up


def test_a_call_of_anybodys_client_outlives_its_connections_age() -> None:
    with hosted(SHORT_LIVED) as service:
        spec = pb.FaceSpec(seed_range=pb.SeedRange(count=1000), format=pb.IMAGE_FORMAT_RAW)
        stream = service.stub.StreamFaces(pb.StreamFacesRequest(spec=spec), timeout=HANG_SECONDS)
        got = len(next(stream).faces)
        time.sleep(1.5)
        assert got + sum(len(answer.faces) for answer in stream) == 1000
        assert stream.code() is grpc.StatusCode.OK
