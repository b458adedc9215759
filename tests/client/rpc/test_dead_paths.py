"""Paths that go silent: nothing is carried over a connection any more, and nobody is told."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import grpc
import pytest

from rosacea_client import AsyncFaceClient, DeadlineExceeded, FaceClient
from rosacea_client.data.feed import Feed
from rosacea_client.data.plan import Sample
from rosacea_client.data.request import Look
from rosacea_client.data.service import Service
from rosacea_client.rpc.link import Connection

from ...faults.proxy import Proxy, ThreadedProxy, proxied
from ..fakes import MODEL, FakeFaces

if TYPE_CHECKING:
    from collections.abc import Iterator

SHORT_SECONDS, LONG_SECONDS = 2.0, 240.0  # of a call that must expire, and of one that must not


@pytest.fixture
def path(address: str) -> Iterator[ThreadedProxy]:
    with proxied(address) as path:
        yield path


def expires(client: FaceClient) -> None:
    """A call with a short deadline that it does not meet."""
    client.timeout_seconds = SHORT_SECONDS
    with pytest.raises(DeadlineExceeded):
        client.generate([1])
    client.timeout_seconds = LONG_SECONDS


def test_a_silent_path_costs_a_client_one_call(path: ThreadedProxy) -> None:
    with FaceClient(path.address, LONG_SECONDS) as client:
        for _ in range(2):
            client.model()
            path.freeze()
            expires(client)
            assert [client.generate([seed])[0].seed for seed in (2, 3)] == [2, 3]


async def test_a_silent_path_costs_an_async_client_one_call(address: str) -> None:
    async with Proxy(address) as path, AsyncFaceClient(path.address, LONG_SECONDS) as client:
        await client.model()
        path.freeze()
        client.timeout_seconds = SHORT_SECONDS
        with pytest.raises(DeadlineExceeded):
            await client.model()
        client.timeout_seconds = LONG_SECONDS
        await client.model()


def test_without_a_new_connection_every_call_would_expire(path: ThreadedProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaceClient, "_replace", lambda *_: None)
    with FaceClient(path.address, LONG_SECONDS) as client:
        client.model()
        path.freeze()
        for _ in range(3):
            expires(client)


def test_a_service_that_is_slow_keeps_its_connection_while_others_are_answered(
    path: ThreadedProxy, service: FakeFaces
) -> None:
    with FaceClient(path.address, LONG_SECONDS) as client:
        client.model()
        (before,) = client._connections
        stream = client.stream(range(1000))
        for _ in range(100):
            next(stream)
        client._watch_life(DeadlineExceeded("late"), before)
        assert client._connections == [before]
        stream.close()


def test_a_connection_is_silent_only_if_it_ever_spoke() -> None:
    now = [100.0]
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        connection = Connection(channel, clock=lambda: now[0])
        now[0] += 1000
        assert not connection.is_silent(1)
        connection.heard()
        assert not connection.is_silent(1)
        now[0] += 1
        assert connection.is_silent(1)


class Closing:
    """A channel that says whether it is closed."""

    closed = False

    def close(self) -> None:
        self.closed = True


def test_a_connection_that_was_replaced_is_closed_after_its_last_call() -> None:
    channel = Closing()
    with grpc.insecure_channel("127.0.0.1:1") as through:
        connection = Connection(channel, through)
        a_call_holds_it = [connection]
        connection.close_when_unused()
        del connection
        gc.collect()
        assert not channel.closed
        a_call_holds_it.clear()
        gc.collect()
        assert channel.closed


def test_a_data_pipeline_goes_on_over_a_silent_path(path: ThreadedProxy) -> None:
    feed = Feed(Service(path.address, SHORT_SECONDS), Look(format="raw"), look_ahead=8, patience_seconds=240)
    samples = [Sample(index=number, epoch=0, seed=number, class_index=None) for number in range(64)]
    seen = []
    for sample, face in feed.faces(MODEL, samples):
        seen.append((sample.seed, face.seed))
        if len(seen) == 20:
            path.freeze()
    feed.service.close()

    assert seen == [(number, number) for number in range(64)]


@pytest.mark.slow
def test_keepalive_takes_a_stream_up_again_long_before_its_deadline(path: ThreadedProxy, service: FakeFaces) -> None:
    """Its control is gRPC's own limit, a minute."""
    with FaceClient(path.address, timeout_seconds=55) as client:
        seeds = []
        for face in client.stream(range(5000), format="raw"):
            seeds.append(face.seed)
            if len(seeds) == 100:
                path.freeze()

    assert seeds == list(range(5000))
    assert service.calls == 2
