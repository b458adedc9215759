"""The augmentation pipe: which transforms there are, how likely each is, and their order.

Every transform falls on every sample independently, with probability (its multiplier) x p. With p below 1 none of
them can be learnt by the generator as a part of the data (Karras et al. 2020, section 2.2).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .color import color_matrices, recolor
from .corruption import add_noise, cut_out
from .filters import amplify_bands, band_gains, filter_bank, resampling_taps
from .geometry import blit_matrices, general_matrices, warp

if TYPE_CHECKING:
    from .draws import Draws

CHANNELS = (1, 3)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How likely each transform is, as a multiple of p. 0 = never."""

    xflip: float = 0.0
    rotate90: float = 0.0
    xint: float = 0.0            # shift by whole pixels
    scale: float = 0.0
    rotate: float = 0.0
    aniso: float = 0.0           # stretch along one axis, shrink along the other
    xfrac: float = 0.0           # shift by fractions of a pixel
    brightness: float = 0.0
    contrast: float = 0.0
    lumaflip: float = 0.0
    hue: float = 0.0             # 3 channels only
    saturation: float = 0.0      # 3 channels only
    imgfilter: float = 0.0
    noise: float = 0.0
    cutout: float = 0.0

    def __post_init__(self) -> None:
        for name, multiplier in asdict(self).items():
            if not 0 <= multiplier < math.inf:
                raise ValueError(f"{name} must be a finite multiplier of at least 0, got {multiplier}")

    def uses(self, group: str) -> bool:
        """Whether any transform of the group can occur."""
        return any(getattr(self, name) > 0 for name in GROUPS[group])


GROUPS = {
    "blit": ("xflip", "rotate90", "xint"),
    "geom": ("scale", "rotate", "aniso", "xfrac"),
    "color": ("brightness", "contrast", "lumaflip", "hue", "saturation"),
    "filter": ("imgfilter",),
    "noise": ("noise",),
    "cutout": ("cutout",),
}


def _of(*groups: str) -> AugmentConfig:
    return AugmentConfig(**{name: 1.0 for group in groups for name in GROUPS[group]})


AUGMENT_SETS = {
    "blit": _of("blit"),
    "geom": _of("geom"),
    "color": _of("color"),
    "filter": _of("filter"),
    "noise": _of("noise"),
    "cutout": _of("cutout"),
    "bg": _of("blit", "geom"),
    "bgc": _of("blit", "geom", "color"),
    "bgcf": _of("blit", "geom", "color", "filter"),
    "bgcfn": _of("blit", "geom", "color", "filter", "noise"),
    "bgcfnc": _of("blit", "geom", "color", "filter", "noise", "cutout"),
}


class AugmentPipe(nn.Module):
    """Augment images with probability p; p is the buffer that training steers, and all there is to save."""

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
