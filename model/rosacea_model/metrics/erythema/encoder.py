"""Redness as features, so that it is measured in the same pass over the images as everything else."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ...phantom.measure import MEASURED_AT
from ...phantom.redness import CALM_WEIGHT, Redness, Regions, mean_regions, measure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..encoders.protocol import Levels

NAMES = tuple(field.name for field in fields(Redness))


class RednessEncoder:
    """The fields of Redness, one dimension each, for images of one resolution. Its regions are soft: 64 px will do."""

    name, comparable, unrounded = "redness", False, False
    resize = f"box mean to {MEASURED_AT} px"
    dimension = len(NAMES)

    def __init__(self, resolution: int) -> None:
        self.side = min(resolution, MEASURED_AT)
        self.regions = mean_regions(self.side)
        # What lies outside of both regions counts nowhere.
        weights = self.regions.face + self.regions.calm
        rows, columns = (np.flatnonzero(weights.any(axis=axis)) for axis in (1, 0))
        self._rows, self._columns = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        self._inner = Regions(*(each[self._rows, self._columns] for each in (self.regions.face, self.regions.calm)))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the regions that are measured, and over the weight of calm skin."""
        regions = self.regions.face.tobytes() + self.regions.calm.tobytes()
        return hashlib.sha256(regions + f"{CALM_WEIGHT} {NAMES}".encode()).hexdigest()

    def encode(self, images: Levels) -> NDArray[np.float32]:
        """Features [N, 5] of uint8 images [N, H, W, 3]."""
        step = images.shape[1] // self.side
        images = box_mean(np.asarray(images, np.uint8), step) if step > 1 else images
        inner = np.asarray(images[:, self._rows, self._columns], np.uint8)
        found = measure(list(inner), self._inner)
        return np.stack([getattr(found, name) for name in NAMES], axis=1).astype(np.float32)


def box_mean(images: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Means of step x step pixels, rounded."""
    total = np.full(images[:, ::step, ::step].shape, step**2 // 2, np.uint32)
    for row in range(step):
        for column in range(step):
            total += images[:, row::step, column::step]
    return (total // step**2).astype(np.uint8)


def redness_of(rows: NDArray[np.float32]) -> Redness:
    """The measured redness [N, 5], by name again."""
    return Redness(**dict(zip(NAMES, rows.T.astype(np.float64), strict=True)))
