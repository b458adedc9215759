"""The order of an end: not ready any more, nothing new, what was accepted finishes or is told why not."""

from __future__ import annotations

import asyncio
import os
import signal
import urllib.request
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rosacea.v1 import faces_pb2 as pb
from rosacea.v1 import faces_pb2_grpc
from rosacea_model import GeneratorConfig
from rosacea_model.files.modelfile import ModelFile
from rosacea_serving.gateway import Gateway, serve
from rosacea_serving.settings import Settings

from ..ports import free_port
from ..waiting import HANG_SECONDS, eventually
from .fakes import FakeWorkers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CONFIG = GeneratorConfig(z_dim=8, w_dim=4, img_resolution=16, channel_base=256)
CALLS = 20


class Ending:
    """A gateway that is told to stop while calls wait for workers that answer none until they may, with a channel that
    was open before."""

    def __init__(self, folder: Path, grace_seconds: float) -> None:
        self.workers: list[FakeWorkers] = []
        file = ModelFile(name="demo", path=folder, digest="ab" * 32, config=CONFIG)
        metrics = f"127.0.0.1:{free_port()}"
        self.metrics_url = f"http://{metrics}/metrics"
        settings = Settings(address="127.0.0.1:0", metrics_address=metrics, max_batch=8, grace_seconds=grace_seconds)
        self.gateway = Gateway([file], settings, self._supervise)

    def _supervise(self, options: Any, on_state: Any) -> FakeWorkers:
        self.workers.append(FakeWorkers(options, on_state))
        self.workers[-1].paused = True
        return self.workers[-1]

    async def __aenter__(self) -> Ending:
        await self.gateway.__aenter__()
        self.channel = grpc.aio.insecure_channel(self.gateway.address)
        self.stub: Any = faces_pb2_grpc.FaceServiceStub(self.channel)
        self.calls = [asyncio.ensure_future(self.generate(seed)) for seed in range(CALLS)]
        sample = self.gateway.metrics.registry.get_sample_value
        await eventually(lambda: sample("rosacea_open_calls") == CALLS)
        self.end = asyncio.create_task(self.gateway.__aexit__(None, None, None))
        await asyncio.sleep(0.02)
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.answer()
        await self.end
        await asyncio.gather(*self.calls, return_exceptions=True)
        await self.channel.close()

    def answer(self) -> None:
        """Let the workers answer."""
        self.workers[0].paused = False

    async def generate(self, seed: int) -> bytes:
        request = pb.GenerateFacesRequest(spec=pb.FaceSpec(seeds=pb.Seeds(values=[seed])))
        return bytes((await self.stub.GenerateFaces(request, timeout=HANG_SECONDS)).faces[0].image)


async def test_accepted_calls_finish_while_health_says_no_and_new_ones_are_refused(tmp_path: Path) -> None:
    async with Ending(tmp_path, grace_seconds=1000) as ending:
        health: Any = health_pb2_grpc.HealthStub(ending.channel)
        for service in ("", "rosacea.v1.FaceService", "models/demo"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await ending.generate(1)

        assert not any(call.done() for call in ending.calls)
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
        ending.answer()
        assert await asyncio.gather(*ending.calls) == [str(seed).encode() for seed in range(CALLS)]


async def test_metrics_can_be_scraped_until_the_last_call_has_ended(tmp_path: Path) -> None:
    async with Ending(tmp_path, grace_seconds=1000) as ending:
        with await asyncio.to_thread(urllib.request.urlopen, ending.metrics_url, timeout=HANG_SECONDS) as answer:
            page = answer.read()

        assert not ending.end.done(), "the drain was over already"
        assert b"rosacea_open_calls" in page


async def test_calls_that_outlast_the_grace_are_told_unavailable(tmp_path: Path) -> None:
    async with Ending(tmp_path, grace_seconds=0.5) as ending:
        await ending.end
        ends = await asyncio.gather(*ending.calls, return_exceptions=True)

    assert [code_of(end) for end in ends] == [grpc.StatusCode.UNAVAILABLE] * CALLS


def code_of(end: object) -> grpc.StatusCode | None:
    return end.code() if isinstance(end, grpc.aio.AioRpcError) else None


async def test_a_signal_during_a_swap_ends_serving_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though what the swap has started takes its time to go."""
    may_go = asyncio.Event()
    started: list[SlowWorkers] = []

    class SlowWorkers(FakeWorkers):
        async def wait_ready(self, timeout_seconds: float) -> None:
            if len(started) > 1:
                await asyncio.sleep(timeout_seconds)

        async def stop(self) -> None:
            if self is not started[0]:
                await may_go.wait()

    def supervise(options: Any, on_state: Any) -> FakeWorkers:
        started.append(SlowWorkers(options, on_state))
        return started[-1]

    made: list[Gateway] = []
    monkeypatch.setattr(
        "rosacea_serving.gateway.Gateway",
        lambda files, settings, **more: made.append(Gateway(files, settings, supervise, **more)) or made[0],  # type: ignore[func-returns-value]
    )

    def read(in_use: Sequence[ModelFile]) -> list[ModelFile]:
        return [ModelFile(name="demo", path=tmp_path, digest=("cd" if in_use else "ab") * 32, config=CONFIG)]

    running = asyncio.create_task(serve(read, Settings(address="127.0.0.1:0")))
    await eventually(lambda: made and made[0].port)
    async with grpc.aio.insecure_channel(made[0].address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watching = health.Watch(health_pb2.HealthCheckRequest(), timeout=HANG_SECONDS)
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: len(started) == 2)
        os.kill(os.getpid(), signal.SIGTERM)
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not running.done(), "what the swap has started is still there"
    may_go.set()
    async with asyncio.timeout(120):
        await running


async def test_a_second_signal_ends_the_wait(tmp_path: Path) -> None:
    async with Ending(tmp_path, grace_seconds=1000) as ending:
        ending.gateway.hurry()
        async with asyncio.timeout(HANG_SECONDS):
            await ending.end
        ends = await asyncio.gather(*ending.calls, return_exceptions=True)

    assert [code_of(end) for end in ends] == [grpc.StatusCode.UNAVAILABLE] * CALLS
