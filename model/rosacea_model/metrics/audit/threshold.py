"""Distances below which an image counts as a copy, set by images that are none, so that false alarms have a known rate.

Of m images that are no copies the k-th smallest distance is the threshold. A further such image lies below it with
probability k / (m + 1), whatever the distribution; given the m images that probability has the distribution
Beta(k, m + 1 - k) (Wilks 1941). The number of alarms among n is then beta-binomial, which gives an exact p-value.

Training images, each compared with the others, are often one another's nearest: two distances that are one. They count
as half as many, which leaves the rate as it is and makes its interval wider and p-values larger.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MetricError
from ..intervals import LEVEL, Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEWEST = 20  # images that set a threshold


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A distance, and the rate of false alarms below it."""

    distance: float
    rank: int  # k: it is the k-th smallest of
    controls: int  # m distances of images that are no copies
    independent: float  # how many independent ones they count as

    @property
    def rate(self) -> float:
        """Expected share of false alarms."""
        return self.rank / (self.controls + 1)

    @property
    def counted(self) -> tuple[int, int]:
        """Rank and controls that have the same rate and as much information as there is."""
        rank = max(1, math.floor(self.rank * self.independent / self.controls))
        return rank, round(rank / self.rate) - 1

    @property
    def false_alarms(self) -> Estimate:
        """The rate with the interval that the number of controls leaves."""
        low, high = (beta_quantile(q, *self.counted) for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
        return Estimate(value=self.rate, low=low, high=high, n=self.controls, method="order statistic (Wilks 1941)")

    def alarms(self, distance: NDArray[np.float64]) -> NDArray[np.bool_]:
        return distance < self.distance

    def p_value(self, alarms: int, images: int) -> float:
        """Probability of at least this number of alarms if none of the images is a copy."""
        return beta_binomial_tail(alarms, images, *self.counted)


def threshold(controls: NDArray[np.float64], rate: float, *, independent: float | None = None) -> Threshold:
    """The threshold for a rate of false alarms, or for the lowest that so few controls [m] can show.

    `independent` is how many independent ones they count as; None = all.
    """
    if not 0 < rate < 0.5:
        raise MetricError(f"the rate of false alarms must be above 0 and below 0.5, got {rate:g}")
    if len(controls) < FEWEST:
        raise MetricError(f"a threshold needs at least {FEWEST} images that are no copies, got {len(controls)}")
    rank = max(1, math.floor(rate * (len(controls) + 1)))
    return Threshold(
        distance=float(np.sort(controls)[rank - 1]),
        rank=rank,
        controls=len(controls),
        independent=len(controls) if independent is None else independent,
    )


def beta_quantile(q: float, rank: int, controls: int) -> float:
    """Quantile of Beta(k, m + 1 - k), found by bisection: its distribution function is P(Binomial(m, x) >= k)."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if binomial_tail(rank, controls, middle) < q else (low, middle)
    return low


def binomial_tail(least: int, n: int, p: float) -> float:
    """P(Binomial(n, p) >= least)."""
    if least <= 0:
        return 1.0
    if not 0 < p < 1:
        return float(p >= 1)
    below = (math.exp(_log_choose(n, k) + k * math.log(p) + (n - k) * math.log1p(-p)) for k in range(min(least, n + 1)))
    return max(1 - math.fsum(below), 0.0)


def beta_binomial_tail(least: int, n: int, rank: int, controls: int) -> float:
    """P(X >= least) for X of n below the `rank`-th smallest of `controls` others, all drawn alike."""
    rest = controls + 1 - rank
    terms = (
        math.exp(_log_choose(n, k) + _log_beta(k + rank, n - k + rest) - _log_beta(rank, rest))
        for k in range(least, n + 1)
    )
    return min(math.fsum(terms), 1.0)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
