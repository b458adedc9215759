"""`rosacea curate`: the list of seeds, the log of decisions, the rule."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from rosacea_client.seeds import read_seeds
from rosacea_model import GeneratorConfig
from rosacea_model.commands.measuring.curate import curate
from rosacea_model.files.modelfile import name_classes
from rosacea_model.fresh import fresh_model
from rosacea_model.phantom.series import LabelKind, Series, write_series

from ...metrics.audit.runs import written

if TYPE_CHECKING:
    from pathlib import Path

TINY: dict[str, Any] = {
    "z_dim": 8,
    "w_dim": 8,
    "c_dim": 4,
    "img_resolution": 16,
    "channel_base": 64,
    "channel_max": 8,
    "mapping_layers": 2,
}
app = typer.Typer()
app.command()(curate)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny model with named classes, and its data."""
    folder = tmp_path_factory.mktemp("curate")
    fresh_model(folder / "model", GeneratorConfig(**TINY), seed=0, name="tiny")
    name_classes(folder / "model", ("none", "mild", "moderate", "severe"))
    list(write_series(folder / "data.zip", Series(1, 40, 16, False), LabelKind.severity, workers=1))
    return folder / "model", folder / "data.zip"


def run(places: tuple[Path, Path], *arguments: object) -> str:
    words = [str(places[0]), "--data", str(places[1]), *map(str, arguments)]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_list_holds_the_seeds_that_were_kept_and_the_log_a_reason_for_every_other(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "seeds.txt"

    said = run(places, "--label", "mild", "--candidates", 30, "--redness", 0, "--alike", 0.4, "--out", out)

    rows = list(csv.DictReader((tmp_path / "seeds.csv").read_text().splitlines()))
    kept = [int(row["seed"]) for row in rows if row["kept"] == "1"]
    assert [int(row["seed"]) for row in rows] == list(range(30))
    assert all(bool(row["dropped_for"]) != (row["kept"] == "1") and row["why"] for row in rows)
    assert 0 < len(kept) < 30
    assert read_seeds(out) == kept
    assert "--labels fixed:mild --psi 1" in out.read_text()
    assert f"{len(kept)} of 30 faces kept" in said
    facts = json.loads((tmp_path / "seeds.json").read_text())
    assert facts["format"] == "rosacea-curation/1"
    assert (facts["label"], facts["kept"], facts["rule"]["alike"]) == ("mild", len(kept), 0.4)
    assert sum(facts["dropped"].values()) == 30 - len(kept)


def test_it_stops_at_the_count_and_says_so_where_there_are_fewer(places: tuple[Path, Path], tmp_path: Path) -> None:
    off = ("--redness", 0, "--alike", 0, "--copies", 0, "--no-bars")

    run(places, "--label", 2, "--candidates", 30, "--count", 4, *off, "--out", tmp_path / "few.txt")
    said = run(places, "--label", 2, "--candidates", 6, "--count", 9, *off, "--out", tmp_path / "all.txt")

    assert read_seeds(tmp_path / "few.txt") == [0, 1, 2, 3]
    assert "fewer than the 9 that were asked for: raise --candidates, now 6" in said


def test_faces_of_a_run_must_reach_the_discriminator_scores_of_training_images(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    off = ("--redness", 0, "--alike", 0, "--copies", 0, "--no-bars", "--candidates", 20)

    run((written(tmp_path / "run"), places[1]), *off, "--score", 0.4, "--out", tmp_path / "seeds.txt")

    least = json.loads((tmp_path / "seeds.json").read_text())["limits"]["score"]
    for row in csv.DictReader((tmp_path / "seeds.csv").read_text().splitlines()):
        assert (float(row["score"]) < least) == (row["dropped_for"] == "score")


def test_a_conditional_model_without_a_default_class_needs_a_label(places: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the model is conditional: label must be a class from 0 to 3"):
        run(places, "--out", tmp_path / "seeds.txt")
