"""Detects enlarged pictures, which have many pixels and little detail.

Enlarging leaves the spectrum empty above the frequencies that the small picture had, behind a cliff. A soft lens or
strong compression thins high frequencies out gradually instead. So the sign is a drop of the power spectrum by more
than a factor of ten within half an octave, with next to nothing behind it. Bicubic and bilinear enlarging,
and strong compression after it, soften the cliff and may pass unseen: this finds Lanczos enlarging nearly always, the
others in part, and hardly ever a picture that was not enlarged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

MAX_SIDE = 1024  # the middle of a larger picture tells as much
MIN_SIDE = 200  # below this the spectrum is too coarse to judge
RINGS = 64  # bins from frequency 0 to Nyquist
LOWEST, HIGHEST = 0.25, 0.85  # cut-offs looked for, as shares of Nyquist: enlarged 4 to 1.2 times
MIN_DROP = 1.25  # decades of power; soft and recompressed photographs stay below


@dataclass(frozen=True)
class Enlargement:
    """A drop in the spectrum: its height in decades, and its frequency as a fraction of Nyquist."""

    drop: float
    cutoff: float


def find_enlargement(image: Image.Image) -> Enlargement | None:
    """Evidence that a picture was enlarged, or None."""
    spectrum = ring_spectrum(_middle(image))
    if spectrum is None:
        return None
    found = max(
        (_drop_at(spectrum, ring) for ring in range(int(LOWEST * RINGS), int(HIGHEST * RINGS))),
        key=lambda cliff: cliff.drop,
    )
    return found if found.drop >= MIN_DROP else None


def ring_spectrum(grey: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """log10 of the mean power in square rings around frequency 0; None if too small or too plain.

    Square, because enlarging cuts both axes off on their own.
    """
    height, width = grey.shape
    if min(height, width) < MIN_SIDE or grey.std() < 1:
        return None
    window = np.hanning(height)[:, None] * np.hanning(width)
    power = np.abs(np.fft.rfft2((grey - grey.mean()) * window)) ** 2 / (window**2).sum()
    down, across = np.abs(np.fft.fftfreq(height)) * 2, np.fft.rfftfreq(width) * 2
    rings = np.minimum((np.maximum(down[:, None], across) * RINGS).astype(np.intp), RINGS - 1)
    sums = np.bincount(rings.ravel(), power.ravel(), RINGS)
    counts = np.bincount(rings.ravel(), minlength=RINGS)
    # Rounding to whole grey values alone leaves a power of 1/12: nothing below that is a picture.
    return np.asarray(np.log10(np.maximum(sums / counts, 1 / 12)))


def _drop_at(spectrum: NDArray[np.float64], ring: int) -> Enlargement:
    """Drop of the spectrum from just below a ring to the maximum above it."""
    below = spectrum[int(0.75 * ring) : int(0.92 * ring) + 1].mean()
    above = spectrum[min(int(1.15 * ring) + 1, RINGS - 3) :].max()
    return Enlargement(round(float(below - above), 2), round(ring / RINGS, 2))


def _middle(image: Image.Image) -> NDArray[np.float32]:
    width, height = image.size
    left, top = max(0, (width - MAX_SIDE) // 2), max(0, (height - MAX_SIDE) // 2)
    part = image.crop((left, top, min(width, left + MAX_SIDE), min(height, top + MAX_SIDE)))
    return np.asarray(part.convert("L"), np.float32)
