"""Whether a model follows severity and copies its training set: the figures, against cases whose answer is known."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from rosacea_model import GeneratorConfig
from rosacea_model.commands.model import app
from rosacea_model.files.modelfile import verify
from rosacea_model.fresh import fresh_model
from rosacea_model.phantom.check.check import series_of
from rosacea_model.phantom.check.nearest import Nearest, closeness, nearest
from rosacea_model.phantom.check.redness import agreement, ladder, spearman
from rosacea_model.phantom.check.sheets import labelled
from rosacea_model.phantom.redness import Redness, mean_regions, measure
from rosacea_model.phantom.series import LabelKind, Series, draw_series, write_series

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TINY: dict[str, Any] = {
    "z_dim": 8,
    "w_dim": 8,
    "img_resolution": 16,
    "channel_base": 64,
    "channel_max": 8,
    "mapping_layers": 2,
}
SERIES = Series(seed=0, count=48, resolution=16, confounders=False)


def write_data(path: Path, labels: LabelKind = LabelKind.severity) -> Path:
    list(write_series(path, SERIES, labels, workers=1))
    return path


def random_images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["check-phantoms", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


# The expected numbers are those of scipy.stats.spearmanr.
@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1, 2, 3, 4], [1, 3, 2, 4], 0.8),
        ([1, 2, 2, 3], [1, 2, 3, 4], 0.9486832980505138),
        ([1, 2, 3], [9, 4, 1], -1),
        ([1, 2, 3], [5, 5, 5], 0),
    ],
)
def test_spearman_shares_ranks_among_ties(one: list[int], other: list[int], expected: float) -> None:
    assert spearman(one, other) == pytest.approx(expected)


def test_redness_above_calm_skin_follows_severity_on_phantoms_better_than_the_bare_index() -> None:
    series = Series(seed=7, count=120, resolution=64, confounders=False)
    faces = list(draw_series(series, workers=1))
    grades = np.array([int(str(face.attributes["severity"])) for face in faces])

    found = agreement(measure([face.image for face in faces], mean_regions(64, seed=7, faces=40)), grades)

    assert found.contrast > 0.8
    assert found.pooled < found.contrast - 0.1
    assert min(found.tone_thirds) > found.pooled
    assert list(found.mean_contrast) == sorted(found.mean_contrast)
    assert abs(found.tone) < 0.2
    assert found.tone_spread > 20


def test_severities_that_go_with_a_skin_tone_are_told() -> None:
    tone = np.arange(40.0)
    none = np.zeros(40)
    redness = Redness(index=none, contrast=none, tone=tone, a_contrast=none, a_spread=none)

    found = agreement(redness, np.arange(40) // 10)

    assert found.tone > 0.9
    assert found.tone_spread == pytest.approx(tone.std())


def test_severities_that_mean_nothing_agree_with_nothing() -> None:
    series = Series(seed=7, count=120, resolution=16, confounders=False)
    faces = [face.image for face in draw_series(series, workers=1)]

    found = agreement(measure(faces, mean_regions(16, seed=7, faces=20)), np.random.default_rng(0).integers(0, 4, 120))

    assert abs(found.contrast) < 0.25


def test_a_ladder_does_not_care_how_red_a_latent_is_to_begin_with() -> None:
    rungs = np.arange(4.0) + 100 * np.arange(10.0)[:, None]

    assert ladder(rungs).spearman == pytest.approx(1)
    assert (ladder(rungs).rising, ladder(rungs[:, ::-1]).rising) == (1, 0)


def test_the_nearest_are_those_of_a_plain_search_over_images_and_mirror_images() -> None:
    images, training = random_images(7), random_images(300, seed=1)

    found = nearest(images, training)

    both = np.stack([training, training[:, :, ::-1]]).astype(float)
    plain = np.sqrt(((images[:, None, None] - both) ** 2).mean(axis=(3, 4, 5)))  # [7, 2, 300]
    of_each = np.sort(plain.min(axis=1), axis=1)
    np.testing.assert_allclose(found.distance, of_each[:, 0], rtol=1e-4)
    np.testing.assert_allclose(found.second, of_each[:, 1], rtol=1e-4)
    np.testing.assert_array_equal(found.index, plain.min(axis=1).argmin(axis=1))
    np.testing.assert_array_equal(found.mirrored, plain.min(axis=2).argmin(axis=1).astype(bool))


def test_a_copy_is_found_as_it_is_and_mirrored() -> None:
    training = random_images(20)

    found = nearest(np.stack([training[4], training[9][:, ::-1]]), training)

    assert found.index.tolist() == [4, 9]
    assert found.mirrored.tolist() == [False, True]
    assert found.distance.max() < 0.1
    assert found.ratio.max() < 0.01


def test_a_training_image_is_compared_with_neither_itself_nor_its_mirror_image() -> None:
    symmetric = random_images(300)
    symmetric[:, :, 4:] = symmetric[:, :, 3::-1]

    found = nearest(symmetric, symmetric, own=True)

    assert found.distance.min() > 10
    assert (found.index != np.arange(300)).all()


def test_copies_are_below_the_training_1_percent_and_fresh_images_hardly_ever() -> None:
    training = random_images(400)
    among = nearest(training, training, own=True)

    copied = closeness(nearest(training[:50], training), among)
    fresh = closeness(nearest(random_images(400, seed=1), training), among)

    assert (copied.below_training, copied.ratio_below_training) == (1, 1)
    assert fresh.below_training < 0.04
    assert fresh.ratio_below_training < 0.04


def test_a_flat_image_is_near_to_everything_but_no_copy() -> None:
    training = random_images(400)
    among = nearest(training, training, own=True)

    flat = closeness(nearest(np.full((1, 8, 8, 3), 127, np.uint8), training), among)

    assert (flat.below_training, flat.ratio_below_training) == (1, 0)


@pytest.mark.slow
def test_the_check_writes_figures_a_page_and_sheets(tmp_path: Path) -> None:
    data = write_data(tmp_path / "train.zip")
    model = fresh_model(tmp_path / "model", GeneratorConfig(c_dim=4, **TINY), seed=0, name="tiny").path.parent
    out = tmp_path / "docs"

    told = run(model, "--data", data, "--out", out, "--samples", 16)

    figures = json.loads((out / "figures.json").read_text())
    page = (out / "README.md").read_text()
    assert str(out / "README.md") in told
    assert figures["model"]["digest"] == verify(model).digest
    assert figures["data"] in page
    assert f"{figures['generated']['severity']['contrast']:.2f}" in page
    assert figures["generated"]["variety"] > 0
    for name in ("seeds.png", "severities.png", "nearest.png"):
        assert (out / name).stat().st_size < 2**20
        assert f"({name})" in page
        with Image.open(out / name) as sheet:
            assert sheet.info["Description"].startswith("Synthetic")
    before = (out / "figures.json").read_bytes()
    run(model, "--data", data, "--out", out, "--samples", 16)
    assert (out / "figures.json").read_bytes() == before


def test_it_says_which_phantoms_a_set_holds(tmp_path: Path) -> None:
    assert series_of(write_data(tmp_path / "train.zip")) == SERIES


def test_it_refuses_other_data_and_other_models(tmp_path: Path) -> None:
    data, other = write_data(tmp_path / "train.zip"), write_data(tmp_path / "other.zip", LabelKind.both)
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as plain:
        plain.writestr("a.png", b"")
    model = fresh_model(tmp_path / "model", GeneratorConfig(c_dim=4, **TINY), seed=0, name="tiny").path.parent
    blind = fresh_model(tmp_path / "blind", GeneratorConfig(**TINY), seed=0, name="blind").path.parent

    with pytest.raises(ValueError, match="must hold phantoms labelled by severity"):
        run(model, "--data", other, "--out", tmp_path / "docs")
    with pytest.raises(ValueError, match="must hold phantoms labelled by severity"):
        run(model, "--data", tmp_path / "plain.zip", "--out", tmp_path / "docs")
    with pytest.raises(ValueError, match="must have 4 classes, 3 channels and 16 px like the data, got 0"):
        run(blind, "--data", data, "--out", tmp_path / "docs")
    with pytest.raises(ValueError, match="must be a multiple of 4"):
        run(model, "--data", data, "--out", tmp_path / "docs", "--samples", 18)


def test_a_sheet_has_every_face_in_its_place() -> None:
    faces = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1, 1) * np.full((8, 8, 3), 40, np.uint8)

    sheet = np.asarray(labelled(faces, [], ["", "", ""]))

    middles = sheet[2 + 8 :: 18, 2 + 8 :: 18, 0]
    assert middles[:2, :3].tolist() == [[0, 40, 80], [120, 160, 200]]


def test_ratio_is_1_where_two_are_equally_near() -> None:
    same = Nearest(np.ones(1), np.ones(1), np.zeros(1, np.int64), np.zeros(1, np.bool_))

    assert same.ratio.tolist() == [1]
