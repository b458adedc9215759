"""The test for data copying of Meehan, Chaudhuri and Dasgupta (2020), C_T.

In each cell of the space the distances to the nearest training image are compared, of generated images with those of
the hold-out, by the z of the Mann-Whitney test; C_T is the mean over cells, weighted by the hold-out. Far below 0
generated images are nearer than the hold-out is: copying, if only in some cells. Far above 0 they are further: a poor
fit. Cells are k-means of the training features in their first principal components.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..distances import squared_distances
from ..errors import MetricError
from ..intervals import Estimate, bootstrap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Features = NDArray[np.floating]

COMPONENTS, CELLS = 64, 3
FEWEST = 10  # images of each kind in a cell that counts
STEPS = 50  # of k-means
REPEATS = 200  # of the bootstrap


def copying_test(fakes: Features, training: Features, holdout: Features, *, seed: int = 0) -> Estimate:
    """C_T of features [N, D], [M, D] and [H, D]; below about -3 is copying, above about 3 a poor fit.

    The interval is a bootstrap over generated images and hold-out. Raises MetricError if no cell has FEWEST of both.
    """
    project = Projection(training)
    fakes, training, holdout = project(fakes), project(training), project(holdout)
    centres = k_means(training, CELLS, seed=seed)
    ours, theirs = (_placed(images, training, centres) for images in (fakes, holdout))
    return bootstrap(weighted_z, ours, theirs, seed=seed, repeats=REPEATS)


def weighted_z(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """C_T from rows (cell, distance) of generated images and of the hold-out."""
    total = weight = 0.0
    for cell in np.unique(theirs[:, 0]):
        mine, other = (rows[rows[:, 0] == cell, 1] for rows in (ours, theirs))
        if min(len(mine), len(other)) >= FEWEST:
            total += len(other) * mann_whitney_z(mine, other)
            weight += len(other)
    if not weight:
        raise MetricError(
            f"no cell has {FEWEST} generated images and {FEWEST} of the hold-out: C_T needs more of them, got "
            f"{len(ours)} and {len(theirs)}"
        )
    return total / weight


def mann_whitney_z(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """z of the Mann-Whitney test, below 0 where `one` has the smaller values; ties count half, without correction."""
    less = np.searchsorted(np.sort(other), one, side="left").sum()
    ties = np.searchsorted(np.sort(other), one, side="right").sum() - less
    n, m = len(one), len(other)
    return float((less + ties / 2 - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12))


def k_means(rows: Features, cells: int, *, seed: int) -> NDArray[np.float64]:  # => [cells, D]
    """Centres by Lloyd's algorithm, begun with k-means++ (Arthur and Vassilvitskii 2007)."""
    rng = np.random.default_rng(seed)
    centres = rows[rng.integers(len(rows))][None].astype(np.float64)
    while len(centres) < cells:
        weights = squared_distances(rows, centres).min(axis=1) + 1e-12
        centres = np.concatenate([centres, rows[rng.choice(len(rows), p=weights / weights.sum())][None]])
    for _ in range(STEPS):
        cell = squared_distances(rows, centres).argmin(axis=1)
        moved = np.stack(
            [rows[cell == k].mean(axis=0) if (cell == k).any() else centres[k] for k in range(len(centres))]
        )
        if np.allclose(moved, centres):
            break
        centres = moved
    return np.asarray(centres, np.float64)


class Projection:
    """Onto the first principal components of some rows."""

    def __init__(self, rows: Features) -> None:
        self.middle = rows.mean(axis=0, dtype=np.float64)
        self.axes = np.linalg.svd(rows - self.middle, full_matrices=False)[2][:COMPONENTS].T

    def __call__(self, rows: Features) -> NDArray[np.float64]:
        return np.asarray((rows - self.middle) @ self.axes, np.float64)


def _placed(rows: Features, training: Features, centres: Features) -> NDArray[np.float64]:
    """For each image its cell, the nearest centre, and its distance to the nearest training image: [N, 2]."""
    cell = squared_distances(rows, centres).argmin(axis=1)
    return np.stack([cell, np.sqrt(squared_distances(rows, training).min(axis=1))], axis=1)
