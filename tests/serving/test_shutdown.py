"""The order of an end: not ready any more, nothing new, what was accepted finishes or is told why not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rosacea.v1 import faces_pb2 as pb
from rosacea.v1 import faces_pb2_grpc
from rosacea_model import GeneratorConfig
from rosacea_model.modelfile import ModelFile
from rosacea_serving.gateway import Gateway
from rosacea_serving.settings import Settings

from .fakes import FakeWorkers

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = GeneratorConfig(z_dim=8, w_dim=4, img_resolution=16, channel_base=256)
CALLS = 20


class Ending:
    """A gateway that is told to stop while calls are under way, with a channel that was open before."""

    def __init__(self, folder: Path, grace_seconds: float, seconds: float) -> None:
        self.workers: list[FakeWorkers] = []
        self._seconds = seconds
        file = ModelFile(name="demo", path=folder, digest="ab" * 32, config=CONFIG)
        settings = Settings(address="127.0.0.1:0", max_batch=8, grace_seconds=grace_seconds)
        self.gateway = Gateway([file], settings, self._supervise)

    def _supervise(self, options: Any, on_state: Any) -> FakeWorkers:
        self.workers.append(FakeWorkers(options, on_state))
        self.workers[-1].seconds = self._seconds
        return self.workers[-1]

    async def __aenter__(self) -> Ending:
        await self.gateway.__aenter__()
        self.channel = grpc.aio.insecure_channel(self.gateway.address)
        self.stub: Any = faces_pb2_grpc.FaceServiceStub(self.channel)
        self.calls = [asyncio.ensure_future(self.generate(seed)) for seed in range(CALLS)]
        async with asyncio.timeout(10):
            while self.gateway.metrics.registry.get_sample_value("rosacea_open_calls") != CALLS:    # noqa: ASYNC110
                await asyncio.sleep(0.005)
        self.end = asyncio.create_task(self.gateway.__aexit__(None, None, None))
        await asyncio.sleep(0.02)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.end
        await asyncio.gather(*self.calls, return_exceptions=True)
        await self.channel.close()

    async def generate(self, seed: int) -> bytes:
        request = pb.GenerateFacesRequest(spec=pb.FaceSpec(seeds=pb.Seeds(values=[seed])))
        return bytes((await self.stub.GenerateFaces(request, timeout=20)).faces[0].image)


async def test_accepted_calls_finish_while_health_says_no_and_new_ones_are_refused(tmp_path: Path) -> None:
    async with Ending(tmp_path, grace_seconds=20, seconds=1.0) as ending:
        health: Any = health_pb2_grpc.HealthStub(ending.channel)
        for service in ("", "rosacea.v1.FaceService", "models/demo"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await ending.generate(1)

        assert not all(call.done() for call in ending.calls), "the drain was over already"
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await asyncio.gather(*ending.calls) == [str(seed).encode() for seed in range(CALLS)]


async def test_calls_that_outlast_the_grace_are_told_unavailable(tmp_path: Path) -> None:
    async with Ending(tmp_path, grace_seconds=1.5, seconds=1.0) as ending:
        await ending.end
        ends = await asyncio.gather(*ending.calls, return_exceptions=True)

    failed = [end for end in ends if isinstance(end, grpc.aio.AioRpcError)]
    assert 0 < len(failed) < CALLS, "some finish within the grace"
    assert {end.code() for end in failed} == {grpc.StatusCode.UNAVAILABLE}


async def test_a_second_signal_ends_the_wait(tmp_path: Path) -> None:
    async with Ending(tmp_path, grace_seconds=1000, seconds=1.0) as ending:
        ending.gateway.hurry()
        async with asyncio.timeout(10):
            await ending.end
        ends = await asyncio.gather(*ending.calls, return_exceptions=True)

    failed = [end for end in ends if isinstance(end, grpc.aio.AioRpcError)]
    assert {end.code() for end in failed} == {grpc.StatusCode.UNAVAILABLE}
