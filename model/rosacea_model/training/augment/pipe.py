"""The augmentation pipe: all transforms in order.

Every transform falls on every sample independently, with probability (its multiplier) x p. With p below 1 none of
them can be learnt by the generator as a part of the data (Karras et al. 2020, section 2.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .color import color_matrices, recolor
from .corruption import add_noise, cut_out
from .filters import amplify_bands, band_gains, filter_bank, resampling_taps
from .geometry import blit_matrices, general_matrices, warp

if TYPE_CHECKING:
    from .config import AugmentConfig
    from .draws import Draws

CHANNELS = (1, 3)


class AugmentPipe(nn.Module):
    """Augments images with probability p, a buffer that training adjusts and the pipe's only state."""

    p: Tensor
    taps: Tensor
    bank: Tensor

    def __init__(self, config: AugmentConfig, p: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("p", torch.tensor(float(p)))
        self.register_buffer("taps", resampling_taps(), persistent=False)
        self.register_buffer("bank", filter_bank(), persistent=False)

    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        """images [N, C, H, W] => the same shape and dtype; computed in float32, or float64 where that comes in."""
        if images.shape[1] not in CHANNELS:
            raise ValueError(f"augmentation needs images of 1 or 3 channels, got {images.shape[1]}")
        p = float(self.p)
        if p == 0:
            return images
        with torch.autocast(images.device.type, enabled=False):
            x = images.to(torch.promote_types(images.dtype, torch.float32))
            return self._augment(x, draws, p).to(images.dtype)

    def _augment(self, x: Tensor, draws: Draws, p: float) -> Tensor:
        config = self.config
        batch, channels, height, width = x.shape
        if config.uses("blit") or config.uses("geom"):
            matrices = blit_matrices(draws, config, p, batch, height, width)
            matrices = matrices @ general_matrices(draws, config, p, batch, height, width)
            x = warp(x, matrices, self.taps)
        if config.uses("color"):
            x = recolor(x, color_matrices(draws, config, p, batch, channels))
        if config.uses("filter"):
            x = amplify_bands(x, band_gains(draws, config, p, batch), self.bank)
        if config.uses("noise"):
            x = add_noise(x, draws, config, p)
        if config.uses("cutout"):
            x = cut_out(x, draws, config, p)
        return x
