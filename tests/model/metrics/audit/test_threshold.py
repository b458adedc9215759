"""Thresholds by order statistics: false alarms at the stated rate, and exact p-values."""

from __future__ import annotations

import numpy as np
import pytest
import scipy

from rosacea_model.metrics.audit.threshold import (
    beta_binomial_tail,
    beta_quantile,
    binomial_tail,
    threshold,
)
from rosacea_model.metrics.errors import MetricError


@pytest.mark.parametrize(("controls", "rate"), [(99, 0.01), (300, 0.01), (500, 0.05), (60, 0.01)])
def test_false_alarms_come_at_the_stated_rate(controls: int, rate: float) -> None:
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(400):
        limit = threshold(rng.lognormal(size=controls), rate)
        rates.append(limit.alarms(rng.lognormal(size=1000)).mean())

    assert np.mean(rates) == pytest.approx(limit.rate, rel=0.15)
    assert limit.rate <= max(rate, 1 / (controls + 1))


def test_the_interval_of_the_rate_of_false_alarms_covers_it() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        limit = threshold(rng.uniform(size=200), 0.02)  # of uniform distances the true rate is the threshold itself
        covered += limit.false_alarms.low <= limit.distance <= limit.false_alarms.high

    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize(("rank", "controls"), [(1, 100), (3, 340), (5, 500)])
def test_quantiles_and_tails_are_those_of_scipy(rank: int, controls: int) -> None:
    for q in (0.025, 0.5, 0.975):
        expected = scipy.stats.beta.ppf(q, rank, controls + 1 - rank)
        assert beta_quantile(q, rank, controls) == pytest.approx(expected, rel=1e-9)
    for least in (0, 1, 7, 60):
        expected = scipy.stats.betabinom.sf(least - 1, 250, rank, controls + 1 - rank)
        assert beta_binomial_tail(least, 250, rank, controls) == pytest.approx(expected, rel=1e-6, abs=1e-12)
        assert binomial_tail(least, 250, 0.02) == pytest.approx(scipy.stats.binom.sf(least - 1, 250, 0.02), abs=1e-12)


def test_p_values_below_a_hundredth_come_no_oftener_than_that() -> None:
    rng = np.random.default_rng(2)
    low = 0
    for _ in range(1000):
        limit = threshold(rng.normal(size=150), 0.01)
        low += limit.p_value(int(limit.alarms(rng.normal(size=100)).sum()), 100) < 0.01

    assert low / 1000 <= 0.02


def test_p_values_hold_for_controls_that_come_in_pairs() -> None:
    """As training images do that are one another's nearest."""
    rng = np.random.default_rng(3)
    low = naive = 0
    for _ in range(1500):
        controls = np.repeat(rng.normal(size=200), 2)
        limits = threshold(controls, 0.01, independent=200), threshold(controls, 0.01)
        alarms = int(limits[0].alarms(rng.normal(size=300)).sum())
        low += limits[0].p_value(alarms, 300) < 0.01
        naive += limits[1].p_value(alarms, 300) < 0.01

    assert low / 1500 <= 0.01 < 0.015 < naive / 1500


@pytest.mark.parametrize("rate", [0.0, 0.5, -1.0, float("nan")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(MetricError, match=r"rate of false alarms must be above 0 and below 0\.5, got"):
        threshold(np.arange(100.0), rate)


def test_too_few_controls_are_refused() -> None:
    with pytest.raises(MetricError, match="needs at least 20 images that are no copies, got 19"):
        threshold(np.arange(19.0), 0.01)
