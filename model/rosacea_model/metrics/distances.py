"""Squared distances between rows of features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def squared_distances(ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> NDArray[np.float64]:  # => [N, M]
    """Squared Euclidean distances of rows [N, D] and [M, D]."""
    # Distances stay without the mean, and the squares that they come from lose fewer digits.
    middle = theirs.mean(axis=0, dtype=np.float64)
    ours, theirs = ours - middle, theirs - middle
    squares = np.square(ours).sum(axis=1)[:, None] + np.square(theirs).sum(axis=1) - 2 * ours @ theirs.T
    return np.asarray(np.maximum(squares, 0), np.float64)
