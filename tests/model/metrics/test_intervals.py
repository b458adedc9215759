"""Intervals: the quantiles of textbooks, and coverage of a truth that is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import scipy

from rosacea_model.metrics.errors import MetricError
from rosacea_model.metrics.intervals import (
    block_spread,
    bootstrap,
    delta,
    normal,
    normal_quantile,
    proportion,
    repeats,
    student_t,
    wilson,
)

if TYPE_CHECKING:
    from collections.abc import Callable

TRIALS = 200


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 19, 20, 99])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_quantiles_of_student_t_are_those_of_scipy(level: float, freedom: int) -> None:
    assert student_t(level, freedom) == pytest.approx(scipy.stats.t.ppf((1 + level) / 2, freedom), rel=1e-9)


def test_the_wilson_interval_is_that_of_scipy() -> None:
    expected = scipy.stats.binomtest(3, 40).proportion_ci(0.9, "wilson")

    assert wilson(3 / 40, 40, 0.9) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert normal_quantile(0.95) == pytest.approx(scipy.stats.norm.ppf(0.975))


def covered(kind: str, trial: int) -> bool:
    rows = np.random.default_rng(trial).exponential(size=120)
    if kind == "bootstrap":
        found = bootstrap(lambda each: float(each.mean()), rows, seed=trial, repeats=300)
    elif kind == "delta":
        found = delta(float(rows.mean()), rows - rows.mean())
    elif kind == "blocks":
        spread = block_spread(lambda each: [float(each.mean())], rows, seed=trial)
        found = normal(float(rows.mean()), spread.variance[0], n=120)
    else:
        found = repeats(list(rows[:20]), n=20, seed=0)
    return found.low <= 1 <= found.high


@pytest.mark.parametrize("kind", ["bootstrap", "delta", "blocks", "repeats"])
def test_intervals_of_a_mean_cover_it_in_90_to_98_percent_of_trials(kind: str) -> None:
    share = np.mean([covered(kind, trial) for trial in range(TRIALS)])

    assert 0.90 <= share <= 0.98


def test_a_share_that_is_everywhere_0_still_has_an_interval() -> None:
    found = proportion(0.0, 0.0, n=50, seed=0)

    assert found.low == 0
    assert found.high == pytest.approx(scipy.stats.binomtest(0, 50).proportion_ci(0.95, "wilson").high)


def test_a_share_of_1_has_the_interval_of_the_design_that_blocks_show() -> None:
    """Blocks at 0.9 with twice the variance of independent cases: half as many cases count."""
    found = proportion(1.0, 2 * 0.09 / 100, at=0.9, n=100, seed=0)

    assert found.low == pytest.approx(scipy.stats.binomtest(50, 50).proportion_ci(0.95, "wilson").low)


@pytest.mark.parametrize("count", [200, 5000])
def test_the_variance_over_blocks_of_a_difference_is_that_of_its_means(count: int) -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=count), rng.normal(size=count // 2)

    found = block_spread(lambda a, b: [float(a.mean() - b.mean()), 0.0], one, other, seed=0)

    assert found.variance[0] == pytest.approx(1 / count + 2 / count, rel=0.35)
    assert found.variance[1] == 0
    assert found.mean[0] == pytest.approx(one.mean() - other.mean(), abs=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: block_spread(lambda a: [0.0], np.zeros(1), seed=0),
        lambda: repeats([1.0], n=1, seed=0),
        lambda: bootstrap(lambda each: 0.0, np.zeros(1), seed=0),
    ],
)
def test_a_single_value_has_no_interval(make: Callable[[], object]) -> None:
    with pytest.raises(MetricError, match=r"needs at least \d .*got 1"):
        make()
