"""`rosacea audit`: what it prints, writes and refuses."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from rosacea_model import GeneratorConfig
from rosacea_model.commands.measuring.audit import audit
from rosacea_model.fresh import fresh_model
from rosacea_model.phantom.series import Series, draw_series

from ...metrics.audit.runs import written

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from typer.testing import Result as Outcome

TINY: dict[str, Any] = {
    "z_dim": 8,
    "w_dim": 8,
    "img_resolution": 16,
    "channel_base": 64,
    "channel_max": 8,
    "mapping_layers": 2,
}
app = typer.Typer()
app.command()(audit)


def run(*arguments: object, code: int = 0) -> Outcome:
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


@cache
def phantoms(seed: int, count: int) -> NDArray[np.uint8]:
    return np.stack([face.image for face in draw_series(Series(seed, count, 16, False), workers=1)])


def folder(path: Path, images: NDArray[np.uint8]) -> Path:
    path.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(path / f"{number:03}.png")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("data") / "train", phantoms(1, 50))


def test_a_model_is_audited_with_its_proof_first_and_a_sheet(data: Path, tmp_path: Path) -> None:
    fresh_model(tmp_path / "model", GeneratorConfig(**TINY), seed=0, name="tiny")
    out = tmp_path / "out"

    lines = run(tmp_path / "model", "--data", data, "--samples", 50, "--planted", 10, "--out", out).stdout.splitlines()

    assert lines[0].startswith("Of 60 planted copies the joint space finds")
    assert lines[1].startswith("0 of 50 generated images are as near to a training image as a copy")
    figures = json.loads((out / "audit.json").read_text())
    assert figures["format"] == "rosacea-audit/1"
    assert figures["sets"]["generated"]["images"] == 50
    assert len(figures["sets"]["training"]["sha256"]) == 64
    with Image.open(out / "nearest.png") as sheet:
        assert "real people" in sheet.info["Description"]


def test_the_discriminator_of_a_run_is_asked_whom_it_knows(data: Path, tmp_path: Path) -> None:
    holdout = folder(tmp_path / "holdout", phantoms(3, 30))
    arguments = (written(tmp_path / "run"), "--data", data, "--holdout", holdout, "--samples", 50, "--planted", 10)

    said = run(*arguments).stdout

    assert "membership: discriminator scores separate training images from the hold-out with AUC 0." in said
    assert "no C_T: too few images in its cells" in said  # an untrained model draws one kind of face


def test_copies_in_a_folder_of_pictures_are_found_and_strict_exits_with_two(data: Path, tmp_path: Path) -> None:
    fakes = phantoms(2, 50).copy()
    fakes[:8] = phantoms(1, 50)[:8]
    arguments = (folder(tmp_path / "fakes", fakes), "--data", data, "--planted", 10, "--json", "--strict")

    figures = json.loads(run(*arguments, code=2).stdout)

    assert figures["verdict"]["conclusion"] == "copies"
    assert figures["verdict"]["alarms"] >= 8
