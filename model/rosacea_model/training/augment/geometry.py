"""Flips, rotations, scalings and shifts: one affine matrix per sample, and one warp that applies it.

Coordinates are in pixels, (x, y, 1) with the origin in the middle of the image. The matrices map places of the
output to places of the input, so a transform that comes later is multiplied from the right.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from .draws import choose
from .filters import SYM6

if TYPE_CHECKING:
    from .config import AugmentConfig
    from .draws import Draws

TRANSLATION = 0.125  # of the size: the bound of whole-pixel shifts, the standard deviation of others
LOG2_SCALE = 0.2  # standard deviation of log2 of the scale
SPARE = len(SYM6) // 2 - 1  # pixels to sample beyond the output's size, for the downsampling filter
PEAK = 0.25  # sym6 peaks half a tap before its middle: contents move so far, left and up
REACH = len(SYM6) / 4 - 0.25  # input pixels around a sampled place that its value depends on


def blit_matrices(draws: Draws, config: AugmentConfig, p: float, batch: int, height: int, width: int) -> Tensor:
    """x-flips, quarter turns and shifts by whole pixels => [N, 3, 3]."""
    flips = torch.floor(draws.uniform("xflip", batch) * 2)
    flips = choose(draws, "xflip", config.xflip * p, flips, 0)
    matrices = scaling(1 - 2 * flips, torch.ones_like(flips))

    turns = torch.floor(draws.uniform("rotate90", batch) * 4)
    turns = choose(draws, "rotate90", config.rotate90 * p, turns, 0)
    matrices = matrices @ rotation(turns * (math.pi / 2))

    shifts = (draws.uniform("xint", batch, 2) * 2 - 1) * TRANSLATION
    shifts = choose(draws, "xint", config.xint * p, shifts, 0)
    return matrices @ translation(-torch.round(shifts[:, 0] * width), -torch.round(shifts[:, 1] * height))


def general_matrices(draws: Draws, config: AugmentConfig, p: float, batch: int, height: int, width: int) -> Tensor:
    """Scaling, rotation, stretching in any direction, and shifts by fractions of a pixel => [N, 3, 3]."""
    scales = torch.exp2(draws.normal("scale", batch) * LOG2_SCALE)
    scales = choose(draws, "scale", config.scale * p, scales, 1)
    matrices = scaling(1 / scales, 1 / scales)

    matrices = matrices @ rotation(_angles(draws, "rotate before", config.rotate * p, batch))

    stretches = torch.exp2(draws.normal("aniso", batch) * LOG2_SCALE)
    stretches = choose(draws, "aniso", config.aniso * p, stretches, 1)
    matrices = matrices @ scaling(1 / stretches, stretches)

    matrices = matrices @ rotation(_angles(draws, "rotate after", config.rotate * p, batch))

    shifts = draws.normal("xfrac", batch, 2) * TRANSLATION
    shifts = choose(draws, "xfrac", config.xfrac * p, shifts, 0)
    return matrices @ translation(-shifts[:, 0] * width, -shifts[:, 1] * height)


def _angles(draws: Draws, name: str, probability: float, batch: int) -> Tensor:
    # Two rotations are drawn, each at a rate that leaves out both with 1 - probability.
    each = 1 - math.sqrt(1 - min(probability, 1))
    angles = (draws.uniform(name, batch) * 2 - 1) * math.pi
    return choose(draws, name, each, angles, 0)


def scaling(x: Tensor, y: Tensor) -> Tensor:  # [N], [N] => [N, 3, 3]
    return torch.diag_embed(torch.stack([x, y, torch.ones_like(x)], dim=1))


def rotation(angles: Tensor) -> Tensor:  # [N] => [N, 3, 3]
    cos, sin, zero, one = angles.cos(), angles.sin(), torch.zeros_like(angles), torch.ones_like(angles)
    return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=1).view(-1, 3, 3)


def translation(x: Tensor, y: Tensor) -> Tensor:  # [N], [N] => [N, 3, 3]
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return torch.stack([one, zero, x, zero, one, y, zero, zero, one], dim=1).view(-1, 3, 3)


def warp(images: Tensor, matrices: Tensor, taps: Tensor) -> Tensor:
    """Resample images [N, C, H, W] at the places that matrices [N, 3, 3] map each pixel to.

    Bilinear sampling at twice the resolution, between an upsampling and a downsampling filter, keeps it sharp.
    What lies outside the image is its reflection, up to one image size away, and zero beyond.
    """
    height, width = images.shape[2:]
    taps = taps.to(images)
    theta, left, top = placed(matrices, height, width)
    fine = upsampling(height, top, taps) @ images @ upsampling(width, left, taps).mT
    shape = [*images.shape[:2], 2 * (height + SPARE), 2 * (width + SPARE)]
    grid = F.affine_grid(theta.to(fine), shape, align_corners=False)
    fine = F.grid_sample(fine, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return downsampling(height, taps) @ fine @ downsampling(width, taps).mT


def placed(matrices: Tensor, height: int, width: int) -> tuple[Tensor, int, int]:
    """Convert matrices [N, 3, 3] to the form of `affine_grid` [N, 2, 3] for padded images; also returns the padding at
    left and top."""
    shift = matrices.new_full((1,), PEAK)
    matrices = translation(-shift, -shift) @ matrices @ translation(shift, shift)
    left, top = margins(matrices, height, width)
    # affine_grid and grid_sample count from -1 to 1 across the output and across the input.
    to_unit = matrices.new_tensor([2 / (width + 2 * left), 2 / (height + 2 * top), 1])
    from_unit = matrices.new_tensor([(width + SPARE) / 2, (height + SPARE) / 2, 1])
    return (to_unit[:, None] * matrices * from_unit)[:, :2], left, top


def margins(matrices: Tensor, height: int, width: int) -> tuple[int, int]:
    """Horizontal and vertical padding in pixels that the places sampled in the whole batch need.

    More than the reflection can give, one less than the size, is cut off.
    """
    # On the CPU in float64, so that rounding cannot make two devices disagree.
    x, y = (width + SPARE) / 2 - 0.25, (height + SPARE) / 2 - 0.25
    corners = torch.tensor([[x, y, 1], [x, -y, 1], [-x, y, 1], [-x, -y, 1]], dtype=torch.float64)
    places = matrices.detach().cpu().double() @ corners.t()  # => [N, 3, 4]
    far_x, far_y, _ = places.abs().amax(dim=(0, 2)).tolist()
    left = math.ceil(far_x + REACH - width / 2 - 1e-4)
    top = math.ceil(far_y + REACH - height / 2 - 1e-4)
    return min(max(left, 0), width - 1), min(max(top, 0), height - 1)


# Both filters are applied as matrices. With gradients, on one CPU core, that is five times as fast as convolution
# for 64-pixel images, twice for 256, level for 512.


def upsampling(size: int, margin: int, taps: Tensor) -> Tensor:  # => [2 size + 4 margin, size]
    """Matrix that, along one axis, reflects `margin` pixels at both ends, inserts zeros, and low-passes with gain 2."""
    padded = size + 2 * margin
    band = _band(2 * padded, padded, 2 * taps, first=len(taps) // 2 - 1)
    left, middle, right = torch.split(band, [margin, size, margin], dim=1)
    rest = size - 1 - margin
    return F.pad(left.flip(1), (1, rest)) + middle + F.pad(right.flip(1), (rest, 1))


def downsampling(size: int, taps: Tensor) -> Tensor:  # => [size, 2 size + 10]
    """Matrix that, along one axis, low-passes with the mirrored filter and keeps every second pixel."""
    return _band(2 * (size + SPARE), size, taps, first=0).mT


def _band(fine: int, coarse: int, taps: Tensor, first: int) -> Tensor:
    # Entry (i, j) is the tap number i - 2j + first, or zero where there is no such tap.
    rows, columns = torch.arange(fine, device=taps.device), torch.arange(coarse, device=taps.device)
    number = rows[:, None] - 2 * columns + first
    outside = (number < 0) | (number >= len(taps))
    return taps[number.clamp(0, len(taps) - 1)].masked_fill(outside, 0)
