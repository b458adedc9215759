"""Brightness, contrast, luma flip, hue and saturation: one affine matrix over (r, g, b, 1) per sample."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .draws import choose

if TYPE_CHECKING:
    from .config import AugmentConfig
    from .draws import Draws

BRIGHTNESS = 0.2  # standard deviation of what is added
LOG2_CONTRAST = 0.5  # standard deviation of log2 of the factor
LOG2_SATURATION = 1.0

# Of vectors (r, g, b, 1): the part along the grey axis, the part off it, the cross product with the axis, the 1.
GREY = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]) / 3
ONE = torch.diag(torch.tensor([0.0, 0.0, 0.0, 1.0]))
CHROMA = torch.eye(4) - GREY - ONE
CROSS = torch.tensor([[0.0, -1.0, 1.0, 0.0], [1.0, 0.0, -1.0, 0.0], [-1.0, 1.0, 0.0, 0.0], [0.0] * 4]) / math.sqrt(3)
WHITE = torch.tensor([1.0, 1.0, 1.0, 0.0])


def color_matrices(draws: Draws, config: AugmentConfig, p: float, batch: int, channels: int) -> Tensor:
    """One colour transform per sample => [N, 4, 4]. Hue and saturation are for 3 channels only."""
    added = draws.normal("brightness", batch) * BRIGHTNESS
    added = choose(draws, "brightness", config.brightness * p, added, 0)
    matrices = brightening(added)

    factors = torch.exp2(draws.normal("contrast", batch) * LOG2_CONTRAST)
    factors = choose(draws, "contrast", config.contrast * p, factors, 1)
    matrices = mix(factors, factors) @ matrices

    flips = torch.floor(draws.uniform("lumaflip", batch) * 2)
    flips = choose(draws, "lumaflip", config.lumaflip * p, flips, 0)
    matrices = mix(1 - 2 * flips, torch.ones_like(flips)) @ matrices
    if channels == 1:
        return matrices

    angles = (draws.uniform("hue", batch) * 2 - 1) * math.pi
    angles = choose(draws, "hue", config.hue * p, angles, 0)
    matrices = hue_rotation(angles) @ matrices

    factors = torch.exp2(draws.normal("saturation", batch) * LOG2_SATURATION)
    factors = choose(draws, "saturation", config.saturation * p, factors, 1)
    return mix(torch.ones_like(factors), factors) @ matrices


def brightening(added: Tensor) -> Tensor:  # [N] => [N, 4, 4]
    """Matrices that add the same amount to every channel."""
    to_last_column = torch.outer(WHITE, ONE[3]).to(added)
    return torch.eye(4).to(added) + added[:, None, None] * to_last_column


def mix(grey: Tensor, chroma: Tensor) -> Tensor:  # [N], [N] => [N, 4, 4]
    """Matrices that scale the components of colours along and orthogonal to the grey axis."""
    return grey[:, None, None] * GREY.to(grey) + chroma[:, None, None] * CHROMA.to(grey) + ONE.to(grey)


def hue_rotation(angles: Tensor) -> Tensor:  # [N] => [N, 4, 4]
    """Matrices that rotate colours around the grey axis."""
    cos, sin = angles.cos()[:, None, None], angles.sin()[:, None, None]
    return (GREY + ONE).to(angles) + cos * CHROMA.to(angles) + sin * CROSS.to(angles)


def recolor(images: Tensor, matrices: Tensor) -> Tensor:
    """Apply matrices [N, 4, 4] to images [N, 3, H, W], or their effect on grey to [N, 1, H, W]."""
    channels = images.shape[1]
    linear, offset = matrices[:, :3, :3], matrices[:, :3, 3:]
    if channels == 1:
        # Grey in, and grey out whatever the matrix would tint it.
        linear, offset = (part.sum(dim=2, keepdim=True).mean(dim=1, keepdim=True) for part in (linear, offset))
    pixels = torch.baddbmm(offset.to(images), linear.to(images), images.flatten(2))
    return pixels.view_as(images)
