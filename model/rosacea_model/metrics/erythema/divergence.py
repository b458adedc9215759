"""Jensen-Shannon divergence of two histograms, with an interval and with what chance alone would give.

The divergence of two samples is above 0 even if both come from one distribution, and more so the smaller they are.
The estimate has that bias taken off, as the bootstrap shows it; `chance` is what it reaches without any difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..intervals import LEVEL, Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 2000


def jensen_shannon(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:  # [..., K] shares => [...]
    """Jensen-Shannon divergence in bits; 0 = equal, 1 = no overlap (Lin 1991, "Divergence measures based on the Shannon
    entropy", equation 4.1)."""
    divergence: NDArray[np.float64] = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
    return np.maximum(divergence, 0)  # rounding


def entropy(shares: NDArray[np.float64]) -> NDArray[np.float64]:  # [..., K] => [...] bits
    """Shannon entropy; empty bins count 0."""
    total: NDArray[np.float64] = -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=-1)
    return total


def divergence(reals: NDArray[np.int64], fakes: NDArray[np.int64], *, seed: int) -> Estimate:
    """Divergence of two histograms of counts [K], with a basic bootstrap interval (Davison and Hinkley 1997, 5.2.1).

    The percentile interval would not do: resampling adds the bias of small samples a second time, so that it never
    covers 0.
    """
    rng = np.random.default_rng(seed)
    p, q = reals / reals.sum(), fakes / fakes.sum()
    found = float(jensen_shannon(p, q))
    again = jensen_shannon(_resampled(rng, reals), _resampled(rng, fakes))
    low, high = np.quantile(again, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(
        value=max(2 * found - float(again.mean()), 0.0),
        low=max(2 * found - float(high), 0.0),
        high=max(2 * found - float(low), 0.0),
        n=int(min(reals.sum(), fakes.sum())),
        seed=seed,
        method=f"basic bootstrap, {RESAMPLES} samples",
    )


def chance(reals: NDArray[np.int64], fakes: NDArray[np.int64], *, seed: int) -> float:
    """The divergence that LEVEL of all divisions of these images into two sets of the same sizes stay below."""
    rng = np.random.default_rng(seed)
    first = rng.multivariate_hypergeometric(reals + fakes, int(reals.sum()), size=RESAMPLES)
    second = reals + fakes - first
    found = jensen_shannon(first / reals.sum(), second / fakes.sum())
    return max(float(np.quantile(found, LEVEL) - found.mean()), 0.0)


def _resampled(rng: np.random.Generator, counts: NDArray[np.int64]) -> NDArray[np.float64]:  # => [RESAMPLES, K]
    total = counts.sum()
    shares: NDArray[np.float64] = rng.multinomial(total, counts / total, size=RESAMPLES) / total
    return shares
