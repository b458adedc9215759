"""`rosacea evaluate`: every number comes with what it was computed from, and what cannot be measured says why."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from rosacea_model import GeneratorConfig
from rosacea_model.commands.measuring.evaluate import evaluate
from rosacea_model.data.errors import DataRejected
from rosacea_model.fresh import fresh_model
from rosacea_model.metrics.encoders import builtin
from rosacea_model.metrics.errors import MetricError, WeightsMissing
from rosacea_model.phantom.series import LabelKind, Series, write_series

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TINY = GeneratorConfig(z_dim=8, w_dim=8, img_resolution=16, mapping_layers=2, channel_base=64, channel_max=8, c_dim=4)
COUNT = 30
ROWS = ["model against data", "model against half of data", "half of data against other half"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh model, phantoms, and phantoms of another series as if held out."""
    made = tmp_path_factory.mktemp("evaluate")
    fresh_model(made / "model", TINY, seed=0, name="fresh")
    for name, seed in (("data.zip", 0), ("other.zip", 1)):
        series = Series(seed=seed, count=2 * COUNT, resolution=16, confounders=False)
        list(write_series(made / name, series, LabelKind.severity, workers=1))
    return made


def run(folder: Path, *arguments: object, data: str = "data.zip") -> str:
    app = typer.Typer()
    app.command()(evaluate)
    command = [folder / "model", "--data", folder / data, "--cache", folder / "cache", "--path-pairs", 4, *arguments]
    result = CliRunner().invoke(app, [str(each) for each in command], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def estimates(facts: Any) -> list[dict[str, Any]]:
    """Every estimate in there, wherever."""
    if isinstance(facts, list):
        return [found for each in facts for found in estimates(each)]
    if not isinstance(facts, dict):
        return []
    return [facts] if "low" in facts else [found for each in facts.values() for found in estimates(each)]


def test_every_number_has_an_interval_its_size_its_seed_and_its_method(folder: Path) -> None:
    facts = json.loads(run(folder, "--json", "--holdout", folder / "other.zip", "--seed", 3))

    found = estimates(facts)
    assert len(found) == 4 * 6 + 2 + 2 * len(facts["erythema"]["comparisons"])
    assert all(each["low"] <= each["value"] <= each["high"] and each["n"] and each["method"] for each in found)
    assert {each["seed"] for each in found if "subsets" in each["method"]} == {3}
    assert [row["name"] for row in facts["comparisons"]] == [ROWS[0], "model against hold-out", *ROWS[1:]]
    assert facts["model"]["seeds"] == [0, 59]
    for part in ("model", "data", "holdout", "encoder"):
        assert len(facts[part]["digest"]) == 64
    assert facts["encoder"]["resize"]
    assert facts["encoder"]["comparable"] is False
    assert "not for diagnosis" in facts["note"]


def test_the_same_command_gives_the_same_numbers_from_its_cache(folder: Path, tmp_path: Path) -> None:
    first = run(folder, "--json", "--out", tmp_path / "a.json")

    assert run(folder, "--json") == first
    assert (tmp_path / "a.json").read_text() == first
    assert list((folder / "cache").glob("*.npy"))


def test_the_table_says_what_was_measured_and_what_a_perfect_model_would_reach(folder: Path) -> None:
    shown = run(folder)

    for word in ("data.zip", "60 images of 16 px", "no hold-out", "builtin", "FID", "coverage", "perfect model"):
        assert word in shown
    assert "redness, all (60 : 60): shift" in shown


def test_the_reference_convention_divides_by_n_and_has_the_model_alone(folder: Path) -> None:
    facts = json.loads(run(folder, "--json", "--convention", "reference", "--samples", 40))
    ours = json.loads(run(folder, "--json", "--samples", 40))

    assert [row["name"] for row in facts["comparisons"]] == ROWS[:1]
    assert facts["comparisons"][0]["fid"]["value"] < ours["comparisons"][0]["fid"]["value"]
    assert "subsets of 40" in facts["comparisons"][0]["kid"]["method"]
    assert "subsets of 20" in ours["comparisons"][0]["kid"]["method"]


def test_the_hold_out_beside_the_data_is_found(folder: Path) -> None:
    beside = folder / "data-holdout.zip"
    beside.write_bytes((folder / "other.zip").read_bytes())
    try:
        assert json.loads(run(folder, "--json"))["holdout"]["name"] == "data-holdout.zip"
    finally:
        beside.unlink()


def pictures(folder: Path, count: int, shape: tuple[int, ...] = (16, 16, 3)) -> Path:
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 255, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    ("make", "error", "expected"),
    [
        (lambda path: pictures(path, 0), DataRejected, "no images in it"),
        (lambda path: pictures(path, 1), MetricError, "at least 24 images on each side, got 1"),
        (lambda path: pictures(path, 30, (16, 16)), MetricError, r"must be in colour.*`rosacea data prepare"),
        (lambda path: pictures(path, 30, (32, 32, 3)), MetricError, r"32 px and .* 16: .*--resolution 16"),
    ],
)
def test_data_that_cannot_be_measured_say_why(
    make: Callable[[Path], Path], error: type[Exception], expected: str, folder: Path, tmp_path: Path
) -> None:
    fresh_model(tmp_path / "model", replace(TINY, c_dim=0), seed=0, name="fresh")
    make(tmp_path / "data.zip")

    with pytest.raises(error, match=expected):
        run(tmp_path)


def test_labels_that_the_model_does_not_know_are_an_error(folder: Path, tmp_path: Path) -> None:
    pictures(folder / "plain", 30)

    with pytest.raises(MetricError, match="fresh takes labels of width 4, and the data have labels of width 0"):
        run(folder, data="plain")


def test_missing_weights_say_which_file_to_put_where(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"inception\.onnx: .*not downloaded"):
        run(folder, "--encoder", "inception", "--weights", tmp_path)


def test_features_that_are_no_numbers_are_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = np.full((64, 128), np.nan, np.float32)
    monkeypatch.setattr(builtin.BuiltinEncoder, "encode", lambda self, images: nothing[: len(images)])

    with pytest.raises(MetricError, match="fresh, 60 seeds from 0: builtin and redness gave NaN or infinity for seed"):
        run(folder, "--cache", folder / "empty")


def test_the_estimate_of_the_time_left_comes_from_the_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rosacea_model.data.progress.FIRST_LINE_SECONDS", 0.0)
    app = typer.Typer()
    app.command()(evaluate)
    command = [folder / "model", "--data", folder / "data.zip", "--cache", folder / "another", "--path-pairs", 0]

    result = CliRunner().invoke(app, [str(each) for each in command])

    assert "images: 60 of 120, about" in result.stderr


def test_pictures_that_are_there_already_are_measured_as_well(folder: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(evaluate)
    command = [folder / "other.zip", "--data", folder / "data.zip", "--cache", tmp_path, "--json"]

    facts = json.loads(CliRunner().invoke(app, [str(each) for each in command], catch_exceptions=False).stdout)

    assert facts["model"]["name"] == "other.zip"
    assert facts["path_length"] is None
    perfect, found = facts["comparisons"][-1]["fid"], facts["comparisons"][-2]["fid"]
    assert found["low"] < perfect["value"] < found["high"]
