"""Worse images rank worse: what `make bench-degradations` writes."""

from __future__ import annotations

import pytest

from rosacea_model.metrics.encoders.choose import EncoderName, open_encoder
from rosacea_model.metrics.intervals import Estimate
from tests.bench.bench_degradations import DOWN, SAME, UP, measured, moved, violations


@pytest.mark.long
def test_every_metric_moves_as_its_theory_says_under_five_degradations() -> None:
    assert violations(*measured(open_encoder(EncoderName.builtin), 500)) == []


def test_a_move_within_the_intervals_is_none() -> None:
    def around(value: float) -> Estimate:
        return Estimate(value=value, low=value - 1, high=value + 1, n=2)

    ways = {way: [moved(around(0), around(value), way, strictly=True) for value in (-3, 1, 3)] for way in (UP, DOWN)}
    assert ways == {UP: [False, False, True], DOWN: [True, False, False]}
    assert [moved(around(0), around(value), UP, strictly=False) for value in (-3, 1, 3)] == [False, True, True]
    assert [moved(around(0), around(value), SAME, strictly=True) for value in (-3, 1, 3)] == [False, True, False]
