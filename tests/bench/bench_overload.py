"""What callers of an overloaded gateway see: `python tests/bench/bench_overload.py`.

Fake workers of known speed behind a real gateway and real connections, at a load that rises from half of their
capacity to ten times it. Generator and gateway share one process, so latencies are upper bounds.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import psutil

from rosacea.v1 import faces_pb2_grpc
from rosacea_model import GeneratorConfig
from rosacea_model.files.modelfile import ModelFile
from rosacea_serving.gateway import Gateway
from rosacea_serving.settings import Settings

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.faults.history import History, percentile
from tests.faults.load import ask, open_loop
from tests.serving.fakes import FakeWorkers

JOB_SECONDS = 0.2
MAX_BATCH = 8
CAPACITY = MAX_BATCH / JOB_SECONDS
SECONDS = 10.0
CONNECTIONS = 16  # one alone carries 128 calls at a time
DEADLINE_SECONDS = 2.0
MODEL = GeneratorConfig(z_dim=8, w_dim=4, img_resolution=16, channel_base=256)


class SlowWorkers(FakeWorkers):
    """A job takes 0.2 s, however many images it has."""

    async def start(self) -> None:
        self.seconds = JOB_SECONDS
        await super().start()


async def main() -> None:
    """Print one row for each load, and one for normal load right after the worst."""
    print(f"capacity {CAPACITY:g} images/s, {SECONDS:g} s a row, deadline {DEADLINE_SECONDS:g} s; times in ms")
    print(" load  calls  OK/s  goodput  refused  refusal p50   p99  OK p50   p99  RSS MiB  errors")
    file = ModelFile(name="demo", path=Path(), digest="ab" * 32, config=MODEL)
    settings = Settings(address="127.0.0.1:0", max_batch=MAX_BATCH)
    async with Gateway([file], settings, SlowWorkers) as gateway:
        await gateway.wait_until_ready(10)
        for factor in (0.5, 1.0, 2.0, 10.0, 0.5):
            await row(gateway.address, factor)


async def row(address: str, factor: float) -> None:
    """One load."""
    history = History()
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options))
            for _ in range(CONNECTIONS)
        ]
        stubs = [faces_pb2_grpc.FaceServiceStub(channel) for channel in channels]

        async def call(number: int) -> None:
            await ask(stubs[number % CONNECTIONS], history, [number], DEADLINE_SECONDS)

        await open_loop(factor * CAPACITY, SECONDS, call)
    good = [call.seconds * 1000 for call in history.calls if call.ok]
    bad = [call.seconds * 1000 for call in history.calls if call.error == "RESOURCE_EXHAUSTED"]
    rate, rss = len(good) / SECONDS, psutil.Process().memory_info().rss / 2**20
    print(
        f"{factor:5.1f} {len(history.calls):6} {rate:5.1f} {rate / CAPACITY:8.2f} {len(bad):8} "
        f"{percentile(bad, 0.5):12.1f} {percentile(bad, 0.99):5.1f} {percentile(good, 0.5):7.0f} "
        f"{percentile(good, 0.99):5.0f} {rss:8.1f}  {history.errors()}"
    )


if __name__ == "__main__":
    asyncio.run(main())
