"""Wavelet filters: the resampling filter of the warp, and the bands that image-space filtering amplifies."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .draws import choose

if TYPE_CHECKING:
    from .config import AugmentConfig
    from .draws import Draws

# Low-pass (scaling) filters of the symlets with 2 and 6 vanishing moments (Daubechies 1992, table 6.3), sum sqrt(2).
SYM2 = (-0.12940952255126034, 0.2241438680420134, 0.8365163037378079, 0.48296291314453416)
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
BANDS = 4
EXPECTED_POWER = torch.tensor([10.0, 1.0, 1.0, 1.0]) / 13  # of natural images in the bands, low to high
LOG2_GAIN = 1.0  # standard deviation of log2 of a band's gain


def resampling_taps() -> Tensor:  # => [12]
    """The sym6 wavelet's low-pass filter with gain 1."""
    return torch.tensor([tap / math.sqrt(2) for tap in SYM6])


def filter_bank() -> Tensor:  # => [4, 43]
    """Zero-phase filters for four octaves, low to high, that add up to the identity.

    With H the sym2 low-pass, L(z) = H(z) H(1/z) / 2 keeps the lower half of the spectrum and 1 - L(z) the upper.
    Splitting the lower half again at z^2, and at z^4, gives the octaves (Karras et al. 2020, appendix B).
    """
    low = np.convolve(SYM2, SYM2[::-1]) / 2
    high = -low
    high[len(high) // 2] += 1

    bands: list[np.ndarray] = []
    below = np.ones(1)  # the part of the spectrum not split yet
    for octave in range(BANDS - 1):
        bands.append(np.convolve(below, _spread(high, 2**octave)))
        below = np.convolve(below, _spread(low, 2**octave))
    bands.append(below)
    padded = [np.pad(band, (len(below) - len(band)) // 2) for band in reversed(bands)]
    return torch.from_numpy(np.stack(padded)).float()


def _spread(taps: np.ndarray, step: int) -> np.ndarray:
    """Upsample a filter: z -> z^step."""
    spread = np.zeros((len(taps) - 1) * step + 1)
    spread[::step] = taps
    return spread


def band_gains(draws: Draws, config: AugmentConfig, p: float, batch: int) -> Tensor:  # => [N, 4]
    """Random gain of each band, normalised to keep the expected power."""
    gains = torch.ones(batch, BANDS)
    for band in range(BANDS):
        drawn = torch.exp2(draws.normal(f"imgfilter {band}", batch) * LOG2_GAIN)
        drawn = choose(draws, f"imgfilter {band}", config.imgfilter * p, drawn, 1)
        step = torch.ones(batch, BANDS, device=drawn.device)
        step[:, band] = drawn
        power = (EXPECTED_POWER.to(step.device) * step.square()).sum(dim=1, keepdim=True)
        gains = gains.to(step.device) * step / power.sqrt()
    return gains


def amplify_bands(images: Tensor, gains: Tensor, bank: Tensor) -> Tensor:
    """Filter images [N, C, H, W] along both axes with the bands of `bank` [B, taps] weighted by gains [N, B]."""
    batch, channels, height, width = images.shape
    taps = (gains.to(images) @ bank.to(images)).repeat_interleave(channels, dim=0)  # => [N * C, taps]
    reach = taps.shape[1] // 2
    x = reflect(images, reach).reshape(1, batch * channels, height + 2 * reach, width + 2 * reach)
    x = F.conv2d(x, taps[:, None, None, :], groups=batch * channels)
    x = F.conv2d(x, taps[:, None, :, None], groups=batch * channels)
    return x.view_as(images)


def reflect(images: Tensor, padding: int) -> Tensor:
    """Pad on all sides by reflection, again and again where the image is smaller than the padding."""
    while padding > 0:
        step = min(padding, images.shape[2] - 1, images.shape[3] - 1)
        images = F.pad(images, (step, step, step, step), mode="reflect")
        padding -= step
    return images
