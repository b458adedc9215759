"""What drawing one image takes at the least: floating-point operations, and bytes to and from memory."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...config import GeneratorConfig

KERNEL = 9  # weights of a 3x3 kernel
FILTER = 16  # weights of the 4x4 low-pass after each upsampling


@dataclass(frozen=True)
class Work:
    """One layer, by the name that its tensors begin with."""

    name: str
    operations: int  # a multiplication and an addition are two
    bytes: int  # inputs, weights and outputs once each


def work(config: GeneratorConfig, *, cuda: bool = False) -> list[Work]:
    """Every layer in the order in which they run, for one image; the highest resolutions are float16 on CUDA."""
    layers = [_mapping(config)]
    for resolution in config.block_resolutions:
        size = 2 if cuda and config.runs_in_fp16(resolution) else 4
        layers.extend(_block(config, resolution, size))
    return layers


def _mapping(config: GeneratorConfig) -> Work:
    widths = [config.z_dim + (config.w_dim if config.c_dim else 0)] + [config.w_dim] * config.mapping_layers
    weights = sum(inputs * outputs for inputs, outputs in pairwise(widths))
    weights += config.c_dim * config.w_dim
    return Work("mapping", 2 * weights, 4 * (weights + sum(widths)))


def _block(config: GeneratorConfig, resolution: int, size: int) -> Iterator[Work]:
    name, outputs = f"synthesis.b{resolution}", config.channels(resolution)
    if resolution > 4:
        inputs, below = config.channels(resolution // 2), (resolution // 2) ** 2
        if config.architecture == "resnet":
            skip = _convolution(f"{name}.skip", inputs, outputs, (below, resolution**2, 1), size)
            yield _filtered(skip, outputs * below)
        up = _convolution(f"{name}.conv0", inputs, outputs, (below, resolution**2, KERNEL), size)
        yield _filtered(up, outputs * resolution**2)
    yield _convolution(f"{name}.conv1", outputs, outputs, (resolution**2, resolution**2, KERNEL), size)
    if config.architecture == "skip" or resolution == config.img_resolution:
        yield _convolution(f"{name}.torgb", outputs, config.img_channels, (resolution**2, resolution**2, 1), size)


def _filtered(layer: Work, values: int) -> Work:
    """With the low-pass over that number of values."""
    return Work(layer.name, layer.operations + 2 * FILTER * values, layer.bytes)


def _convolution(name: str, inputs: int, outputs: int, shape: tuple[int, int, int], size: int) -> Work:
    """Pixels before and after, and the weights of a kernel; a transposed convolution works on the pixels before."""
    before, after, kernel = shape
    weights = inputs * outputs * kernel
    return Work(name, 2 * weights * before, size * (inputs * before + outputs * after + weights))
