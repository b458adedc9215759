"""The service against a TorchServe handler that somebody would write: `make bench-naive`.

Both run at once and are asked in turn, each by clients of a process of their own, for PNGs of one seed a call. Both
have the same threads, Java, allocator and weights; the handler gathers up to 8 calls into a batch, the service draws
one image at a time. What counts is the ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import grpc

from rosacea.torchserve.v1 import inference_pb2
from rosacea.v1 import faces_pb2, faces_pb2_grpc
from rosacea_serving.gateway import Gateway
from rosacea_serving.settings import Settings
from rosacea_serving.torchserve import TorchServeOptions, layout
from rosacea_serving.torchserve import process as torchserve_process
from rosacea_serving.torchserve.backend import PREDICTIONS

from .bench_gateway import process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from rosacea_model.files.modelfile import ModelFile

    Ask = Callable[[int], Awaitable[object]]

BATCH = 8
DELAY_MS = 5  # that the handler waits for a batch to fill
CLIENTS = (1, 16)
IMAGES = {64: 256, 128: 64, 256: 48, 512: 24}  # a round
READY_SECONDS = 300


@dataclass(frozen=True)
class Round:
    """What clients saw: images a second, and the seconds of each call."""

    rate: float
    seconds: Sequence[float]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolutions", type=int, nargs="+", default=list(IMAGES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="some faces of the smallest model, once")
    chosen = parser.parse_args()
    print(f"{os.cpu_count()} cores, PNG, medians of {chosen.rounds} rounds in turn, load {os.getloadavg()[0]:.1f}")
    print("  size  clients  naive img/s  rosacea img/s  ratio  naive p99 ms  rosacea p99 ms")
    for size in [64] if chosen.smoke else chosen.resolutions:
        images = 16 if chosen.smoke else IMAGES[size]
        asyncio.run(rows(size, images, 1 if chosen.smoke else chosen.rounds))


async def rows(size: int, images: int, rounds: int) -> None:
    """The rows of one size."""
    threads = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder, process() as clients:
        file = clients.submit(make_model, Path(folder), size).result()
        settings = Settings(address="127.0.0.1:0", worker_threads=threads, warmup_jobs=20)
        async with naive_service(file, threads) as naive, Gateway([file], settings) as gateway:
            await gateway.wait_until_ready(READY_SECONDS)
            for count in CLIENTS:
                found: dict[str, list[Round]] = {"naive": [], "rosacea": []}
                for number in range(rounds + 1):
                    asking = {"naive": (ask_naive, naive), "rosacea": (ask_rosacea, gateway.address)}
                    for name, (ask, where) in asking.items():
                        work = partial(ask_together, ask, where, count, images)
                        seen = await asyncio.get_running_loop().run_in_executor(clients, work)
                        if number:  # the first round warms up
                            found[name].append(seen)
                show(size, count, found)


def make_model(folder: Path, size: int) -> ModelFile:
    """The demo's networks at 64 px, the wide ones of the other benchmarks above, untrained."""
    from rosacea_model import GeneratorConfig, demo
    from rosacea_model.files.modelfile import verify
    from rosacea_model.fresh import fresh_model

    wide = GeneratorConfig(img_resolution=size, channel_base=32768 if size == 512 else 16384)
    small = replace(verify(demo.folder()).config, c_dim=0)
    return fresh_model(folder, wide if size > 64 else small, seed=0, name="bench")


@asynccontextmanager
async def naive_service(file: ModelFile, threads: int) -> AsyncIterator[tuple[str, str]]:
    """TorchServe with the naive handler; its address and key."""
    options = TorchServeOptions(models=[file], worker_threads=threads)
    with patch.object(torchserve_process, "prepare", prepare_naive):
        running = torchserve_process.TorchServeProcess(options)
        await running.start()
    try:
        where = (running.layout.address, running.token)
        await first_answer(where)
        yield where
    finally:
        await running.stop()


def prepare_naive(models: Sequence[ModelFile], options: Any, gpus: int) -> layout.Layout:
    """The store of the service, with the handler and the batches of the naive one."""
    prepared = layout.prepare(models, options, gpus)
    folder = prepared.store / models[0].name
    (folder / "handler.py").write_bytes(Path(__file__).with_name("naive_handler.py").read_bytes())
    config = folder / "model-config.yaml"
    batches = {"batchSize: 1": f"batchSize: {BATCH}", "maxBatchDelay: 1": f"maxBatchDelay: {DELAY_MS}"}
    text = config.read_text().replace("jobQueueSize: 8", "jobQueueSize: 100")
    for before, after in batches.items():
        text = text.replace(before, after)
    config.write_text(text)
    return prepared


async def first_answer(where: tuple[str, str]) -> None:
    """Wait until the handler draws."""
    async with asyncio.timeout(READY_SECONDS), ask_naive(where) as ask:
        while True:
            try:
                await ask(0)
                return
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.2)


@asynccontextmanager
async def ask_naive(where: tuple[str, str]) -> AsyncIterator[Ask]:
    """Calls of TorchServe itself."""
    address, token = where
    async with grpc.aio.insecure_channel(address) as channel:
        predict = channel.unary_unary(
            PREDICTIONS,
            request_serializer=inference_pb2.PredictionsRequest.SerializeToString,
            response_deserializer=inference_pb2.PredictionResponse.FromString,
        )

        async def ask(seed: int) -> None:
            request = inference_pb2.PredictionsRequest(model_name="bench", input={"seed": str(seed).encode()})
            answer = await predict(request, metadata=(("authorization", f"Bearer {token}"),))
            assert answer.prediction.startswith(b"\x89PNG")

        yield ask


@asynccontextmanager
async def ask_rosacea(address: str) -> AsyncIterator[Ask]:
    """Calls of the service."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = faces_pb2_grpc.FaceServiceStub(channel)

        async def ask(seed: int) -> None:
            spec = faces_pb2.FaceSpec(seeds=faces_pb2.Seeds(values=[seed]), format=faces_pb2.IMAGE_FORMAT_PNG)
            answer = await stub.GenerateFaces(faces_pb2.GenerateFacesRequest(spec=spec))
            assert answer.faces[0].image.startswith(b"\x89PNG")

        yield ask


def ask_together(asking: Any, where: Any, clients: int, images: int) -> Round:
    """What that number of clients sees, each with one call at a time."""
    return asyncio.run(_ask_together(asking, where, clients, images))


async def _ask_together(asking: Any, where: Any, clients: int, images: int) -> Round:
    seconds: list[float] = []
    async with asking(where) as ask:
        seeds = iter(range(images))

        async def keep_asking() -> None:
            for seed in seeds:
                start = time.perf_counter()
                await ask(seed)
                seconds.append(time.perf_counter() - start)

        await ask(0)
        start = time.perf_counter()
        await asyncio.gather(*(keep_asking() for _ in range(clients)))
        return Round(images / (time.perf_counter() - start), seconds)


def show(size: int, clients: int, found: dict[str, list[Round]]) -> None:
    """One row."""
    rates = {name: statistics.median(each.rate for each in rounds) for name, rounds in found.items()}
    slow = {name: p99([second for each in rounds for second in each.seconds]) for name, rounds in found.items()}
    ratio = rates["rosacea"] / rates["naive"]
    print(
        f"{size:>6} {clients:>8} {rates['naive']:12.1f} {rates['rosacea']:14.1f} {ratio:6.2f} "
        f"{slow['naive'] * 1e3:13.1f} {slow['rosacea'] * 1e3:15.1f}",
        flush=True,
    )


def p99(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=100, method="inclusive")[98]


if __name__ == "__main__":
    main()
