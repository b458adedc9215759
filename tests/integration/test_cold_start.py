"""A cold start with a model of twenty million parameters: nobody gets a face before it is ready, and then all do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rosacea.v1 import faces_pb2 as pb
from rosacea.v1 import faces_pb2_grpc
from rosacea_client import FaceClient
from rosacea_client.errors import Unavailable
from rosacea_model import GeneratorConfig
from rosacea_model.files.modelfile import verify
from rosacea_model.fresh import fresh_model
from rosacea_serving.gateway import Gateway
from rosacea_serving.settings import Settings
from rosacea_serving.torchserve.java import find_java
from tests.serving.fakes import FakeWorkers
from tests.serving.hosted import SETTINGS, demo_file

from .service import START_SECONDS, RunningService

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
FULL = GeneratorConfig(img_resolution=64)
PARAMETERS = 20_000_000
DEFAULT_JOBS = str(Settings.model_fields["warmup_jobs"].default)


class Try(NamedTuple):
    """A call, and what the health service said when it had ended."""

    answered: bool
    health_after: int


def served_early(tries: Sequence[Try]) -> int:
    """Calls that were answered while the service was not ready."""
    return sum(each.answered and each.health_after != SERVING for each in tries)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full") / "model"
    fresh_model(folder, FULL, seed=0, name="full")
    return folder


def try_once(service: RunningService, client: FaceClient) -> Try:
    try:
        answered = len(client.generate([1])) == 1
    except Unavailable:
        answered = False
    return Try(answered, service.health())


def java_that_waits_for(file: Path) -> Path:
    """A Java that starts when the file is there: until then nothing is ready, and it can be asked."""
    program = file.with_name("java")
    program.write_text(f'#!/bin/sh\nwhile [ ! -e "{file}" ]; do sleep 0.1; done\nexec "{find_java(None)}" "$@"\n')
    program.chmod(0o755)
    return program


@pytest.mark.slow
def test_nothing_is_drawn_for_anybody_before_a_large_model_is_ready(full: Path, tmp_path: Path) -> None:
    assert verify(full).path.stat().st_size > 4 * PARAMETERS
    began = time.monotonic()
    tries: list[Try] = []
    go_on = tmp_path / "go-on"
    java, in_earnest = str(java_that_waits_for(go_on)), {"ROSACEA_SERVE_WARMUP_JOBS": DEFAULT_JOBS}
    service = RunningService([full], "--java", java, environment=in_earnest)
    try:
        with FaceClient(service.address, timeout_seconds=60) as client:
            while not tries or tries[-1].health_after != SERVING:
                assert time.monotonic() - began < START_SECONDS, service.log()
                tries.append(try_once(service, client))
                if sum(each.health_after == NOT_SERVING for each in tries) > 1:
                    go_on.touch()
                time.sleep(0.1)
            seconds = time.monotonic() - began
            first = try_once(service, client)
        jobs = service.metric('rosacea_images_total{model="full",outcome="ok"}')
    finally:
        service.close()

    assert served_early(tries) == 0
    assert sum(not each.answered for each in tries) > 1
    assert first == Try(answered=True, health_after=SERVING)
    assert jobs == 1 + tries[-1].answered, "the canary is no caller's face"
    print(f"S32: ready after {seconds:.1f} s, {len(tries) - 1} calls refused before")


class Eager(FakeWorkers):
    """The negative control: draws from the start, and never gets ready."""

    async def start(self) -> None:
        self.on_state("starting")


async def test_a_face_that_comes_before_readiness_is_found() -> None:
    async with (
        Gateway([demo_file()], SETTINGS, Eager) as gateway,
        grpc.aio.insecure_channel(gateway.address) as channel,
    ):
        faces: Any = faces_pb2_grpc.FaceServiceStub(channel)
        health: Any = health_pb2_grpc.HealthStub(channel)
        answer = await faces.GenerateFaces(pb.GenerateFacesRequest(spec=pb.FaceSpec(seeds=pb.Seeds(values=[1]))))
        status = (await health.Check(health_pb2.HealthCheckRequest())).status

    assert served_early([Try(len(answer.faces) == 1, status), Try(answered=False, health_after=status)]) == 1
