"""Numbers with their uncertainty: confidence intervals by bootstrap, blocks, influence values and repeats.

Every interval is for the expectation of the statistic at the sample sizes that were used, not for its limit at
infinitely many images: few images bias FID upwards, and no interval here takes that away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from .errors import MetricError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
BLOCKS, BLOCK_ROWS = 32, 500  # values that a variance over blocks comes from, and rows of a block


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number, its confidence interval, and what both were computed from."""

    value: float
    low: float
    high: float
    level: float = LEVEL  # of the interval
    n: int  # images (or pairs) behind the value; the smaller side where two sets are compared
    seed: int = 0  # of everything random in it
    method: str = ""  # how the interval was found

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True, eq=False)
class BlockSpread:
    """What statistics are over blocks of the rows."""

    mean: NDArray[np.float64]  # of each statistic over blocks, at their smaller size
    variance: NDArray[np.float64]  # of each statistic over all rows


def block_spread(statistic: Callable[..., Sequence[float]], *samples: NDArray[np.generic], seed: int) -> BlockSpread:
    """Variance of each number that `statistic` gives for samples of rows, from its variance over disjoint blocks.

    Blocks hold at most half of each sample, and BLOCK_ROWS at most, so that large samples cost little; the variance at
    the full size is the smaller by the ratio of the sizes (batch means; Politis and Romano 1994). For statistics whose
    variance goes with 1/N, such as shares of nearest neighbours, where a bootstrap fails.
    """
    parts = max(2, -(-max(map(len, samples)) // BLOCK_ROWS))
    if (least := min(map(len, samples))) < 2 * parts:
        raise MetricError(f"an interval needs at least {2 * parts} images on each side, got {least}")
    rng, means, variances = np.random.default_rng(seed), [], []
    for _ in range(-(-BLOCKS // parts)):
        cut = [np.array_split(rng.permutation(len(each)), parts) for each in samples]
        values = [
            statistic(*(each[places[part]] for each, places in zip(samples, cut, strict=True))) for part in range(parts)
        ]
        means.append(np.mean(values, axis=0))
        variances.append(np.var(values, axis=0, ddof=1) / parts)
    return BlockSpread(np.mean(means, axis=0), np.mean(variances, axis=0))


def proportion(
    value: float,
    variance: float,
    *,
    n: int,
    seed: int,
    at: float | None = None,
    level: float = LEVEL,
    method: str = "Wilson",
) -> Estimate:
    """Interval of a share in [0, 1]: Wilson's score interval for the sample size that its variance implies.

    The variance is that of a share of about `at`, where this is not the value. Never empty at 0 or 1, where the
    variance is 0 as well. Wilson (1927); effective sizes as Korn and Graubard (1998).
    """
    share = value if at is None else at
    effective = min(n, share * (1 - share) / variance) if variance else float(n)
    low, high = wilson(value, max(effective, 1.0), level)
    return Estimate(value=value, low=low, high=high, level=level, n=n, seed=seed, method=method)


def wilson(share: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a share seen among n independent cases."""
    z = normal_quantile(level)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def delta(
    value: float, *influences: ArrayLike, seed: int = 0, level: float = LEVEL, method: str = "delta method"
) -> Estimate:
    """Interval from the influence of each row on the statistic, one array [N] for each independent sample.

    The delta method: the variance is the sum over samples of var(influence) / N.
    """
    n = min(np.size(each) for each in influences)
    return normal(value, first_order(*influences), n=n, seed=seed, level=level, method=method)


def first_order(*influences: ArrayLike) -> float:
    """Variance of a statistic to first order: the sum over samples of var(influence) / N."""
    rows = [np.asarray(each, np.float64) for each in influences]
    return float(sum(each.var(ddof=1) / len(each) for each in rows))


def normal(
    value: float,
    variance: float,
    *,
    n: int,
    seed: int = 0,
    level: float = LEVEL,
    method: str = "normal",
    lowest: float = -math.inf,
) -> Estimate:
    """Interval of a statistic whose distribution is about normal with this variance, and that is at least `lowest`."""
    half = normal_quantile(level) * math.sqrt(variance)
    low = max(value - half, lowest)
    return Estimate(value=value, low=low, high=value + half, level=level, n=n, seed=seed, method=method)


def bootstrap(
    statistic: Callable[..., float],
    *samples: NDArray[np.generic],
    seed: int,
    repeats: int = 1000,
    level: float = LEVEL,
) -> Estimate:
    """Percentile interval over samples drawn with replacement, each sample independently of the others.

    Not for distances between nearest neighbours, nor for FID: rows drawn twice are neighbours at distance zero, and
    lower the rank of covariances.
    """
    if min(map(len, samples)) < 2:
        raise MetricError(f"an interval needs at least 2 images, got {min(map(len, samples))}")
    rng = np.random.default_rng(seed)
    values = [statistic(*(each[rng.integers(0, len(each), len(each))] for each in samples)) for _ in range(repeats)]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(
        value=float(statistic(*samples)),
        low=float(low),
        high=float(high),
        level=level,
        n=min(map(len, samples)),
        seed=seed,
        method=f"bootstrap, {repeats} samples",
    )


def repeats(values: Sequence[float], *, n: int, seed: int, level: float = LEVEL) -> Estimate:
    """Mean of independent runs (seeds of training, fresh draws) with Student's t interval over the runs."""
    if len(values) < 2:
        raise MetricError(f"an interval over repeats needs at least 2 of them, got {len(values)}")
    mean = float(np.mean(values))
    half = student_t(level, len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Estimate(
        value=mean, low=mean - half, high=mean + half, level=level, n=n, seed=seed, method=f"{len(values)} repeats"
    )


def normal_quantile(level: float) -> float:
    """The z of a two-sided interval: 1.96 for 0.95."""
    return NormalDist().inv_cdf((1 + level) / 2)


def student_t(level: float, freedom: int) -> float:
    """The t of a two-sided interval with this many degrees of freedom: 2.09 for 0.95 and 19."""
    if freedom < 1:
        raise MetricError(f"an interval needs at least 1 degree of freedom, got {freedom}")
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, freedom) < level else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _inside(angle: float, freedom: int) -> float:
    """Probability that |t| stays below sqrt(freedom) tan(angle) (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0 if freedom == 1 else term
    for power in range(2 + odd, freedom - 1, 2):
        term *= (power - 1) / power * math.cos(angle) ** 2
        total += term
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total
