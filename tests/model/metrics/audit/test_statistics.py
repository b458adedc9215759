"""AuthPct, C_T, repetition and AUC: against scipy, and against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy

from rosacea_model.metrics.audit.authenticity import authentic_share
from rosacea_model.metrics.audit.clusters import nearest_other, repetition
from rosacea_model.metrics.audit.copying import copying_test, k_means, mann_whitney_z
from rosacea_model.metrics.audit.joint import joined, scale
from rosacea_model.metrics.audit.membership import auc
from rosacea_model.metrics.audit.spaces import Neighbours
from rosacea_model.metrics.distances import squared_distances
from rosacea_model.metrics.errors import MetricError

RNG = np.random.default_rng(0)


def neighbours(distance: list[float], index: list[int]) -> Neighbours:
    return Neighbours(distance=np.array(distance), index=np.array(index), mirrored=np.zeros(len(index), np.bool_))


def normal(count: int, seed: int, width: int = 12) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.random.default_rng(seed).normal(size=(count, width))


def test_distances_are_those_of_scipy() -> None:
    one, other = normal(20, 1) + 100, normal(30, 2) + 100
    expected = scipy.spatial.distance.cdist(one, other, "sqeuclidean")

    np.testing.assert_allclose(squared_distances(one, other), expected, rtol=1e-9)


def test_an_image_nearer_than_its_neighbours_own_neighbour_is_not_authentic() -> None:
    share = authentic_share(neighbours([1.0, 3.0, 2.0, 2.0], [0, 0, 1, 2]), np.array([2.0, 1.0, 2.0]))

    assert share.value == 0.5  # ties are not authentic
    assert share.low < 0.5 < share.high


@pytest.mark.parametrize("ties", [False, True])
def test_the_z_of_mann_whitney_is_that_of_scipy(ties: bool) -> None:
    one, other = RNG.normal(size=40), RNG.normal(0.5, size=60)
    if ties:
        one[:3] = other[:3]
    test = scipy.stats.mannwhitneyu(one, other, method="asymptotic", use_continuity=False)
    expected = np.sign(test.statistic - len(one) * len(other) / 2) * scipy.stats.norm.isf(test.pvalue / 2)

    assert mann_whitney_z(one, other) == pytest.approx(expected, rel=1e-3 if ties else 1e-9)


def test_the_copying_test_is_far_below_zero_for_copies_and_far_above_for_a_poor_fit() -> None:
    training, holdout = normal(300, 1), normal(100, 2)
    copies = training[:200] + 0.1 * normal(200, 3)

    assert copying_test(copies, training, holdout).high < -5
    assert copying_test(normal(200, 4) * 3, training, holdout).low > 5
    assert abs(copying_test(normal(200, 5), training, holdout).value) < 3


def test_the_copying_test_sees_copying_in_one_part_of_the_space_only() -> None:
    shift = np.where(np.arange(300) % 3 == 0, 30.0, 0.0)[:, None]
    training, holdout = normal(300, 1) + shift, normal(300, 2) + shift
    fakes = normal(300, 3) + shift
    fakes[::3] = training[::3] + 0.01

    assert copying_test(fakes, training, holdout).high < -2


def test_the_copying_test_does_not_depend_on_the_order_of_images() -> None:
    training, holdout, fakes = normal(100, 1), normal(60, 2), normal(60, 3)

    assert copying_test(fakes[::-1], training, holdout).value == copying_test(fakes, training, holdout[::-1]).value


def test_the_copying_test_says_what_it_needs() -> None:
    with pytest.raises(MetricError, match="no cell has 10 generated images and 10 of the hold-out"):
        copying_test(normal(5, 1), normal(100, 2), normal(5, 3))


def test_k_means_finds_clusters_that_lie_apart() -> None:
    rows = normal(90, 1) * 0.1 + np.repeat([[0.0], [10.0], [20.0]], 30, axis=0)

    assert sorted(k_means(rows, 3, seed=0).mean(axis=1).round(0).tolist()) == [0, 10, 20]


def test_a_group_of_near_alike_images_is_found_and_different_ones_are_not() -> None:
    reals, fakes = normal(200, 1), normal(200, 2)
    alike = fakes.copy()
    alike[50:90] = fakes[50] + 0.05 * normal(40, 3)

    assert repetition(alike, reals).groups[0] == tuple(range(50, 90))
    assert repetition(alike, reals).share.value == pytest.approx(0.2, abs=0.03)
    assert repetition(fakes, reals).largest <= 3
    assert repetition(fakes, reals).share.low < 0.02


def test_images_and_reals_are_cut_to_one_number_before_they_are_grouped() -> None:
    """Of many images the nearest lies nearer than of few."""
    assert repetition(normal(500, 1), normal(60, 2)).share.n == 60


def test_the_nearest_other_leaves_out_the_row_itself() -> None:
    np.testing.assert_allclose(nearest_other(np.array([[0.0], [1.0], [3.0]])), [1, 1, 2])


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order() -> None:
    one, other = RNG.normal(0.7, size=80).round(1), RNG.normal(size=50).round(1)
    pairs = [(a > b) + 0.5 * (a == b) for a in one for b in other]

    assert auc(one, other).value == pytest.approx(np.mean(pairs), rel=1e-12)
    assert auc(other, one).value == pytest.approx(1 - np.mean(pairs), rel=1e-12)


def test_intervals_of_the_area_cover_the_truth() -> None:
    truth = scipy.stats.norm.cdf(0.5 / np.sqrt(2))
    rng = np.random.default_rng(3)
    found = [auc(rng.normal(0.5, size=100), rng.normal(size=60)) for _ in range(200)]

    assert 0.9 <= np.mean([each.low <= truth <= each.high for each in found]) <= 0.98


def test_an_image_counts_as_near_as_in_the_space_where_it_is_nearest() -> None:
    controls = {"a": RNG.lognormal(0, 0.3, 500), "b": RNG.lognormal(3, 1, 500)}
    scales = {name: scale(values) for name, values in controls.items()}
    found = {"a": neighbours([1.0, 0.01], [4, 5]), "b": neighbours([0.01, 20.0], [6, 7])}

    together = joined(found, scales)

    assert together.index.tolist() == [6, 5]
    assert (together.distance < -2).all()
    near = np.quantile(controls["a"], 0.01)
    assert scales["a"].of(np.array([near]))[0] == pytest.approx(-1, abs=0.01)
