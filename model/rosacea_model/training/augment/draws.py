"""Where augmentation gets its random numbers: one object, so that a run can be resumed and a test can fix them."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Draws(Protocol):
    """A source of float32 numbers. `name` tells what they are for; every use has a name of its own."""

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Numbers from [0, 1)."""
        ...

    def normal(self, name: str, *shape: int) -> Tensor:
        """Numbers from the standard normal distribution."""
        ...


class RandomDraws:
    """Draws from an explicit generator, on its device, and from nothing else.

    With a generator on the CPU the same augmentations come out wherever the images are.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, name: str, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.generator.device, dtype=torch.float32)

    def normal(self, name: str, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.generator.device, dtype=torch.float32)


def choose(draws: Draws, name: str, probability: float, values: Tensor, neutral: float) -> Tensor:
    """`values` [N, ...] of the samples that the transform falls on, `neutral` for the others."""
    chosen = draws.uniform(f"{name} chosen", len(values)) < probability
    return torch.where(chosen.view(-1, *[1] * (values.ndim - 1)), values, neutral)
