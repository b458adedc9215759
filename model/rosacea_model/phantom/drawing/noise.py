"""Random fields in unit coordinates: the same face keeps the same texture at every resolution."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

CELLS = 256  # the lattice repeats after this many cells


@cache
def _lattice() -> Field:
    """Uniform values in -1..1 on a periodic lattice [CELLS, CELLS]."""
    return np.random.default_rng(20130).uniform(-1, 1, (CELLS, CELLS)).astype(np.float32)


def value_noise(x: Field, y: Field, offset: int = 0) -> Field:
    """Smooth noise in about -1..1 with one random value a unit cell, at points of any shape."""
    lattice = _lattice().ravel()
    column, row = np.floor(x), np.floor(y)
    fx, fy = x - column, y - row
    fx *= fx * (3 - 2 * fx)
    fy *= fy * (3 - 2 * fy)
    left = (column.astype(np.int32) + offset * 37) & (CELLS - 1)
    right = (left + 1) & (CELLS - 1)
    top = ((row.astype(np.int32) + offset * 101) & (CELLS - 1)) * CELLS
    bottom = (top + CELLS) & (CELLS * CELLS - 1)
    upper = lattice[top + left]
    upper += fx * (lattice[top + right] - upper)
    lower = lattice[bottom + left]
    lower += fx * (lattice[bottom + right] - lower)
    lower -= upper
    lower *= fy
    lower += upper
    return lower


def octave_weight(cells_per_unit: float, pixel: float) -> float:
    """How much of an octave a pixel of this size can show: 1 when a cell spans 4 pixels or more, 0 under 1.5."""
    return float(np.clip((1 / (cells_per_unit * pixel) - 1.5) / 2.5, 0, 1))


def fractal_noise(x: Field, y: Field, frequency: float, octaves: int, pixel: float, offset: int = 0) -> Field:
    """Octaves of value noise, each half as strong as the last; those too fine for the pixel fade out."""
    total = np.zeros_like(x)
    for octave in range(octaves):
        cells = frequency * 2.0**octave
        weight = 0.5**octave * octave_weight(cells, pixel)
        if weight > 0:
            scale = np.float32(cells)
            total += np.float32(weight) * value_noise(x * scale, y * scale, offset + octave)
    return total


def pyramid_noise(rng: np.random.Generator, resolution: int, channels: int) -> Field:
    """Noise [resolution, resolution, channels] whose box average is the noise of half the resolution.

    Standard deviation 1 at 64 px; each doubling adds detail of zero mean in every 2x2 block, as a Haar pyramid does,
    a third stronger than the last (white noise would double: a camera smooths).
    """
    size = min(64, resolution)
    noise = rng.standard_normal((size, size, channels), dtype=np.float32)
    while size < resolution:
        detail = rng.standard_normal((size, 2, size, 2, channels), dtype=np.float32)
        detail -= detail.mean(axis=(1, 3), keepdims=True)
        scale = np.float32((size / 64) ** 0.415)
        noise = (noise[:, None, :, None] + scale * detail).reshape(2 * size, 2 * size, channels)
        size *= 2
    return noise
