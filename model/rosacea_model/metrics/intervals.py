"""Numbers with their uncertainty: confidence intervals by group jackknife, influence values, bootstrap and repeats.

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
GROUPS = 20  # parts left out in turn by the jackknife


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


def groups(n: int, *, seed: int, count: int = GROUPS) -> NDArray[np.int64]:  # => [n] group of each row
    """Random assignment of n rows to `count` groups of nearly equal size."""
    if n < 2:
        raise MetricError(f"an interval needs at least 2 images, got {n}")
    return np.random.default_rng(seed).permutation(np.arange(n) % min(count, n))


def jackknife(
    value: float, left_out: ArrayLike, *, n: int, seed: int, level: float = LEVEL, lowest: float = -math.inf
) -> Estimate:
    """Interval from the values with one group of rows left out at a time.

    Group jackknife (Efron and Stein 1981; Kott 2001) with Student's t for as many groups. For statistics that change
    little when a few rows go; with two samples, leave out a group of each at once.
    """
    error = standard_error(left_out)
    half = student_t(level, np.size(left_out) - 1) * error
    return Estimate(
        value=value,
        low=max(value - half, lowest),
        high=value + half,
        level=level,
        n=n,
        seed=seed,
        method=f"jackknife, {np.size(left_out)} groups",
    )


def standard_error(left_out: ArrayLike) -> float:
    """Jackknife standard error from G leave-one-group-out values: sqrt((G - 1) / G * sum of squared deviations)."""
    values = np.asarray(left_out, np.float64)
    return float(np.sqrt((len(values) - 1) * values.var()))


def proportion(value: float, left_out: ArrayLike, *, n: int, seed: int, level: float = LEVEL) -> Estimate:
    """Interval of a share in [0, 1]: Wilson's score interval for the sample size that the jackknife variance implies.

    Never empty at 0 or 1, where every left-out value is the same. Wilson (1927); effective sizes as in Korn and
    Graubard (1998).
    """
    variance = standard_error(left_out) ** 2
    effective = min(n, value * (1 - value) / variance) if variance else float(n)
    low, high = wilson(value, max(effective, 1.0), level)
    return Estimate(
        value=value, low=low, high=high, level=level, n=n, seed=seed, method="Wilson with the jackknife's variance"
    )


def wilson(share: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a share seen among n independent cases."""
    z = normal_quantile(level)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def delta(
    value: float, *influences: ArrayLike, seed: int = 0, level: float = LEVEL, extra: float = 0.0, method: str = ""
) -> Estimate:
    """Interval from the influence of each row on the statistic, one array [N] for each independent sample.

    The delta method: the variance is the sum over samples of var(influence) / N, plus `extra`, a variance of other
    origin such as that of random subsets.
    """
    rows = [np.asarray(each, np.float64) for each in influences]
    variance = sum(each.var(ddof=1) / len(each) for each in rows) + extra
    half = normal_quantile(level) * math.sqrt(variance)
    n = min(map(len, rows))
    return Estimate(
        value=value, low=value - half, high=value + half, level=level, n=n, seed=seed, method=method or "delta method"
    )


def bootstrap(
    statistic: Callable[..., float],
    *samples: NDArray[np.generic],
    seed: int,
    repeats: int = 1000,
    level: float = LEVEL,
) -> Estimate:
    """Percentile interval over samples drawn with replacement, each sample independently of the others.

    Not for distances between nearest neighbours, nor for FID: rows drawn twice are neighbours at distance zero, and
    lower the rank of covariances. Use `jackknife` there.
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
