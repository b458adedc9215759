"""The engine against other runtimes and plain eager code on a CPU: `make bench-engine`.

All draw the same image one at a time, in turn, in one process, so with the same threads and the same allocator, which
keeps freed memory for all of them. What counts is the ratio of the medians: seconds depend on the machine. The limit is
the least time of `rosacea model roofline`. Results of record stand in docs/BENCHMARKS.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch

from rosacea_model import GeneratorConfig, Model, demo
from rosacea_model.engine.roofline.rates import measure_rates
from rosacea_model.engine.roofline.work import work
from rosacea_model.engine.runtimes.choose import choose_runtime
from rosacea_model.engine.runtimes.graphs import openvino_runtime
from rosacea_model.engine.runtimes.hardware import cpu_name
from rosacea_model.engine.runtimes.pytorch import plain_runtime
from rosacea_model.files.modelfile import ModelFile, verify
from rosacea_model.memory import keep_freed_memory
from rosacea_model.networks import ops
from rosacea_model.networks.generator import Generator

from . import plain
from .checkout import commit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    Draw = Callable[[], Tensor]

OURS = "rosacea"
SIZES: dict[str, dict[str, Any]] = {
    "128 px": {"img_resolution": 128, "channel_base": 16384},
    "256 px, half width": {"img_resolution": 256, "channel_base": 16384},
    "512 px": {"img_resolution": 512, "channel_base": 32768},
}
WARM_UP = 3


def main() -> None:
    """Print one table for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--smoke", action="store_true", help="one round of the smallest model only")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    keep_freed_memory()
    print(f"{cpu_name()}, {chosen.threads} threads, torch {torch.__version__}, python {platform.python_version()}")
    print(f"commit {commit()}, load {os.getloadavg()[0]:.1f} before, medians of {chosen.rounds} rounds in turn")
    sizes = {"demo, 64 px": verify(demo.folder()).config} | {
        name: GeneratorConfig(**size) for name, size in SIZES.items() if not chosen.smoke
    }
    rate = measure_rates(torch.device("cpu")).operations
    print(f"convolution rate {rate / 1e9:.0f} GFLOP/s")
    for name, config in sizes.items():
        show(name, compare(config, 1 if chosen.smoke else chosen.rounds), config, rate)


def compare(config: GeneratorConfig, rounds: int) -> dict[str, float]:
    """Median seconds of each, drawing in turn."""
    torch.manual_seed(0)
    model = Model(Generator(config), ModelFile(name="bench", path=Path("none"), digest="a" * 64, config=config))
    with torch.inference_mode():
        w = model.generator.mapping(
            torch.randn(1, config.z_dim), torch.zeros(1, config.c_dim) if config.c_dim else None
        )
        ws = w[:, None].repeat(1, config.num_ws, 1)
        noises = [noise[None, None] for noise in model.generator.synthesis.noises("const", 1) if noise is not None]
        return median_seconds(contestants(model, ws, noises), rounds)


def contestants(model: Model, ws: Tensor, noises: Sequence[Tensor]) -> dict[str, Draw]:
    """What draws the image, by name."""
    eager = plain_runtime(model, 1).synthesize
    runtimes = {OURS: choose_runtime(model), "onnxruntime": choose_runtime(model, "onnxruntime")}
    runtimes["openvino f32"] = choose_runtime(model, "openvino")
    try:
        runtimes["openvino bf16"] = openvino_runtime(model, bf16=True)
    except ValueError as error:
        print(f"without bf16: {error}")
    draws: dict[str, Draw] = {
        name: lambda runtime=runtime: runtime.synthesize(ws, noises)  # type: ignore[misc]
        for name, runtime in runtimes.items()
    }
    return draws | {
        "shared weights, eager": lambda: eager(ws, noises),
        "plain eager": lambda: grouped(eager, ws, noises),
    }


def grouped(synthesize: Callable[..., Tensor], ws: Tensor, noises: Sequence[Tensor]) -> Tensor:
    """Draw with the operations as the papers have them: weights of its own for each image, one pass for each step."""
    names = ("low_pass", "upsample", "leaky_relu", "bound", "modulated_conv")
    with patch.multiple(ops, **{name: getattr(plain, name) for name in names}):
        return synthesize(ws, noises)


def median_seconds(draws: Mapping[str, Draw], rounds: int) -> dict[str, float]:
    """One image of each in every round, after some that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in draws}
    for _ in range(WARM_UP + rounds):
        for name, draw in draws.items():
            start = time.perf_counter()
            draw()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times[WARM_UP:]) for name, times in seconds.items()}


def show(name: str, seconds: Mapping[str, float], config: GeneratorConfig, rate: float) -> None:
    """One table: time, speed beside ours, and how much of the convolution rate is reached."""
    operations = sum(layer.operations for layer in work(config)[1:])
    print(f"\n{name}: {operations / 1e9:.2f} GFLOP\n{'':24}      ms   of ours   of the limit")
    for each, taken in seconds.items():
        print(f"{each:24} {taken * 1e3:7.1f} {seconds[OURS] / taken:9.2f} {operations / rate / taken:13.0%}")


if __name__ == "__main__":
    main()
