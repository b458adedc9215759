"""Groups of generated images that are nearly alike: a generator that repeats itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...data.screening.hashes import groups
from ..distances import squared_distances
from ..intervals import Estimate, wilson

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Features = NDArray[np.floating]

RATE = 0.01  # share of real images that have another so near


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """Groups among images, linked where two lie nearer than all but RATE of the reals to their nearest."""

    groups: tuple[tuple[int, ...], ...]  # places of images, the largest group first
    share: Estimate  # of images in a group; of reals about RATE
    distance: float  # below which two images count as nearly alike

    @property
    def largest(self) -> int:
        return len(self.groups[0]) if self.groups else 0


def repetition(images: Features, reals: Features) -> Repetition:
    """Groups of nearly alike images [N, D], by what is near among as many reals [M, D].

    Of many images the nearest lies nearer than of few, so both are cut to one number.
    """
    count = min(len(images), len(reals))
    limit = float(np.quantile(nearest_other(reals[:count]), RATE))
    squares = squared_distances(images[:count], images[:count])
    pairs = np.argwhere(np.triu(squares < limit**2, 1))
    found = sorted(groups(count, ((int(a), int(b)) for a, b in pairs)), key=len, reverse=True)
    share = sum(map(len, found)) / count
    low, high = wilson(share, count)
    return Repetition(
        groups=tuple(map(tuple, found)),
        share=Estimate(value=share, low=low, high=high, n=count, method="Wilson"),
        distance=limit,
    )


def nearest_other(rows: Features) -> NDArray[np.float64]:  # => [N]
    """Distance of each row to the nearest other one."""
    squares = squared_distances(rows, rows)
    np.fill_diagonal(squares, np.inf)
    return np.asarray(np.sqrt(squares.min(axis=1)), np.float64)
