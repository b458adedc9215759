"""What the gateway costs: `make bench-gateway`.

Lone: one face at a time at an idle service. What the answer says it took to draw and encode is taken off the time that
the client saw; what is left is everything else: gRPC twice, checks, queue, TorchServe, shared memory.

Throughput: many clients through the gateway, and in turn the same TorchServe called with full jobs and nothing around
them. The clients are a process of their own, as they would be, but on the same cores, as they would not be: what they
take there counts against the gateway. So they are as lean as they can be, stubs on one event loop; with `--sdk` they
are threads with the Python client, which takes twice as much. Neither torch nor what made the model is in the gateway's
process, where it would slow the garbage collector down.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import grpc
import typer

from rosacea.render.v1 import render_pb2
from rosacea.v1 import faces_pb2, faces_pb2_grpc
from rosacea_client import FaceClient
from rosacea_contract.spec import format_number
from rosacea_serving.gateway import Gateway
from rosacea_serving.models.deployment import jobs_in_flight
from rosacea_serving.settings import Settings
from rosacea_serving.torchserve.devices import ON_CPU
from rosacea_serving.torchserve.supervisor import Supervisor
from rosacea_serving.worker.segments import SegmentPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from rosacea_contract.spec import ImageFormat
    from rosacea_model.files.modelfile import ModelFile
    from rosacea_serving.torchserve.options import TorchServeOptions

LONE = 40  # calls a round, one after the other
FULL = 24  # full jobs a round
CLIENTS = 16
NAME = "bench"


def main(
    resolutions: Annotated[list[int], typer.Option("--resolution")] = [64, 128],  # noqa: B006
    rounds: int = 7,
    workers: int = 1,
    sdk: bool = False,
) -> None:
    """Print one row for each resolution and format."""
    cores = len(os.sched_getaffinity(0))
    print(f"torch {version('torch')}, {cores} cores, {workers} workers; medians of {rounds} rounds in turn")
    print("  size  format  lone p50 ms  of it engine+encode  added p50 ms  bare img/s  gateway img/s  ratio")
    for size in resolutions:
        with tempfile.TemporaryDirectory() as folder:
            with process() as maker:
                file = maker.submit(make_model, Path(folder), size).result()
            settings = Settings(address="127.0.0.1:0", workers=workers)
            asyncio.run(Bench(Gateway([file], settings, supervise=keep), settings, rounds, sdk).rows(size))


def process() -> ProcessPoolExecutor:
    """A process that shares nothing with this one."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def make_model(folder: Path, size: int) -> ModelFile:
    """The demo model, untrained, of that size."""
    from rosacea_model.fresh import demo_config, fresh_model

    return fresh_model(folder, replace(demo_config(), img_resolution=size), seed=0, name=NAME)


supervisors: list[Supervisor] = []


def keep(options: TorchServeOptions, on_state: Callable[[str], None]) -> Supervisor:
    """The gateway's own supervisor, to be called past the gateway."""
    supervisors[:] = [Supervisor(options, on_state)]
    return supervisors[0]


class Bench:
    """Both ways through one running service."""

    def __init__(self, gateway: Gateway, settings: Settings, rounds: int, sdk: bool = False) -> None:
        self._gateway = gateway
        self._settings = settings
        self._rounds = rounds
        self._ask_together = ask_together_by_sdk if sdk else ask_together

    async def rows(self, size: int) -> None:
        formats: tuple[ImageFormat, ...] = ("raw", "png")
        async with self._gateway:
            await self._gateway.wait_until_ready(300)
            gc.freeze()  # as `serve` does
            with process() as clients:
                for image_format in formats:
                    await self._row(size, image_format, clients)

    async def _row(self, size: int, image_format: ImageFormat, clients: ProcessPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        images = FULL * self._settings.max_batch
        seen: list[float] = []
        drawn: list[float] = []
        bare: list[float] = []
        through: list[float] = []
        ask = (self._gateway.address, image_format)
        with SegmentPools(self._settings, size) as pools:
            for number in range(self._rounds + 1):
                alone = await loop.run_in_executor(clients, ask_alone, *ask, LONE)
                took = await self._bare(pools, image_format)
                wall = await loop.run_in_executor(clients, self._ask_together, *ask, images)
                if number:  # the first round warms up
                    seen += [call for call, _ in alone]
                    drawn += [work for _, work in alone]
                    bare.append(images / took)
                    through.append(images / wall)
        added = statistics.median(call - work for call, work in zip(seen, drawn, strict=True))
        direct, served = statistics.median(bare), statistics.median(through)
        lone = f"{statistics.median(seen) * 1e3:12.1f} {statistics.median(drawn) * 1e3:20.1f}"
        rates = f"{direct:11.1f} {served:14.1f} {served / direct:6.3f}"
        print(f"{size:>6} {image_format:>7} {lone} {added * 1e3:13.2f} {rates}", flush=True)

    async def _bare(self, pools: SegmentPools, image_format: ImageFormat) -> float:
        """The seconds of all full jobs, as many at a time as the gateway sends."""
        seeds = itertools.count()
        left = itertools.count()

        async def keep_one_going() -> None:
            while next(left) < FULL:
                job = render_pb2.RenderJob(
                    items=[
                        render_pb2.RenderItem(
                            seed=next(seeds),
                            truncation_psi=0.7,
                            noise_mode=faces_pb2.NOISE_MODE_CONST,
                            format=format_number(image_format),
                        )
                        for _ in range(self._settings.max_batch)
                    ]
                )
                await pools.render(job)

        start = time.perf_counter()
        await asyncio.gather(*(keep_one_going() for _ in range(jobs_in_flight(self._settings, ON_CPU))))
        return time.perf_counter() - start


class SegmentPools:
    """Shared memory for jobs that do not come from the gateway."""

    def __init__(self, settings: Settings, size: int) -> None:
        self._pool = SegmentPool(slots=settings.max_batch, slot_bytes=size * size * 3 + 65536)

    def __enter__(self) -> SegmentPools:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    async def render(self, job: render_pb2.RenderJob) -> None:
        segment = self._pool.acquire()
        assert segment is not None
        job.segment.path, job.segment.slot_bytes = segment.path, segment.slot_bytes
        result = await supervisors[0].render(NAME, job, 300)
        for slot, outcome in enumerate(result.outcomes):
            assert segment.read(slot, outcome.slot_length)
        self._pool.release(segment)


def ask_alone(address: str, image_format: ImageFormat, calls: int) -> list[tuple[float, float]]:
    """For each call, the seconds it took and the seconds of them that its face was drawn and encoded."""
    with FaceClient(address) as client:
        client.generate([0], format=image_format)
        return [_timed(client, seed, image_format) for seed in range(calls)]


def _timed(client: FaceClient, seed: int, image_format: ImageFormat) -> tuple[float, float]:
    start = time.perf_counter()
    timings = client.generate([seed], format=image_format)[0].timings
    return time.perf_counter() - start, timings.render_seconds + timings.encode_seconds


def ask_together(address: str, image_format: ImageFormat, images: int) -> float:
    """The seconds that so many clients take for all images, one a call."""
    return asyncio.run(_ask_together(address, format_number(image_format), images))


async def _ask_together(address: str, image_format: faces_pb2.ImageFormat.ValueType, images: int) -> float:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = faces_pb2_grpc.FaceServiceStub(channel)
        seeds = iter(range(images))

        async def ask(seed: int) -> None:
            spec = faces_pb2.FaceSpec(seeds=faces_pb2.Seeds(values=[seed]), format=image_format)
            answer = await stub.GenerateFaces(faces_pb2.GenerateFacesRequest(spec=spec), timeout=60)
            assert [face.seed for face in answer.faces] == [seed]

        async def keep_asking() -> None:
            for seed in seeds:
                await ask(seed)

        await ask(0)
        start = time.perf_counter()
        await asyncio.gather(*(keep_asking() for _ in range(CLIENTS)))
        return time.perf_counter() - start


def ask_together_by_sdk(address: str, image_format: ImageFormat, images: int) -> float:
    """The same with the Python client, in as many threads."""
    with FaceClient(address) as client, ThreadPoolExecutor(CLIENTS) as pool:
        client.generate([0], format=image_format)
        start = time.perf_counter()
        list(pool.map(lambda seed: client.generate([seed], format=image_format), range(images)))
        return time.perf_counter() - start


if __name__ == "__main__":
    typer.run(main)
