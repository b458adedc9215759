"""KID: squared maximum mean discrepancy with a cubic kernel (Binkowski et al. 2018, sections 4 and 4.1), unbiased."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MetricError
from ..intervals import Estimate, first_order, normal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .moments import Rows

BLOCK = 512  # rows of the kernel matrix held at once
SUBSETS = 100
SUBSET_SIZE = 1000
VARIANCE_ROWS = 2000  # that the variance is estimated from


def kernel(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:  # => [N, M]
    """(x . y / D + 1)^3."""
    products = _extended(one) @ _extended(other).T
    cubes: NDArray[np.float64] = products * products  # a power would take ten times as long
    cubes *= products
    return cubes


def kernel_distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The unbiased estimate of the squared discrepancy; below 0 as often as not where both are of one distribution."""
    n, m = len(one), len(other)
    if min(n, m) < 2:
        raise MetricError(f"a kernel distance needs at least 2 images on each side, got {n} and {m}")
    ours, theirs = _extended(one), _extended(other)
    within = _others(ours) / (n * (n - 1)) + _others(theirs) / (m * (m - 1))
    return within - 2 * _total(ours, theirs) / (n * m)


def _extended(rows: NDArray[np.float64]) -> NDArray[np.float64]:  # => [N, D + 1]
    """Rows whose products are x . y / D + 1."""
    return np.concatenate([rows / np.sqrt(rows.shape[1]), np.ones((len(rows), 1))], axis=1)


def _total(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Sum of the kernel of extended rows over all pairs."""
    products = one @ other.T
    return float(np.vdot(products * products, products))


def _others(rows: NDArray[np.float64]) -> float:
    """Sum of the kernel of extended rows over all pairs of different rows."""
    return _total(rows, rows) - float((np.square(rows).sum(axis=1) ** 3).sum())


def subset_size(reals: int, fakes: int, wanted: int = SUBSET_SIZE) -> int:
    """Images in a subset: at most half of either side, so that subsets differ."""
    return min(wanted, reals // 2, fakes // 2)


def kid(reals: Rows, fakes: Rows, *, seed: int, subsets: int = SUBSETS, size: int | None = None) -> Estimate:
    """Mean kernel distance of random subsets of features [N, D] and [M, D], with its interval.

    The interval is not the spread over subsets, which overlap: it is the variance of the estimate over all pairs (as
    Sutherland et al. 2019, unbiased), and the variance from drawing a limited number of subsets.
    """
    reals, fakes = np.asarray(reals, np.float64), np.asarray(fakes, np.float64)
    size = size or subset_size(len(reals), len(fakes))
    if size < 2:
        raise MetricError(f"KID needs at least 4 images on each side, got {len(reals)} and {len(fakes)}")
    rng = np.random.default_rng(seed)
    values = [kernel_distance(_drawn(reals, size, rng), _drawn(fakes, size, rng)) for _ in range(subsets)]
    chosen = float(np.var(values, ddof=1)) / subsets
    return normal(
        float(np.mean(values)),
        pairs_variance(reals, fakes, rng) + chosen,
        n=min(len(reals), len(fakes)),
        seed=seed,
        method=f"{subsets} subsets of {size}, variance over all pairs",
    )


def pairs_variance(
    reals: NDArray[np.float64], fakes: NDArray[np.float64], rng: np.random.Generator, most: int = VARIANCE_ROWS
) -> float:
    """Variance of the kernel distance over all pairs, from at most `most` rows of each side.

    The variance of the influences counts the second-order part twice: once is taken off again. Without a difference
    between the sets that part is all there is. The first goes with 1/N, the second with 1/N^2.
    """
    part = min(1.0, most / max(len(reals), len(fakes)))
    one, other = (_drawn(rows, max(2, round(part * len(rows))), rng) for rows in (reals, fakes))
    own, theirs, between = _Sums.within(one), _Sums.within(other), _Sums.between(one, other)
    counted = first_order(2 * (own.rows - between.rows), 2 * (theirs.rows - between.columns))
    second = (
        2 * own.residual / len(one) ** 2
        + 2 * theirs.residual / len(other) ** 2
        + 4 * between.residual / (len(one) * len(other))
    )
    return part * max(counted - 2 * second, 0.0) + part**2 * second


def _drawn(rows: NDArray[np.float64], size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    drawn: NDArray[np.float64] = rows[rng.choice(len(rows), size, replace=False)]
    return drawn


@dataclass(frozen=True, eq=False)
class _Sums:
    """Means of a kernel matrix along both sides, and the variance that is left without them."""

    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    residual: float

    @classmethod
    def within(cls, rows: NDArray[np.float64]) -> _Sums:
        """Of rows with one another, each with itself left out."""
        n = len(rows)
        sums, squares = _row_sums(rows, rows)
        own = (np.square(rows).sum(axis=1) / rows.shape[1] + 1) ** 3
        means = (sums - own) / (n - 1)
        return cls(means, means, _residual((squares - np.square(own)).sum() / (n * (n - 1)), means, means))

    @classmethod
    def between(cls, one: NDArray[np.float64], other: NDArray[np.float64]) -> _Sums:
        sums, squares = _row_sums(one, other)
        columns, _ = _row_sums(other, one)
        rows, columns = sums / len(other), columns / len(one)
        return cls(rows, columns, _residual(squares.sum() / (len(one) * len(other)), rows, columns))


def _row_sums(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of the kernel and of its square along each row."""
    found = []
    for start in range(0, len(one), BLOCK):
        part = kernel(one[start : start + BLOCK], other)
        found.append((part.sum(axis=1), np.square(part).sum(axis=1)))
    sums, squares = zip(*found, strict=True)
    return np.concatenate(sums), np.concatenate(squares)


def _residual(mean_square: float, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> float:
    return max(float(mean_square - rows.mean() ** 2 - rows.var() - columns.var()), 0.0)
