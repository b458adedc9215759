"""The erythema panel: it tells severities apart, follows haemoglobin, and is calm where there is no difference."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rosacea_model.metrics.errors import MetricError
from rosacea_model.metrics.erythema.divergence import chance, divergence, jensen_shannon
from rosacea_model.metrics.erythema.panel import MEASURES, erythema_panel
from rosacea_model.phantom import Subtype, render, sample_phantom
from rosacea_model.phantom.check.redness import spearman
from rosacea_model.phantom.measure import a_spread, central_face, lab
from rosacea_model.phantom.redness import mean_regions, measure
from rosacea_model.phantom.sheet import with_severity

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = 32
DISEASES = tuple(Subtype)[1:]


@cache
def phantoms(seed: int, severity: float, count: int = 40) -> NDArray[np.uint8]:
    """The people of a series, all at one severity."""
    specs = [sample_phantom(seed, index) for index in range(count)]
    return np.stack(
        [render(with_severity(spec, DISEASES[index % 3], severity), SIZE).image for index, spec in enumerate(specs)]
    )


def plain_divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Half the sum of both Kullback-Leibler divergences from the mean, term by term."""
    mean = (p + q) / 2
    terms: list[float] = [one * math.log2(one / m) for each in (p, q) for one, m in zip(each, mean, strict=True) if one]
    return sum(terms) / 2


def test_severity_0_is_told_from_severity_3() -> None:
    panel = erythema_panel(phantoms(1, 0.0), phantoms(2, 3.0))

    found = panel.of("contrast")
    assert found.divergence.low > 0.3 > found.chance
    assert found.shift.low > 0.02
    assert found.real_quantiles[4] < found.fake_quantiles[2]
    assert panel.of("a_contrast").divergence.low > panel.of("a_contrast").chance


def test_faces_of_one_severity_are_not_told_from_others_of_it() -> None:
    panel = erythema_panel(phantoms(1, 2.0), phantoms(2, 2.0))

    assert [each.measure for each in panel.comparisons if each.divergence.low > 0] == []


@pytest.mark.parametrize("index", range(8))
def test_the_rise_above_calm_skin_follows_haemoglobin_in_every_face(index: int) -> None:
    spec = sample_phantom(11, index)
    faces = [render(with_severity(spec, DISEASES[index % 3], s), SIZE) for s in np.linspace(0, 3, 9).tolist()]
    region = central_face(spec, SIZE)
    haemoglobin = [float((face.haemoglobin * region).sum()) for face in faces]

    found = measure([face.image for face in faces], mean_regions(SIZE, faces=40))

    assert spearman(found.contrast, haemoglobin) >= 0.9
    assert spearman(found.a_contrast, haemoglobin) > 0


def test_each_label_is_compared_with_its_own_and_small_ones_are_named() -> None:
    reals = np.concatenate([phantoms(1, 0.0), phantoms(1, 3.0), phantoms(1, 2.0)[:5]])
    fakes = np.concatenate([phantoms(2, 0.0), phantoms(2, 0.0)])  # the second class is not red at all

    panel = erythema_panel(
        reals,
        fakes,
        real_labels=[0] * 40 + [1] * 40 + [2] * 5,
        fake_labels=[0] * 40 + [1] * 40,
        classes=["none", "severe", "moderate"],
    )

    assert {each.label for each in panel.comparisons} == {"all", "none", "severe"}
    assert panel.of("contrast", "none").divergence.low == 0
    assert panel.of("contrast", "severe").divergence.low > 0.3
    assert panel.left_out == ("moderate, 5 reals and 0 fakes (at least 20 each)",)
    assert all(name in panel.table() for name in (*MEASURES.values(), "severe", "moderate, 5 reals"))


def test_shares_and_edges_are_those_of_a_histogram_by_hand() -> None:
    reals, fakes = phantoms(1, 1.0), phantoms(2, 3.0)

    found = erythema_panel(reals, fakes).of("index")

    values = measure(fakes, mean_regions(SIZE)).index
    edges = [-np.inf, *found.edges, np.inf]
    np.testing.assert_allclose(found.fake_shares, np.histogram(values, edges)[0] / len(values))
    assert max(found.real_shares) - min(found.real_shares) < 2 / len(reals)


def test_the_divergence_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    for size in (2, 5, 30):
        p, q = rng.dirichlet(np.full(size, 0.3), 2)
        assert jensen_shannon(p, q) == pytest.approx(plain_divergence(p, q))
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(1)


@pytest.mark.parametrize(("n", "skew"), [(75, 1.4), (300, 1.4), (300, 2.0)])
def test_intervals_cover_the_true_divergence_in_9_of_10_trials(n: int, skew: float) -> None:
    rng = np.random.default_rng(1)
    p, q = np.full(8, 1 / 8), skew ** np.arange(8) / (skew ** np.arange(8)).sum()
    truth = plain_divergence(p, q)

    found = [divergence(rng.multinomial(n, p), rng.multinomial(n, q), seed=trial) for trial in range(100)]

    assert np.mean([each.low <= truth <= each.high for each in found]) >= 0.88
    assert np.mean([each.value for each in found]) == pytest.approx(truth, rel=0.1)


def test_equal_distributions_stay_below_chance() -> None:
    rng = np.random.default_rng(2)
    p = np.full(8, 1 / 8)
    pairs = [(rng.multinomial(100, p), rng.multinomial(100, p)) for _ in range(100)]

    above = [divergence(*pair, seed=0).value > chance(*pair, seed=0) for pair in pairs]
    assert np.mean(above) < 0.12
    assert np.mean([divergence(*pair, seed=0).low == 0 for pair in pairs]) > 0.9


def test_lab_values_are_those_of_published_tables() -> None:
    """L*, a*, b* of sRGB's red, green and blue under D65."""
    published = [[53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86]]

    np.testing.assert_allclose(lab(np.eye(3)), published, atol=0.05)


def test_the_spread_of_a_is_a_weighted_standard_deviation() -> None:
    image = np.array([[[200, 100, 90], [180, 120, 110]], [[100, 100, 100], [255, 0, 0]]], np.uint8)
    weights = np.array([[2.0, 1.0], [1.0, 0.0]], np.float32)
    linear = np.where(image / 255 <= 0.04045, image / 255 / 12.92, ((image / 255 + 0.055) / 1.055) ** 2.4)
    a = [lab(linear[row, column])[1] for row, column in ((0, 0), (0, 0), (0, 1), (1, 0))]

    assert a_spread(image, weights) == pytest.approx(np.std(a), rel=1e-4)


@pytest.mark.parametrize(
    ("fakes", "labels", "message"),
    [
        (np.zeros((30, 32, 32, 3), np.uint8), None, "fakes are grey: redness needs images in colour"),
        (phantoms(1, 0.0)[:1], None, "needs at least 20 fakes, got 1"),
        (phantoms(1, 0.0)[:, ::2, ::2], None, r"must have one size, got \(32, 32\) and \(16, 16\)"),
        (phantoms(1, 0.0)[:, :30, :30], None, "square with a power of two from 8 px on, got 30x30"),
        (phantoms(1, 0.0)[..., :1], None, r"must be uint8 \[N, size, size, 3\], got uint8 \[40, 32, 32, 1\]"),
        (phantoms(1, 0.0) / 255, None, r"must be uint8 \[N, size, size, 3\], got float64"),
        (phantoms(1, 0.0), [0, 1], "one class number for each of 40 images, got"),
    ],
)
def test_what_cannot_be_compared_is_refused(fakes: NDArray[np.uint8], labels: list[int] | None, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        erythema_panel(phantoms(1, 0.0), fakes, real_labels=[0] * 40, fake_labels=labels)
