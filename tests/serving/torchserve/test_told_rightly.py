"""What the service counts and logs is what happened: no waits of images never drawn, no errors where none were."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import grpc
import pytest

from rosacea.v1 import faces_pb2 as pb
from rosacea_serving.torchserve import BackendDown

from ...waiting import HANG_SECONDS, wait_for
from ..hosted import hosted
from ..raw_calls import raw_call

if TYPE_CHECKING:
    from google.protobuf.message import Message

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
                service.stub.GenerateFaces(generate(1, 2, 3), timeout=120)
        assert waits(service) == 0
        service.workers.fail = works
        service.workers.poisoned = {9}
        service.stub.GenerateFaces(generate(1, 2, 3), timeout=120)
        with pytest.raises(grpc.RpcError):
            service.stub.GenerateFaces(generate(9), timeout=120)
        assert waits(service) == 3


def test_cancels_and_deadlines_are_no_errors(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with hosted() as service:
        for _ in range(3):
            service.workers.paused = True
            call = service.stub.GenerateFaces.future(generate(1, 2), timeout=HANG_SECONDS)
            wait_for(lambda: calls(service) == 1)
            call.cancel()
            out_of_time(service, "GenerateFaces", generate(*range(8)))
            service.workers.paused = False
            stream = service.stub.StreamFaces(stream_of(20), timeout=HANG_SECONDS)
            next(stream)
            stream.cancel()
            wait_for(lambda: calls(service) == 0)
            service.workers.paused = True
            out_of_time(service, "StreamFaces", stream_of(40))
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]

    assert [record.getMessage() for record in errors] == []
    assert len([record for record in caplog.records if record.getMessage() == "call"]) >= 12


def calls(service: Hosted) -> float | None:
    """Calls under way."""
    return service.gateway.metrics.registry.get_sample_value("rosacea_open_calls")


def out_of_time(service: Hosted, method: str, request: Message) -> None:
    """A call whose deadline comes, by the service's clock alone, while no worker answers. One whose deadline comes
    before the service looks at the call is seen by nobody, so there is another."""
    path, before = f"/rosacea.v1.FaceService/{method}", deadlines(service)
    while deadlines(service) == before:
        raw_call(service.gateway.port, path, request.SerializeToString(), timeout="200m").read_to_the_end()


def deadlines(service: Hosted) -> float:
    """Calls that ended by their deadline."""
    registry = service.gateway.metrics.registry
    samples = (sample for family in registry.collect() for sample in family.samples)
    ended = (each for each in samples if each.name == "grpc_server_handled_total")
    return sum(each.value for each in ended if each.labels["grpc_code"] == "DeadlineExceeded")
