"""The ground truth of phantoms holds: blood reddens, melanin darkens, and each where it should."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rosacea_model.phantom import PhantomSpec, Subtype, render, sample_phantom
from rosacea_model.phantom.drawing.canvas import Canvas
from rosacea_model.phantom.drawing.grid import Grid
from rosacea_model.phantom.drawing.head import build_head
from rosacea_model.phantom.drawing.rosacea import redden
from rosacea_model.phantom.drawing.skin import MELANIN_RANGE, skin_rgb
from rosacea_model.phantom.measure import calm_skin, central_face, erythema_index, ita
from rosacea_model.phantom.sheet import in_studio, plain, with_melanin, with_severity

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = 64
THIRDS = (0, 1, 2)
DISEASES = tuple(Subtype)[1:]
STEPS = np.arange(0, 3.01, 0.375)


def ranks(values: list[float]) -> NDArray[np.float64]:
    """Ranks from 0, ties averaged."""
    array = np.array(values)
    return np.array([(array < value).sum() + ((array == value).sum() - 1) / 2 for value in array])


def spearman(first: list[float], second: list[float]) -> float:
    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def test_the_rank_correlation_of_this_file_is_spearmans() -> None:
    assert spearman([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]) == pytest.approx(0.8)
    assert spearman([1, 1, 2, 2], [1, 2, 3, 4]) == pytest.approx(0.8944, abs=1e-4)


def studio_face(index: int, third: int) -> PhantomSpec:
    """A face in fixed light, without confounders, its melanin somewhere in this third of the range."""
    spec = in_studio(plain(sample_phantom(1, index)))
    spec = replace(spec, condition=replace(spec.condition, beard=0.0))
    return with_melanin(spec, (third + (0.15 + 0.7 * index / 8)) / 3)


@cache
def erythema(index: int, third: int, severity: float) -> float:
    face = studio_face(index, third)
    spec = with_severity(face, DISEASES[index % 3], severity)
    return erythema_index(render(spec, SIZE).image, central_face(face, SIZE))


@pytest.mark.parametrize("third", THIRDS)
def test_erythema_rises_with_severity_in_every_face_of_a_melanin_third(third: int) -> None:
    severities = [float(step) for step in STEPS]
    correlations = [spearman(severities, [erythema(i, third, s) for s in severities]) for i in range(8)]

    assert min(correlations) >= 0.95


@pytest.mark.parametrize("third", THIRDS)
def test_mean_erythema_of_a_melanin_third_rises_with_severity(third: int) -> None:
    severities = [float(step) for step in STEPS]
    means = [float(np.mean([erythema(i, third, s) for i in range(8)])) for s in severities]

    assert spearman(severities, means) >= 0.95
    assert means[-1] - means[0] > 0.05


@pytest.mark.parametrize(("third", "least"), [(0, 0.95), (1, 0.95), (2, 0.85)])
def test_different_faces_of_a_third_rank_by_how_much_they_redden(third: int, least: float) -> None:
    """Against each face's own healthy skin; the dark third is looser: melanin veils part of the redness."""
    rng = np.random.default_rng(third)
    severities = [float(s) for s in rng.uniform(0.2, 3, 40)]
    reddening = [erythema(i % 8, third, s) - erythema(i % 8, third, 0.0) for i, s in enumerate(severities)]

    assert spearman(severities, reddening) >= least


@pytest.mark.parametrize("index", range(6))
def test_melanin_lowers_the_typology_angle_at_every_step(index: int) -> None:
    face = with_severity(studio_face(index, 0), Subtype.healthy, 0.0)
    tones = [with_melanin(face, float(tone)) for tone in np.linspace(0, 1, 9)]

    mask = render(face, SIZE).face_mask
    angles = [ita(render(tone, SIZE).image, calm_skin(tone, mask)) for tone in tones]

    assert all(lighter > darker for lighter, darker in itertools.pairwise(angles))
    assert angles[0] > 28  # light or intermediate, in Chardon's classes
    assert angles[-1] < -20 and angles[0] - angles[-1] > 60  # brown or dark


def test_skin_darkens_with_melanin_and_reddens_with_blood() -> None:
    melanin = np.geomspace(*MELANIN_RANGE, 20)
    by_melanin = skin_rgb(melanin, np.full(20, 0.01))
    by_blood = skin_rgb(np.full(20, 0.03), np.linspace(0.002, 0.1, 20))

    assert (np.diff(by_melanin, axis=0) < 0).all()
    assert (np.diff(np.log(by_blood[:, 0] / by_blood[:, 1])) > 0).all()
    assert (by_melanin[:, 0] > by_melanin[:, 1]).all() and (by_melanin[:, 1] > by_melanin[:, 2]).all()


@pytest.mark.parametrize("subtype", DISEASES)
@pytest.mark.parametrize("index", (0, 5, 9))
def test_disease_puts_blood_on_cheeks_and_nose_and_spares_the_eyes(subtype: Subtype, index: int) -> None:
    face = studio_face(index, 0)
    ill, well = (render(with_severity(face, subtype, s), 128).haemoglobin for s in (2.5, 0.0))
    grid = Grid.of(face.scene, 128)
    head = build_head(grid, face.identity, face.condition, face.scene)
    added = ill - well

    def mean(u: float, v: float) -> float:
        near = (np.abs(np.abs(head.u) - u) < 0.04) & (np.abs(head.v - v) < 0.035)
        return float(added[near].mean())

    cheek, nose = mean(0.32, 0.28), mean(0.0, face.identity.nose_length - 0.09)
    lid, below_brow = mean(face.identity.eye_spacing, 0.085), mean(face.identity.eye_spacing, -0.09)
    assert min(cheek, nose) > 3 * max(lid, below_brow)
    assert min(cheek, nose) > 0.008


def test_phymatous_noses_grow() -> None:
    face = studio_face(2, 0)
    grid = Grid.of(face.scene, SIZE)
    conditions = [with_severity(face, Subtype.phymatous, severity).condition for severity in (0.0, 1.5, 3.0)]
    heights = [build_head(grid, face.identity, condition, face.scene).height.max() for condition in conditions]

    assert heights[0] < heights[1] < heights[2]


def test_papules_rise_from_the_skin_in_ppr_only() -> None:
    face = studio_face(5, 0)

    def relief(subtype: Subtype) -> float:
        spec = with_severity(face, subtype, 3.0)
        grid = Grid.of(spec.scene, 256)
        canvas = Canvas.of(grid, build_head(grid, spec.identity, spec.condition, spec.scene), spec)
        before = canvas.height.copy()
        redden(canvas)
        return float((canvas.height - before).max())

    assert relief(Subtype.ppr) > 0.003
    assert relief(Subtype.etr) == 0


def test_flush_reaches_neck_and_ears_where_rosacea_does_not() -> None:
    face = replace(studio_face(4, 0), condition=sample_phantom(0, 0, confounders=False).condition)
    calm = with_severity(face, Subtype.healthy, 0.0)
    flushed = replace(calm, condition=replace(calm.condition, flush=1.0))
    ill = with_severity(calm, Subtype.etr, 3.0)
    maps = [render(spec, 128) for spec in (calm, flushed, ill)]
    v = Grid.of(face.scene, 128).v
    neck = (maps[0].haemoglobin > 0) & (v > 1.05) & (v < 1.2) & (maps[0].face_mask < 0.01)

    calm_blood, flushed_blood, ill_blood = (float(phantom.haemoglobin[neck].mean()) for phantom in maps)
    assert flushed_blood > calm_blood + 0.004
    assert ill_blood == pytest.approx(calm_blood, abs=0.001)


def test_make_up_hides_part_of_the_redness() -> None:
    face = with_severity(studio_face(3, 0), Subtype.etr, 2.5)
    covered = replace(face, condition=replace(face.condition, makeup=0.9))
    region = central_face(face, SIZE)
    bare, hidden = (erythema_index(render(spec, SIZE).image, region) for spec in (face, covered))
    healthy = erythema_index(render(with_severity(face, Subtype.healthy, 0), SIZE).image, region)

    assert healthy < hidden < bare - 0.01


def test_a_region_of_another_size_is_refused() -> None:
    image = render(sample_phantom(0, 0), 64).image

    with pytest.raises(ValueError, match=r"region must have the image's shape \(64, 64\), got \(32, 32\)"):
        erythema_index(image, np.ones((32, 32), np.float32))
    with pytest.raises(ValueError, match="region must cover a part of the image"):
        ita(image, np.zeros((64, 64), np.float32))
