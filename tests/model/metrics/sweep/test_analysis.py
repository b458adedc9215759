"""What a sweep may say: as in a textbook's example, seldom a winner where there is none, surely one where there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from rosacea_model.metrics.sweep.analysis import SweepVerdict, analyse

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Montgomery, "Design and Analysis of Experiments": hardness by four tips on four coupons, SS 0.385, 0.825 and 0.080.
HARDNESS = np.array(
    [[9.3, 9.4, 9.6, 10.0], [9.4, 9.3, 9.8, 9.9], [9.2, 9.4, 9.5, 9.7], [9.7, 9.6, 10.0, 10.2]]
)  # [tips, coupons]


def analysed(table: NDArray[np.float64]) -> SweepVerdict:
    """The verdict on runs of one factor, a row for each level and a column for each seed."""
    values = {(f"gamma {row}", seed): float(value) for (row, seed), value in np.ndenumerate(table)}
    found = analyse("distance", values, {f"gamma {row}": {"gamma": row} for row in range(len(table))})
    assert found is not None
    return found


def test_shares_and_intervals_are_those_of_a_textbook_example() -> None:
    found = analysed(HARDNESS)

    assert found.seed_share == pytest.approx(0.825 / 1.290, abs=1e-6)
    assert found.effects[0].share == pytest.approx(0.385 / 1.290, abs=1e-6)
    one = found.differences[0].estimate
    # t of 1 - 0.05 / 6 with 9 degrees of freedom is 3.364, the mean square of the rest 0.080 / 9.
    assert one.high - one.value == pytest.approx(3.364 * (2 * 0.080 / 9 / 4) ** 0.5, rel=1e-3)
    assert found.best == "gamma 2"
    assert found.winner is None  # tip 3 and tips 1 and 2 cannot be told apart
    assert set(found.candidates) == {"gamma 2", "gamma 0", "gamma 1"}


def test_a_winner_is_seldom_named_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    named = [analysed(rng.normal(size=(3, 3)) + 3 * rng.normal(size=3)).winner is not None for _ in range(400)]

    assert np.mean(named) < 0.05


def test_a_clear_winner_is_named_however_much_seeds_differ() -> None:
    rng = np.random.default_rng(1)
    table = np.array([[1.0], [2.0], [3.0]]) + 10 * rng.normal(size=3) + 0.02 * rng.normal(size=(3, 3))

    found = analysed(table)

    assert found.winner == "gamma 0"
    assert found.sentence().startswith("Recommended: gamma 0.")
    assert all(each.told_apart and each.estimate.high < 0 for each in found.differences)


def test_intervals_of_a_difference_cover_the_truth() -> None:
    rng = np.random.default_rng(2)
    means = np.array([[0.0], [0.5]])

    found = [analysed(means + rng.normal(size=4) + rng.normal(size=(2, 4))) for _ in range(400)]

    intervals = [each.effects[0].differences[0].estimate for each in found]
    assert np.mean([each.low <= -0.5 <= each.high for each in intervals]) == pytest.approx(0.95, abs=0.03)


def test_main_effects_are_taken_over_the_levels_of_the_other_factor() -> None:
    levels = {f"gamma {g}, freeze_d {f}": {"gamma": g, "freeze_d": f} for g in (2, 10) for f in (0, 13)}
    values = {
        (cell, seed): each["gamma"] + 0.1 * each["freeze_d"] + seed + 0.01 * ((seed * 7 + number) % 3)
        for number, (cell, each) in enumerate(levels.items())
        for seed in range(3)
    }

    found = analyse("distance", values, levels)

    assert found is not None
    gamma, freeze = found.effects
    assert gamma.differences[0].estimate.value == pytest.approx(-8, abs=0.02)
    assert freeze.differences[0].estimate.value == pytest.approx(-1.3, abs=0.02)
    assert gamma.share > freeze.share
    assert found.winner == "gamma 2, freeze_d 0"


def test_one_seed_gives_no_recommendation() -> None:
    found = analysed(np.array([[1.0], [2.0]]))

    assert (found.winner, found.differences, found.intervals, found.effects) == (None, (), {}, ())
    assert "1 seed tells nothing" in found.sentence()


def test_only_seeds_that_every_combination_has_count() -> None:
    levels = {"gamma 1": {"gamma": 1}, "gamma 2": {"gamma": 2}}
    values = {("gamma 1", 0): 1.0, ("gamma 2", 0): 2.0, ("gamma 1", 1): 1.1}

    found = analyse("distance", values, levels)

    assert found is not None and found.seeds == (0,)
    assert analyse("distance", {("gamma 1", 0): 1.0}, levels) is None
