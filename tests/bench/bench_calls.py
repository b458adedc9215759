"""CPU time that the gateway takes for an image by unary calls: `make bench-calls`.

The gateway has this process to itself but for fake workers, which say that the images lie in shared memory already; 16
clients, one face a call, are a process of their own. What is measured is this process's CPU time. With `--profile` it
prints which functions of the gateway take the most.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import pstats
import statistics
import time
from typing import TYPE_CHECKING, Annotated

import typer

from rosacea.render.v1 import render_pb2
from rosacea_serving.gateway import Gateway
from rosacea_serving.observe.logs import start_logging
from rosacea_serving.settings import Settings

from ..serving.fakes import FakeWorkers
from ..serving.hosted import demo_file
from .bench_gateway import ask_together, process

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ProcessPoolExecutor

    from rosacea_serving.torchserve.options import TorchServeOptions

SHOWN = 40  # functions of a profile


def main(
    image_bytes: Annotated[int, typer.Option(help="of each answer's image")] = 8000,
    images: Annotated[int, typer.Option(help="a round")] = 1000,
    rounds: int = 7,
    profile: bool = False,
) -> None:
    """Print CPU-ms an image, as the median of all rounds and as their range."""
    asyncio.run(bench(image_bytes, images, rounds, profile))


class NearFree(FakeWorkers):
    """Says of every slot that there is an image in it: zeros."""

    def _outcome(self, *_: object) -> render_pb2.RenderOutcome:
        return render_pb2.RenderOutcome(slot_length=self.image_bytes)


async def bench(image_bytes: int, images: int, rounds: int, profile: bool) -> None:
    def supervise(options: TorchServeOptions, on_state: Callable[[str], None]) -> NearFree:
        workers = NearFree(options, on_state)
        workers.image_bytes = image_bytes
        return workers

    start_logging("json")  # a line for each call, as `serve` does; send them to /dev/null
    async with Gateway([demo_file()], Settings(address="127.0.0.1:0"), supervise) as gateway:
        await gateway.wait_until_ready(60)
        gc.freeze()  # as `serve` does
        with process() as clients:
            await one_round(gateway, clients, images)  # warms up
            if profile:
                with cProfile.Profile() as profiler:
                    await one_round(gateway, clients, images)
                pstats.Stats(profiler).sort_stats("tottime").print_stats(SHOWN)
                return
            took = [await one_round(gateway, clients, images) for _ in range(rounds)]
    print(
        f"{statistics.median(took):.3f} CPU-ms an image of {image_bytes} bytes by unary calls "
        f"({min(took):.3f} to {max(took):.3f}, {rounds} rounds of {images} images)"
    )


async def one_round(gateway: Gateway, clients: ProcessPoolExecutor, images: int) -> float:
    """CPU-ms an image that this process takes while the clients ask."""
    loop = asyncio.get_running_loop()
    began = time.process_time()
    await loop.run_in_executor(clients, ask_together, gateway.address, "png", images)
    return (time.process_time() - began) / images * 1e3


if __name__ == "__main__":
    typer.run(main)
