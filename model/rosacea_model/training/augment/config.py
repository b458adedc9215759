"""The available transforms with their probabilities, and named sets of them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Probability of each transform as a multiple of p; 0 = never."""

    xflip: float = 0.0
    rotate90: float = 0.0
    xint: float = 0.0  # shift by whole pixels
    scale: float = 0.0
    rotate: float = 0.0
    aniso: float = 0.0  # stretch along one axis, shrink along the other
    xfrac: float = 0.0  # shift by fractions of a pixel
    brightness: float = 0.0
    contrast: float = 0.0
    lumaflip: float = 0.0
    hue: float = 0.0  # 3 channels only
    saturation: float = 0.0  # 3 channels only
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
