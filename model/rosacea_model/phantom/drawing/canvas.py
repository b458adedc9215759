"""The planes that features modify before lighting is applied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..identity import PhantomSpec
    from .grid import Grid
    from .head import Head
    from .noise import Field


@dataclass
class Canvas:
    """Planes [height, width] of a face before lighting: relief, blood, melanin, oil and shade, and in `paint` what
    covers the skin (make-up, hair, eyes)."""

    grid: Grid
    head: Head
    spec: PhantomSpec
    height: Field  # of the skin, face units
    blood: Field  # volume fraction in the upper dermis
    melanin: Field  # extra, as log of a factor
    oil: Field  # strength of the tight highlight
    dark: Field  # factor on the light: creases, lashes' shadow, nostrils
    paint: Field  # [3, h, w] linear RGB of what covers the skin, times its share
    bare: Field  # share of skin that nothing covers
    glint: Field  # light added at the end: catchlights, wet lids

    @classmethod
    def of(cls, grid: Grid, head: Head, spec: PhantomSpec) -> Canvas:
        shape = head.u.shape
        return cls(
            grid=grid,
            head=head,
            spec=spec,
            height=head.height,
            blood=np.full(shape, spec.identity.blood, np.float32),
            melanin=np.zeros(shape, np.float32),
            oil=np.full(shape, 0.05, np.float32),
            dark=np.ones(shape, np.float32),
            paint=np.zeros((3, *shape), np.float32),
            bare=np.ones(shape, np.float32),
            glint=np.zeros(shape, np.float32),
        )

    def cover(self, box: tuple[slice, slice], colour: Field, alpha: Field) -> None:
        """Lay an opaque colour, [3] or [3, h, w], over a box with this share of each pixel."""
        layer = colour if colour.ndim == 3 else colour[:, None, None]
        part = self.paint[:, box[0], box[1]]
        part += alpha * (layer - part)
        self.bare[box] *= 1 - alpha
