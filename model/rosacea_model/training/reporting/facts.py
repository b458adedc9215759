"""Facts printed before a run's first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from ..config import TrainConfig
    from ..state import TrainState

# Numbers that a micro batch holds for each channel and pixel of a resolution, in G and D together and with what second
# derivatives need; measured, see docs/LOG.md.
HELD = 16.0
COPIES = 7.0  # of the weights: gradients, both moments, and what passes make of them
BASE_GB = 0.35  # Python and torch themselves, on a CPU


def facts(config: TrainConfig, state: TrainState, images: int, classes: Sequence[str], world: int) -> Iterator[str]:
    """Facts about a run to print before it begins (images, networks, device, memory), one per line."""
    colours = {1: "grey", 3: "RGB"}.get(config.img_channels, f"{config.img_channels} channels")
    shown = f", shown flipped as well: {2 * images}" if config.mirror else ""
    yield f"data: {images} images of {config.resolution} px, {colours}{shown}; {_classes(config, classes)}"
    yield f"device: {_device(config, state.device)}"
    yield (
        f"networks: generator {_millions(state.G)}, discriminator {_millions(state.D)} parameters, "
        f"{config.mapping_layers} mapping layers"
    )
    steps = -(-int(config.total_kimg * 1000) // config.batch)
    micros = config.batch // config.batch_gpu // world
    spread = f" on each of {world} processes" if world > 1 else ""
    yield f"steps: {steps} of {config.batch} images, in {micros} micro batches of {config.batch_gpu}{spread}"
    yield f"memory: about {expected_gb(config, state):.1f} GB expected{spread}"


def expected_gb(config: TrainConfig, state: TrainState) -> float:
    """Rough estimate of memory in GB: copies of the weights, the average, and one micro-batch."""
    weights = sum(parameter.numel() for network in (state.G, state.D) for parameter in network.parameters())
    average = sum(parameter.numel() for parameter in state.G.parameters())
    sizes = [2**power for power in range(2, config.resolution.bit_length())]
    widest = sum(size**2 * min(config.channel_base // size, config.channel_max) for size in sizes)
    numbers = COPIES * weights + average + HELD * widest * config.batch_gpu
    return (BASE_GB if state.device.type == "cpu" else 0.0) + float(numbers) * 4 / 2**30


def _classes(config: TrainConfig, classes: Sequence[str]) -> str:
    if not config.label_width:
        return "no labels"
    return f"{config.label_width} classes" + (f": {', '.join(classes)}" if classes else "")


def _device(config: TrainConfig, device: torch.device) -> str:
    if device.type != "cuda":
        return f"{device.type}, float32, {torch.get_num_threads()} threads"
    mixed = f"float16 in the {config.num_fp16_res} highest resolutions" if config.num_fp16_res else "float32"
    return f"{torch.cuda.get_device_name(device)}, {mixed}{', TF32' if config.tf32 else ''}"


def _millions(network: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.2f} M"
