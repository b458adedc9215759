"""Mean and covariance of features, from rows on disk, with full precision for fewer rows than dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MetricError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Rows = NDArray[np.float32] | NDArray[np.float64]

LEAST_BLOCK = 1024  # rows taken at once


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and covariance. The covariance is kept as a factor, so that none of its precision is squared away."""

    n: int
    mean: NDArray[np.float64]  # [D]
    factor: NDArray[np.float64]  # [min(n, D), D], covariance = factor.T @ factor

    @property
    def covariance(self) -> NDArray[np.float64]:  # => [D, D]
        return self.factor.T @ self.factor

    @property
    def trace(self) -> float:
        """Trace of the covariance."""
        return float(np.square(self.factor).sum())


def moments(rows: Rows, *, population: bool = False) -> Moments:
    """Moments of rows [N, D], computed in float64 a block at a time.

    The covariance is divided by N - 1, or by N with `population`, as the reference implementation does.
    """
    n, dimension = rows.shape
    if n < 2:
        raise MetricError(f"a covariance needs at least 2 images, got {n}")
    mean = sum((block.sum(axis=0) for block in blocks(rows)), np.zeros(dimension)) / n
    factor = np.empty((0, dimension))
    for block in blocks(rows):
        factor = np.concatenate([factor, block - mean])
        if len(factor) > dimension:
            factor = np.asarray(np.linalg.qr(factor, mode="r"))
    return Moments(n, mean, factor / np.sqrt(n if population else n - 1))


def blocks(rows: Rows) -> Iterator[NDArray[np.float64]]:
    """The rows in float64, some at a time."""
    size = max(LEAST_BLOCK, 2 * rows.shape[1])
    for start in range(0, len(rows), size):
        yield np.asarray(rows[start : start + size], np.float64)
