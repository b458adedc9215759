"""What scrapes cost a saturated gateway: `python -m tests.bench.bench_scrape`.

Fake workers of known speed behind a real gateway in a process of its own, at ten times their capacity, by turns with
and without 50 scrapes a second.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
import time
import urllib.request
from contextlib import AsyncExitStack
from pathlib import Path

import grpc

from rosacea.v1 import faces_pb2_grpc
from rosacea_model.files.modelfile import ModelFile
from rosacea_serving.gateway import Gateway
from rosacea_serving.settings import Settings

from ..faults.history import History, percentile
from ..faults.load import ask, open_loop
from ..ports import free_port
from .bench_overload import CAPACITY, CONNECTIONS, DEADLINE_SECONDS, MAX_BATCH, MODEL, SlowWorkers

SCRAPES_PER_SECOND = 50
FACTOR = 10


async def serve(metrics_port: int) -> None:
    """The gateway, until standard input closes."""
    file = ModelFile(name="demo", path=Path(), digest="ab" * 32, config=MODEL)
    settings = Settings(
        address="127.0.0.1:0", max_batch=MAX_BATCH, metrics_address=f"127.0.0.1:{metrics_port}", grace_seconds=1.0
    )
    async with Gateway([file], settings, SlowWorkers) as gateway:
        print(gateway.address, flush=True)
        await asyncio.to_thread(sys.stdin.read)


class Scraper(threading.Thread):
    """Scrapes at a fixed rate until stopped, and notes how long each took."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.url = f"http://127.0.0.1:{port}/metrics"
        self.seconds: list[float] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(1 / SCRAPES_PER_SECOND):
            began = time.perf_counter()
            with urllib.request.urlopen(self.url, timeout=30) as answer:
                answer.read()
            self.seconds.append(time.perf_counter() - began)


async def load(address: str, seconds: float) -> History:
    """Ten times the capacity for so long."""
    history = History()
    async with AsyncExitStack() as stack:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options))
            for _ in range(CONNECTIONS)
        ]
        stubs = [faces_pb2_grpc.FaceServiceStub(channel) for channel in channels]

        async def call(number: int) -> None:
            await ask(stubs[number % CONNECTIONS], history, [number], DEADLINE_SECONDS)

        await open_loop(FACTOR * CAPACITY, seconds, call)
    return history


async def main(seconds: float, rounds: int) -> None:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.bench_scrape", "--serve", str(port), stdin=-1, stdout=-1
    )
    assert process.stdout and process.stdin
    address = (await process.stdout.readline()).decode().strip()
    print(f"capacity {CAPACITY:g} images/s, load {FACTOR} times that, {seconds:g} s a row; times in ms")
    print("scrapes/s   OK/s  refusal p50   p99  scrape p50   p99   max")
    for row in range(2 * rounds):
        scraper = Scraper(port)
        if row % 2:
            scraper.start()
        history = await load(address, seconds)
        scraper.stopped.set()
        if row % 2:
            scraper.join()
        good = sum(call.ok for call in history.calls) / seconds
        bad = [call.seconds * 1000 for call in history.calls if call.error == "RESOURCE_EXHAUSTED"]
        times = [each * 1000 for each in scraper.seconds]
        shown = f"{percentile(times, 0.5):10.1f} {percentile(times, 0.99):5.1f} {max(times):5.1f}" if times else ""
        scrapes = len(times) / seconds
        print(f"{scrapes:9.1f} {good:6.1f} {percentile(bad, 0.5):12.1f} {percentile(bad, 0.99):5.1f}  {shown}")
    process.stdin.close()
    await process.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve))
    else:
        asyncio.run(main(arguments.seconds, arguments.rounds))
