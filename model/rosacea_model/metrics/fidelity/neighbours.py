"""Precision, recall, density and coverage: whether each side lies where the other one's nearest neighbours are.

Precision and recall as Kynkaanniemi et al. (2019), equation 1; density and coverage as Naeem et al. (2020), equations 4
and 5. A point counts as covered where it is nearer to a centre than that centre's k-th neighbour of its own kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MetricError
from ..intervals import Estimate, block_spread, normal, proportion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from .moments import Rows

    Matrix = NDArray[np.float64]

BLOCK = 256  # rows compared with the other set at once
PRECISION_K, DENSITY_K = 3, 5  # neighbours, as in the two papers


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How two sets cover one another."""

    precision: Estimate  # share of fakes among the reals' neighbourhoods
    recall: Estimate  # share of reals among the fakes' neighbourhoods
    density: Estimate  # neighbourhoods of reals that a fake lies in, over k; may exceed 1
    coverage: Estimate  # share of reals with a fake in their neighbourhood


def coverage(reals: Rows, fakes: Rows, *, seed: int, k: int = PRECISION_K, density_k: int = DENSITY_K) -> Coverage:
    """All four for features [N, D] and [M, D], with intervals from disjoint blocks of both."""
    one, other = _centred(reals, fakes)
    n = min(len(one), len(other))
    if n // 2 <= max(k, density_k):
        raise MetricError(
            f"neighbours with k {max(k, density_k)} need at least {2 * max(k, density_k) + 2} images, got {n}"
        )

    def values(reals: Matrix, fakes: Matrix) -> tuple[float, float, float, float]:
        return point_values(reals, fakes, k=k, density_k=density_k)

    found, spread = values(one, other), block_spread(values, one, other, seed=seed)
    mean, variance = spread.mean.tolist(), spread.variance.tolist()
    method = f"variance over blocks, k {k} and {density_k}"

    def share(place: int) -> Estimate:
        return proportion(found[place], variance[place], at=mean[place], n=n, seed=seed, method=method)

    density = normal(found[2], variance[2], n=n, seed=seed, method=method, lowest=0)
    return Coverage(precision=share(0), recall=share(1), density=density, coverage=share(3))


@dataclass(frozen=True, kw_only=True)
class NeighbourFlags:
    """For each image, whether it lies where the other set does."""

    precise: NDArray[np.bool_]  # [M] fakes within a neighbourhood of a real
    neighbourhoods: NDArray[np.int64]  # [M] of reals that each fake lies in
    reached: NDArray[np.bool_]  # [N] reals within a neighbourhood of a fake
    covered: NDArray[np.bool_]  # [N] reals with a fake in their own neighbourhood


def memberships(reals: Rows, fakes: Rows, *, k: int = PRECISION_K, density_k: int = DENSITY_K) -> NeighbourFlags:
    """The image by image answers that precision, recall, density and coverage are means of."""
    return _memberships(*_centred(reals, fakes), k=k, density_k=density_k)


def point_values(reals: Matrix, fakes: Matrix, *, k: int, density_k: int) -> tuple[float, float, float, float]:
    """Precision, recall, density and coverage without intervals."""
    found = _memberships(reals, fakes, k=k, density_k=density_k)
    density = int(found.neighbourhoods.sum()) / (density_k * len(fakes))
    return float(found.precise.mean()), float(found.reached.mean()), density, float(found.covered.mean())


def _memberships(reals: Matrix, fakes: Matrix, *, k: int, density_k: int) -> NeighbourFlags:
    narrow, wide = _radii(reals, k, density_k)
    (theirs,) = _radii(fakes, k)
    precise, dense = np.zeros(len(fakes), bool), np.zeros(len(fakes), np.int64)
    nearest = np.full(len(reals), np.inf)
    reached = np.zeros(len(reals), bool)
    for start, squares in zip(range(0, len(fakes), BLOCK), _squares(fakes, reals), strict=True):
        precise[start : start + BLOCK] = (squares < narrow).any(axis=1)
        dense[start : start + BLOCK] = (squares < wide).sum(axis=1)
        np.minimum(nearest, squares.min(axis=0), out=nearest)
        reached |= (squares < theirs[start : start + BLOCK, None]).any(axis=0)
    return NeighbourFlags(precise=precise, neighbourhoods=dense, reached=reached, covered=nearest < wide)


def _centred(reals: Rows, fakes: Rows) -> tuple[Matrix, Matrix]:
    # Distances stay, and the squares that they are computed from lose fewer digits.
    one, other = np.asarray(reals, np.float64), np.asarray(fakes, np.float64)
    middle = one.mean(axis=0)
    return one - middle, other - middle


def _radii(rows: Matrix, *ks: int) -> list[Matrix]:
    """Squared distance [N] of each row to its k-th neighbour, for each k."""
    found = [np.empty(len(rows)) for _ in ks]
    for start, squares in zip(range(0, len(rows), BLOCK), _squares(rows, rows), strict=True):
        own = np.arange(len(squares))
        squares[own, start + own] = np.inf
        near = np.partition(squares, [k - 1 for k in ks], axis=1)
        for k, radius in zip(ks, found, strict=True):
            radius[start : start + BLOCK] = near[:, k - 1]
    return found


def _squares(one: Matrix, other: Matrix) -> Iterator[Matrix]:
    """Squared distances of BLOCK rows of one at a time to all of the other."""
    theirs = np.square(other).sum(axis=1)
    for start in range(0, len(one), BLOCK):
        block = one[start : start + BLOCK]
        squares = block @ (-2 * other.T)
        squares += theirs
        squares += np.square(block).sum(axis=1)[:, None]
        yield squares
