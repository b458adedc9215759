"""Intervals: the quantiles of textbooks, and coverage of a truth that is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rosacea_model.metrics.errors import MetricError
from rosacea_model.metrics.intervals import (
    bootstrap,
    delta,
    groups,
    jackknife,
    normal_quantile,
    proportion,
    repeats,
    student_t,
    wilson,
)

TRIALS = 200


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 19, 20, 99])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_quantiles_of_student_t_are_those_of_scipy(level: float, freedom: int) -> None:
    assert student_t(level, freedom) == pytest.approx(stats.t.ppf((1 + level) / 2, freedom), rel=1e-9)


def test_the_wilson_interval_is_that_of_scipy() -> None:
    expected = stats.binomtest(3, 40).proportion_ci(0.9, "wilson")

    assert wilson(3 / 40, 40, 0.9) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert normal_quantile(0.95) == pytest.approx(stats.norm.ppf(0.975))


def test_groups_are_nearly_equal_and_follow_the_seed() -> None:
    found = groups(103, seed=1)

    assert set(np.bincount(found)) == {5, 6}
    assert (found == groups(103, seed=1)).all()
    assert (found != groups(103, seed=2)).any()


def covered(kind: str, trial: int) -> bool:
    rows = np.random.default_rng(trial).exponential(size=120)
    if kind == "bootstrap":
        found = bootstrap(lambda each: float(each.mean()), rows, seed=trial, repeats=300)
    elif kind == "delta":
        found = delta(float(rows.mean()), rows - rows.mean())
    elif kind == "jackknife":
        part = groups(len(rows), seed=trial)
        found = jackknife(float(rows.mean()), [rows[part != each].mean() for each in range(20)], n=120, seed=trial)
    else:
        found = repeats(list(rows[:20]), n=20, seed=0)
    return found.low <= 1 <= found.high


@pytest.mark.parametrize("kind", ["bootstrap", "delta", "jackknife", "repeats"])
def test_intervals_of_a_mean_cover_it_in_90_to_98_percent_of_trials(kind: str) -> None:
    share = np.mean([covered(kind, trial) for trial in range(TRIALS)])

    assert 0.90 <= share <= 0.98


def test_a_share_that_is_everywhere_0_still_has_an_interval() -> None:
    found = proportion(0.0, np.zeros(20), n=50, seed=0)

    assert found.low == 0
    assert found.high == pytest.approx(stats.binomtest(0, 50).proportion_ci(0.95, "wilson").high)


def test_the_jackknife_of_a_difference_takes_both_samples_into_account() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=200), rng.normal(size=100)
    a, b = groups(200, seed=1), groups(100, seed=2)
    left_out = [one[a != part].mean() - other[b != part].mean() for part in range(20)]

    found = jackknife(one.mean() - other.mean(), left_out, n=100, seed=0)

    expected = 2.093 * np.sqrt(one.var(ddof=1) / 200 + other.var(ddof=1) / 100)
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.35)


@pytest.mark.parametrize("make", [lambda: groups(1, seed=0), lambda: repeats([1.0], n=1, seed=0),
                                  lambda: bootstrap(lambda each: 0.0, np.zeros(1), seed=0)])  # fmt: skip
def test_a_single_value_has_no_interval(make: object) -> None:
    with pytest.raises(MetricError, match=r"needs at least 2 .*got 1"):
        make()  # type: ignore[operator]
