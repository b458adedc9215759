"""What the service counts and logs is what happened: no waits of images never drawn, no errors where none were."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from rosacea.v1 import faces_pb2 as pb
from rosacea_serving.torchserve import BackendDown

from ..hosted import hosted

if TYPE_CHECKING:
    from rosacea.render.v1 import render_pb2

    from ..hosted import Hosted


def generate(*seeds: int) -> pb.GenerateFacesRequest:
    return pb.GenerateFacesRequest(spec=pb.FaceSpec(seeds=pb.Seeds(values=seeds)))


def stream_of(count: int) -> pb.StreamFacesRequest:
    return pb.StreamFacesRequest(spec=pb.FaceSpec(seeds=pb.Seeds(values=range(count))))


def waits(service: Hosted) -> float:
    registry = service.gateway.metrics.registry
    lanes = ("interactive", "bulk")
    name = "rosacea_queue_wait_seconds_count"
    return sum(registry.get_sample_value(name, {"model": "demo", "lane": lane}) or 0.0 for lane in lanes)


def test_only_images_that_were_drawn_count_for_the_wait() -> None:
    """An outage must not make the service look idle, or loaded, by thousands of waits of nothing."""

    def down(job: render_pb2.RenderJob) -> None:
        raise BackendDown("no workers")

    with hosted() as service:
        works, service.workers.fail = service.workers.fail, down
        for _ in range(20):
            with pytest.raises(grpc.RpcError):
                service.stub.GenerateFaces(generate(1, 2, 3), timeout=20)
        assert waits(service) == 0
        service.workers.fail = works
        service.workers.poisoned = {9}
        service.stub.GenerateFaces(generate(1, 2, 3), timeout=20)
        with pytest.raises(grpc.RpcError):
            service.stub.GenerateFaces(generate(9), timeout=20)
        assert waits(service) == 3


def test_cancels_and_deadlines_are_no_errors(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with hosted() as service:
        service.workers.seconds = 0.3
        for _ in range(3):
            call = service.stub.GenerateFaces.future(generate(1, 2), timeout=20)
            time.sleep(0.05)
            call.cancel()
            with pytest.raises(grpc.RpcError):
                service.stub.GenerateFaces(generate(*range(8)), timeout=0.2)
            stream = service.stub.StreamFaces(stream_of(20), timeout=20)
            next(stream)
            stream.cancel()
            with pytest.raises(grpc.RpcError):
                list(service.stub.StreamFaces(stream_of(40), timeout=0.5))
        time.sleep(0.5)
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]

    assert [record.getMessage() for record in errors] == []
    assert len([record for record in caplog.records if record.getMessage() == "call"]) >= 12
