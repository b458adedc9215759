"""Scores of classifiers with intervals that count two things: the choice of test images, and that of training runs.

The two are independent, so their variances add: that over test images comes from a bootstrap within each class, that
over training runs (seeds and architectures, paired between kinds of training data) from the runs themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MetricError
from ..intervals import LEVEL, Estimate, student_t

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class HeldOutImages:
    """True classes and groups of the test images, and how often each is drawn in each resample."""

    truth: NDArray[np.int64]  # [T]
    groups: NDArray[np.int64]  # [T]
    weights: NDArray[np.float64]  # [1 + RESAMPLES, T]; the first row is the test set itself
    seed: int

    @classmethod
    def of(cls, truth: NDArray[np.int64], groups: NDArray[np.int64], *, seed: int = 0) -> HeldOutImages:
        """Draw the resamples, within each class."""
        rng = np.random.default_rng(seed)
        weights = np.ones((1 + RESAMPLES, len(truth)))
        for label in np.unique(truth):
            members = np.flatnonzero(truth == label)
            if len(members) < 2:
                raise MetricError(f"the test set must hold at least 2 images of each class, got 1 of class {label}")
            weights[1:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), RESAMPLES)
        return cls(truth, groups, weights, seed)

    def recall(self, right: NDArray[np.bool_], label: int) -> NDArray[np.float64]:  # [R, T] => [R, 1 + RESAMPLES]
        """Share of a class that each run gets right."""
        return self._share(right, self.truth == label)

    def balanced(self, right: NDArray[np.bool_], group: int | None = None) -> NDArray[np.float64]:
        """Mean recall over the classes, of all test images or of a group: [R, 1 + RESAMPLES]."""
        inside = np.ones(len(self.truth), np.bool_) if group is None else self.groups == group
        shares = [self._share(right, inside & (self.truth == label)) for label in np.unique(self.truth[inside])]
        return _mean_of_known(np.stack(shares))

    def worst(self, right: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Balanced accuracy of the group for which it is lowest on average over runs: [R, 1 + RESAMPLES]."""
        found = np.stack([self.balanced(right, int(group)) for group in np.unique(self.groups)])
        lowest = found[:, :, 0].mean(axis=1).argmin()
        worst: NDArray[np.float64] = found[lowest]
        return worst

    def _share(self, right: NDArray[np.bool_], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
        weights = self.weights[:, inside]
        with np.errstate(invalid="ignore"):  # a group may lose a class in a resample
            share: NDArray[np.float64] = (right[:, inside] @ weights.T) / weights.sum(axis=1)
        return share

    def estimate(self, values: NDArray[np.float64], *, comparisons: int = 1) -> Estimate:  # [R, 1 + RESAMPLES]
        """Mean over runs with its interval: Student's t for as many runs, after Bonferroni for several comparisons."""
        runs = len(values)
        of_test = float(np.nanvar(values[:, 1:].mean(axis=0)))
        of_runs = float(values[:, 0].var(ddof=1)) / runs if runs > 1 else math.inf
        freedom = max(runs - 1, 1)
        half = student_t(1 - (1 - LEVEL) / comparisons, freedom) * math.sqrt(of_test + of_runs)
        value = float(values[:, 0].mean())
        return Estimate(
            value=value,
            low=max(value - half, -1.0),
            high=min(value + half, 1.0),
            n=len(self.truth),
            seed=self.seed,
            method=f"{runs} runs and bootstrap over test images",
        )


def _mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:  # [K, ...] => [...]
    """Mean over the first axis, not counting NaN; NaN where there is nothing else."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.where(known, values, 0).sum(axis=0) / known.sum(axis=0)
    return mean


def thirds(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.int64]:
    """Lowest, middle and highest third as 0, 1 and 2."""
    order = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return 3 * order // max(len(order), 1)
