"""Resizes pictures to a square in one resampling step.

Crop takes the largest square from the middle; pad adds bars of the background colour instead. Lanczos is what the
StyleGAN data sets use; box is the plain mean, and differs enough to move an FID, which is why it is recorded.
"""

from __future__ import annotations

from enum import StrEnum

from PIL import Image


class Fit(StrEnum):
    """How to treat pictures that are not square."""

    crop = "crop"
    pad = "pad"


class Filter(StrEnum):
    """Resampling filters."""

    lanczos = "lanczos"
    box = "box"


FILTERS = {Filter.lanczos: Image.Resampling.LANCZOS, Filter.box: Image.Resampling.BOX}


def to_square(
    image: Image.Image, resolution: int, fit: Fit, filter_: Filter, background: tuple[int, int, int]
) -> Image.Image:
    """Resize to resolution x resolution; a picture of that size is returned unchanged."""
    if image.size == (resolution, resolution):
        return image
    width, height = image.size
    if fit is Fit.crop:
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
        return image.resize((resolution, resolution), FILTERS[filter_], box=box)
    longer = max(width, height)
    size = (max(1, round(width * resolution / longer)), max(1, round(height * resolution / longer)))
    colour = background if image.mode == "RGB" else round(sum(background) / 3)
    canvas = Image.new(image.mode, (resolution, resolution), colour)
    small = image.resize(size, FILTERS[filter_])
    canvas.paste(small, ((resolution - size[0]) // 2, (resolution - size[1]) // 2))
    return canvas
