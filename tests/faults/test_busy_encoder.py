"""While a large answer is being coded, probes are answered: that is why it happens on a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from rosacea.v1 import faces_pb2 as pb
from rosacea_serving.api import wire
from tests.serving.hosted import MAX_IMAGES, hosted
from tests.waiting import HANG_SECONDS

from .history import percentile

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

BUSY_SECONDS = 0.5
IMAGE_BYTES = 2**18  # a full answer is coded off the event loop


class BusyEncoder:
    """Codes answers as ever, and is busy before that in Python, so that it shares the interpreter's lock: until it is
    told that it is enough, or for so long."""

    def __init__(self, most_seconds: float) -> None:
        self.code = wire.coded_answer
        self.most_seconds = most_seconds
        self.busy, self.enough = threading.Event(), threading.Event()
        self.rounds = 0

    def __call__(self, *arguments: Any) -> bytes:
        self.busy.set()
        until = time.monotonic() + self.most_seconds
        while time.monotonic() < until and not self.enough.is_set():
            self.rounds += 1
        self.busy.clear()
        return self.code(*arguments)


async def on_the_loop(function: Callable[..., Any], *arguments: Any) -> Any:
    """The negative control: what should happen on a thread happens where all the calls are answered."""
    return function(*arguments)


def probe_while_coding(monkeypatch: pytest.MonkeyPatch, most_seconds: float) -> list[float]:
    """Seconds of each health probe that was asked and answered while the encoder was busy, which it is no more once
    that is half a second."""
    encoder = BusyEncoder(most_seconds)
    monkeypatch.setattr(wire, "coded_answer", encoder)
    request = pb.GenerateFacesRequest(spec=pb.FaceSpec(seed_range=pb.SeedRange(count=MAX_IMAGES)))
    answered: list[float] = []
    with hosted() as service:
        service.workers.image_bytes = IMAGE_BYTES
        health: Any = health_pb2_grpc.HealthStub(service.channel)
        health.Check(health_pb2.HealthCheckRequest())
        call = service.stub.GenerateFaces.future(request, timeout=2 * HANG_SECONDS)
        assert encoder.busy.wait(HANG_SECONDS), "the answer was not coded by itself"
        while encoder.busy.is_set():
            began = time.monotonic()
            assert health.Check(health_pb2.HealthCheckRequest(), timeout=2 * HANG_SECONDS).status
            if encoder.busy.is_set():
                answered.append(time.monotonic() - began)
            if sum(answered) > BUSY_SECONDS:
                encoder.enough.set()
        assert len(call.result().faces) == MAX_IMAGES
    return answered


def test_probes_are_answered_while_a_large_answer_is_coded(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = probe_while_coding(monkeypatch, most_seconds=HANG_SECONDS)

    assert answered, "as if it were coded on the event loop"
    print(f"S27: {len(answered)} probes in {BUSY_SECONDS} s, p99 {percentile(answered, 0.99) * 1000:.0f} ms")


def test_coded_on_the_event_loop_the_same_answer_stops_every_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "to_thread", on_the_loop)

    assert probe_while_coding(monkeypatch, most_seconds=BUSY_SECONDS) == []
