"""How much of the bare engine's speed reaches a client: `make bench-e2e`.

Engine and service draw the same faces of the demo model in turn, in one run; the service is tried with each way to
spread two cores. What counts is the ratio: seconds depend on the machine and on what else it does.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rosacea_client import FaceClient
from rosacea_model import Engine, FaceSample
from rosacea_model.fresh import demo_config, fresh_model
from rosacea_serving.gateway import Gateway
from rosacea_serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rosacea_contract.spec import ImageFormat
    from rosacea_model.files.modelfile import ModelFile

ROUNDS = 5
IMAGES = 32
CLIENTS = (1, 16)
FORMATS: tuple[ImageFormat, ...] = ("png", "raw")


def main() -> None:
    """Print one table."""
    cores = os.cpu_count() or 1
    print(f"torch {torch.__version__}, {cores} cores, {IMAGES} faces a round, medians of {ROUNDS} rounds in turn")
    print(" workers x threads  clients  format  engine/s  service/s  ratio  p50 ms")
    with tempfile.TemporaryDirectory() as folder:
        file = fresh_model(Path(folder), demo_config(), seed=0, name="demo")
        for workers, threads in {(1, cores), (cores, 1)}:
            asyncio.run(compare(file, workers, threads))


async def compare(file: ModelFile, workers: int, threads: int) -> None:
    """The rows for one way to spread the cores."""
    settings = Settings(address="127.0.0.1:0", workers=workers, worker_threads=threads)
    engine = Engine.load(file.path)
    async with Gateway([file], settings) as gateway:
        await gateway.wait_until_ready(300)
        for clients in CLIENTS:
            for image_format in FORMATS:
                await asyncio.to_thread(row, engine, gateway.address, f"{workers} x {threads}", clients, image_format)


def row(engine: Engine, address: str, spread: str, clients: int, image_format: ImageFormat) -> None:
    """One row: engine and service in turn."""
    bare: list[float] = []
    served: list[float] = []
    latencies: list[float] = []
    for _ in range(ROUNDS):
        bare.append(timed(lambda: engine.render([FaceSample(seed=seed) for seed in range(IMAGES)])))
        served.append(timed(lambda: latencies.extend(ask(address, clients, image_format))))
    ours, theirs = IMAGES / statistics.median(served), IMAGES / statistics.median(bare)
    p50 = statistics.median(latencies) * 1000
    print(f"{spread:>18} {clients:>8} {image_format:>7} {theirs:9.1f} {ours:10.1f} {ours / theirs:6.2f} {p50:7.1f}")


def ask(address: str, clients: int, image_format: ImageFormat) -> Sequence[float]:
    """Faces one by one from so many clients; the seconds that each took."""
    with ThreadPoolExecutor(clients) as pool, FaceClient(address) as client:
        return list(pool.map(lambda seed: timed(lambda: client.generate([seed], format=image_format)), range(IMAGES)))


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
