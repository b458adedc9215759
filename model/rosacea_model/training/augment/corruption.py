"""Noise and cutout: transforms that destroy part of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .draws import choose

if TYPE_CHECKING:
    from .config import AugmentConfig
    from .draws import Draws

NOISE = 0.1  # standard deviation of the standard deviation of the noise
CUTOUT = 0.5  # side of the square that is cut out, as a part of the image's


def add_noise(images: Tensor, draws: Draws, config: AugmentConfig, p: float) -> Tensor:
    """Add white noise of a random strength."""
    strengths = draws.normal("noise", len(images), 1, 1, 1).abs() * NOISE
    strengths = choose(draws, "noise", config.noise * p, strengths, 0)
    grain = draws.normal("noise grain", *images.shape)
    return images + (grain * strengths).to(images)


def cut_out(images: Tensor, draws: Draws, config: AugmentConfig, p: float) -> Tensor:
    """In randomly chosen images, set a rectangle of half the width and height, centred anywhere, to zero."""
    batch, _, height, width = images.shape
    centres = draws.uniform("cutout", batch, 2)
    sides = choose(draws, "cutout", config.cutout * p, torch.full_like(centres[:, 0], CUTOUT), 0)
    outside_x = _distance(width, centres[:, 0]) >= sides[:, None] / 2
    outside_y = _distance(height, centres[:, 1]) >= sides[:, None] / 2
    keep = outside_y[:, None, :, None] | outside_x[:, None, None, :]
    return images * keep.to(images)


def _distance(size: int, centres: Tensor) -> Tensor:  # [N] => [N, size]
    """Distance of each pixel's centre to the rectangle's, along an axis of length 1."""
    middles = (torch.arange(size, device=centres.device) + 0.5) / size
    return (middles - centres[:, None]).abs()
