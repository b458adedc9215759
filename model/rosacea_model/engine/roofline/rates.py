"""What a device can do: the rate of its best convolution, and the bandwidth of a copy."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ..runtimes.packed import PackedConv

if TYPE_CHECKING:
    from collections.abc import Callable

CHANNELS = 512
PIXELS = 32
COPIED = 2**28  # bytes: more than any cache holds
REPEATS = 9


@dataclass(frozen=True)
class Rates:
    """Medians of several runs on an otherwise idle device."""

    operations: float  # floating-point operations a second
    bytes: float  # read and written a second


def measure_rates(device: torch.device) -> Rates:
    """Measure both; on CUDA the convolution is float16, as in the highest resolutions."""
    with torch.inference_mode():
        convolve, copy = _convolution(device), _copy(device)
        operations = 2 * 9 * CHANNELS**2 * PIXELS**2
        return Rates(operations / median_seconds(convolve, device), 2 * COPIED / median_seconds(copy, device))


def median_seconds(run: Callable[[], object], device: torch.device, repeats: int = REPEATS) -> float:
    """Median time of a function after two runs that do not count."""
    seconds = [_seconds(run, device) for _ in range(2 + repeats)]
    return statistics.median(seconds[2:])


def now(device: torch.device) -> float:
    """Time in seconds, once the device has done all it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    start = now(device)
    run()
    return now(device) - start


def _convolution(device: torch.device) -> Callable[[], object]:
    weight = torch.randn(CHANNELS, CHANNELS, 3, 3)
    x = torch.randn(1, CHANNELS, PIXELS, PIXELS)
    if device.type == "cuda":
        half, maps = weight.to(device, torch.float16), x.to(device, torch.float16)
        half = half.contiguous(memory_format=torch.channels_last)
        maps = maps.contiguous(memory_format=torch.channels_last)
        return lambda: F.conv2d(maps, half, padding=1)
    packed, last = PackedConv(weight, PIXELS), x.contiguous(memory_format=torch.channels_last)
    return lambda: packed(last)


def _copy(device: torch.device) -> Callable[[], object]:
    source = torch.zeros(COPIED // 4, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)
