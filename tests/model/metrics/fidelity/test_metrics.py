"""FID, KID, precision, recall, density and coverage: against programs of others, known answers and honest intervals."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
import scipy
import torch

from rosacea_model.metrics.errors import MetricError
from rosacea_model.metrics.fidelity.frechet import frechet, frechet_distance
from rosacea_model.metrics.fidelity.kernel import kernel_distance, kid, subset_size
from rosacea_model.metrics.fidelity.moments import moments
from rosacea_model.metrics.fidelity.neighbours import coverage, point_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from rosacea_model.metrics.intervals import Estimate

TRIALS = 200
# Rows of each side and dimensions: more rows than dimensions, and far fewer.
SHAPES = [(300, 200, 16), (40, 30, 64), (50, 2500, 24)]


def drawn(n: int, dimension: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> NDArray[np.float64]:
    rows = np.random.default_rng([seed, n, dimension]).normal(size=(n, dimension))
    rows[:, 0] = rows[:, 0] * scale + shift
    return rows


def sides(n: int, m: int, dimension: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    mixing = np.random.default_rng(7).normal(size=(dimension, dimension)) / dimension**0.5
    one, other = drawn(n, dimension, 1) @ mixing, drawn(m, dimension, 2, 0.8, 1.5) @ mixing + 0.1
    return one.astype(np.float32), other.astype(np.float32)


@pytest.mark.parametrize(("n", "m", "dimension"), SHAPES)
def test_the_frechet_distance_is_that_of_numpy_and_torchmetrics(n: int, m: int, dimension: int) -> None:
    from torchmetrics.image.fid import _compute_fid

    one, other = (rows.astype(np.float64) for rows in sides(n, m, dimension))
    found = frechet(one, other).value

    covariances = [np.cov(rows, rowvar=False) for rows in (one, other)]
    # The root by eigenvalues of a product of symmetric matrices, which are real and not negative.
    root = np.sqrt(np.maximum(scipy.linalg.eigvals(covariances[0] @ covariances[1]).real, 0)).sum()
    apart = np.square(one.mean(axis=0) - other.mean(axis=0)).sum()
    expected = apart + sum(np.trace(each) for each in covariances) - 2 * root
    means = [torch.from_numpy(rows.mean(axis=0)) for rows in (one, other)]
    theirs = _compute_fid(means[0], torch.from_numpy(covariances[0]), means[1], torch.from_numpy(covariances[1]))

    assert found == pytest.approx(expected, rel=1e-6)
    assert found == pytest.approx(float(theirs), rel=1e-6)
    assert frechet_distance(moments(one), moments(other)) == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize(("n", "m", "dimension"), SHAPES)
def test_moments_are_those_of_numpy_by_either_convention(n: int, m: int, dimension: int) -> None:
    _, rows = sides(n, m, dimension)

    for population in (False, True):
        found = moments(rows, population=population)
        expected = np.cov(rows.astype(np.float64), rowvar=False, bias=population)
        assert found.covariance == pytest.approx(expected, rel=1e-6, abs=1e-12)
        assert found.trace == pytest.approx(np.trace(expected))


@pytest.mark.parametrize(("n", "m", "dimension"), SHAPES)
def test_the_kernel_distance_is_that_of_its_definition_and_of_torchmetrics(n: int, m: int, dimension: int) -> None:
    from torchmetrics.image.kid import poly_mmd

    one, other = (rows.astype(np.float64)[:60] for rows in sides(n, m, dimension))
    size = min(len(one), len(other))

    def k(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
        return float((x @ y / dimension + 1) ** 3)

    within = [np.mean([k(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j])
              for rows in (one, other)]  # fmt: skip
    expected = sum(within) - 2 * np.mean([k(a, b) for a in one for b in other])
    theirs = poly_mmd(torch.from_numpy(one[:size]), torch.from_numpy(other[:size]))

    assert kernel_distance(one, other) == pytest.approx(expected, rel=1e-6)
    assert kernel_distance(one[:size], other[:size]) == pytest.approx(float(theirs), rel=1e-6)


@pytest.mark.parametrize(("n", "m", "dimension"), [(300, 200, 16), (40, 30, 64), (60, 700, 24)])
@pytest.mark.parametrize("k", [3, 5])
def test_neighbours_are_those_of_prdc(n: int, m: int, dimension: int, k: int) -> None:
    import prdc

    one, other = (rows.astype(np.float64) for rows in sides(n, m, dimension))
    with contextlib.redirect_stdout(io.StringIO()):
        expected = prdc.compute_prdc(one, other, nearest_k=k)

    found = point_values(one, other, k=k, density_k=k)

    names = ("precision", "recall", "density", "coverage")
    assert found == pytest.approx([expected[name] for name in names], rel=1e-6)
    ours = coverage(one, other, seed=0, k=k, density_k=k)
    assert [getattr(ours, name).value for name in names] == pytest.approx(found, rel=1e-12)


def everything(one: NDArray[np.float32], other: NDArray[np.float32]) -> list[float]:
    near = coverage(one, other, seed=0)
    distance = kernel_distance(one.astype(np.float64), other.astype(np.float64))
    return [frechet(one, other).value, distance, near.precision.value, near.recall.value, near.density.value,
            near.coverage.value]  # fmt: skip


def test_no_metric_depends_on_the_order_of_images() -> None:
    one, other = sides(300, 200, 16)
    rng = np.random.default_rng(0)

    assert everything(rng.permutation(one), rng.permutation(other)) == pytest.approx(everything(one, other), rel=1e-6)


@pytest.mark.parametrize("rows", [7, 64, 5000])
def test_no_metric_depends_on_the_size_of_blocks(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = sides(300, 200, 16)
    expected = everything(one, other)
    for name in ("moments.LEAST_BLOCK", "kernel.BLOCK", "neighbours.BLOCK"):
        monkeypatch.setattr(f"rosacea_model.metrics.fidelity.{name}", rows)

    assert everything(one, other) == pytest.approx(expected, rel=1e-6)
    assert kid(one, other, seed=0).high == pytest.approx(kid(one, other, seed=0).high, rel=1e-6)


@pytest.mark.parametrize(("n", "m", "dimension"), SHAPES)
def test_equal_sets_are_at_distance_0_and_cover_one_another(n: int, m: int, dimension: int) -> None:
    one, _ = sides(n, m, dimension)

    assert frechet(one, one).value == pytest.approx(0, abs=1e-9)
    near = coverage(one, one, seed=0)
    assert (near.precision.value, near.recall.value, near.coverage.value) == (1, 1, 1)


@pytest.mark.parametrize("d", [0.5, 3.0])
def test_a_shift_of_d_in_one_dimension_is_a_distance_of_d_squared(d: float) -> None:
    one, _ = sides(300, 200, 16)
    other = one.astype(np.float64)
    other[:, 3] += d

    assert frechet(one, other).value == pytest.approx(d**2, rel=1e-6)


def test_kid_of_two_halves_of_one_set_is_0_on_average() -> None:
    found = [kid(drawn(60, 8, seed), drawn(60, 8, seed + 1000), seed=seed, subsets=10).value for seed in range(TRIALS)]

    assert abs(np.mean(found)) < 3 * np.std(found) / TRIALS**0.5
    assert min(found) < 0, "an estimate that is never below 0 is biased"


def test_subsets_of_kid_hold_at_most_half_of_each_side_and_follow_the_seed() -> None:
    one, other = sides(300, 200, 16)

    assert [subset_size(*each) for each in ((300, 5000), (300, 200), (9000, 9000))] == [150, 100, 1000]
    assert kid(one, other, seed=1) == kid(one, other, seed=1)
    assert kid(one, other, seed=1) != kid(one, other, seed=2)


def estimates(seed: int) -> list[Estimate]:
    one, other = drawn(90, 6, seed), drawn(90, 6, seed + 9999, 1.0, 1.4)
    near = coverage(one, other, seed=seed)
    return [frechet(one, other), kid(one, other, seed=seed, subsets=20), near.precision, near.recall, near.density]


def test_intervals_cover_the_truth_in_90_to_98_percent_of_trials() -> None:
    """The truth is the expectation at this size, as the mean over all trials."""
    made = np.array([[(each.value, each.low, each.high) for each in estimates(seed)] for seed in range(TRIALS)])
    truth = made[..., 0].mean(axis=0)

    share = ((made[..., 1] <= truth) & (truth <= made[..., 2])).mean(axis=0)

    assert (share >= 0.90).all(), share
    assert (share <= 0.98).all(), share


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        (lambda rows: frechet(rows, rows[:1]), "at least 2 images, got 1"),
        (lambda rows: kid(rows, rows[:3], seed=0), "at least 4 images on each side, got 40 and 3"),
        (lambda rows: coverage(rows, rows[:9], seed=0), "need at least 12 images, got 9"),
    ],
)
def test_too_few_images_are_an_error_with_their_number(measure: Callable[..., object], expected: str) -> None:
    with pytest.raises(MetricError, match=expected):
        measure(drawn(40, 8, 0))
