"""The source of augmentation's random numbers, replaceable for resuming and for tests."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Draws(Protocol):
    """Interface of a source of float32 random numbers; `name` identifies each use."""

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Uniform random numbers in [0, 1)."""
        ...

    def normal(self, name: str, *shape: int) -> Tensor:
        """Standard normal random numbers."""
        ...


class RandomDraws:
    """Random numbers from one explicit generator, on its device.

    With a generator on the CPU the same augmentations come out wherever the images are.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, name: str, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.generator.device, dtype=torch.float32)

    def normal(self, name: str, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.generator.device, dtype=torch.float32)


def choose(draws: Draws, name: str, probability: float, values: Tensor, neutral: float) -> Tensor:
    """Select `values` [N, ...] for samples that get the transform, `neutral` for the others."""
    chosen = draws.uniform(f"{name} chosen", len(values)) < probability
    return torch.where(chosen.view(-1, *[1] * (values.ndim - 1)), values, neutral)
