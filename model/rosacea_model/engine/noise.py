"""The noise of several samples, for each layer, on the device."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import torch

from ..sample import noise_images
from .transfer import to_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ..networks.generator import SynthesisNetwork
    from ..sample import FaceSample


def noises(samples: Sequence[FaceSample], synthesis: SynthesisNetwork) -> list[Tensor]:
    """[N, 1, R, R] for each layer. What is drawn from seeds is copied at once; constant noise is there already."""
    const = [noise for noise in synthesis.noises("const", 1) if noise is not None]
    shapes = synthesis.noise_shapes()
    drawn = [noise_images(sample.noise_seed, shapes) for sample in samples if sample.noise_mode == "random"]
    moved = iter(to_device(list(chain.from_iterable(drawn)), const[0].device))
    rows = {"const": lambda: const, "none": lambda: list(map(torch.zeros_like, const))}
    rows["random"] = lambda: [next(moved) for _ in shapes]
    columns = zip(*(rows[sample.noise_mode]() for sample in samples), strict=True)
    return [torch.stack(column)[:, None] for column in columns]
