"""Spans of both kinds of client, to the end of every call."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from rosacea_client import AsyncFaceClient, FaceClient, InvalidRequest

from ...serving.hosted import hosted
from ...serving.observe.test_traces import METHOD, STREAM, Traced, client_tracing, serving_tracing
from ..both import KINDS, Either
from ..fakes import FakeFaces, failure

pytest.importorskip("opentelemetry.sdk", reason="needs rosacea[otel]")

both = pytest.mark.parametrize("kind", KINDS)
CODE = "rpc.grpc.status_code"


@both
def test_the_services_spans_are_children_of_the_clients(kind: Any) -> None:
    client_side, service_side = Traced(), Traced()
    with hosted(tracing=serving_tracing(service_side)) as service:
        either = Either(kind, service.gateway.address, tracing=client_tracing(client_side))
        either.generate([1])
        either.stream(range(5))

    for name in (METHOD, STREAM):
        (sent,), (served,) = client_side.spans(name), service_side.spans(name)
        assert served.parent.span_id == sent.context.span_id
        assert served.context.trace_id == sent.context.trace_id
        assert sent.attributes[CODE] == "OK"


@both
def test_each_attempt_has_a_span_with_its_code(service: FakeFaces, address: str, kind: Any) -> None:
    traced = Traced()
    service.failures = [failure(grpc.StatusCode.UNAVAILABLE, "no"), failure(grpc.StatusCode.INVALID_ARGUMENT, "no")]
    with pytest.raises(InvalidRequest):
        Either(kind, address, tracing=client_tracing(traced)).generate([1])

    assert [span.attributes[CODE] for span in traced.spans(METHOD)] == ["UNAVAILABLE", "INVALID_ARGUMENT"]


def test_a_stream_that_is_not_read_to_its_end_has_a_span_that_ends(address: str) -> None:
    traced = Traced()
    tracing = client_tracing(traced)
    with FaceClient(address, tracing=tracing) as client:
        stream = client.stream(range(60))
        next(stream)
        stream.close()

    async def awaited() -> None:
        async with AsyncFaceClient(address, tracing=tracing) as client:
            stream = client.stream(range(60))
            await anext(stream)
            await stream.aclose()

    asyncio.run(awaited())

    assert [span.attributes[CODE] for span in traced.spans(STREAM)] == ["CANCELLED", "CANCELLED"]


def test_a_channel_of_ones_own_is_traced_when_it_is_made(address: str) -> None:
    traced = Traced()
    tracing = client_tracing(traced)

    async def call() -> None:
        async with grpc.aio.insecure_channel(address, interceptors=tracing.awaited()) as channel:
            with pytest.raises(ValueError, match="takes its interceptors when it is made"):
                AsyncFaceClient(channel=channel, tracing=tracing)
            await AsyncFaceClient(channel=channel).generate([1])

    asyncio.run(call())

    assert len(traced.spans(METHOD)) == 1
