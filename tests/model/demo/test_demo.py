"""The model that ships: found, whole, small, described, made by the commands it names, and worth showing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from rosacea_model import Engine, demo
from rosacea_model.demo.ship import ship
from rosacea_model.files.modelfile import read_manifest, verify
from rosacea_model.phantom.check.check import draw
from rosacea_model.phantom.check.redness import agreement
from rosacea_model.phantom.redness import mean_regions, measure
from rosacea_model.phantom.series import LabelKind, Series, write_series
from rosacea_model.training.config import MAY_CHANGE_ON_RESUME

from ...conftest import ROOT

SCRIPT = ROOT / "model" / "runs" / "demo-64.sh"
DOCS = ROOT / "docs" / "demo-model"
FILES = {"generator.safetensors", "model.json", demo.CARD_NAME}
SHIP = typer.Typer()
SHIP.command()(ship)


@pytest.fixture
def manifest() -> dict[str, str]:
    return read_manifest(demo.folder() / "model.json")


def figures() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / "figures.json").read_text())
    return found


def run_ship(out: Path, found: dict[str, Any], least: float = -1, least_variety: float = 0) -> None:
    out.mkdir()
    (out / "figures.json").write_text(json.dumps(found))
    arguments = [
        demo.folder(),
        "--figures",
        out / "figures.json",
        "--command",
        "rosacea train --cond",
        "--least",
        least,
        "--least-variety",
        least_variety,
        "--out",
        out / "model",
    ]
    CliRunner().invoke(SHIP, [str(argument) for argument in arguments], catch_exceptions=False)


def test_the_weights_are_those_that_the_manifest_pins() -> None:
    file = verify(demo.folder())

    assert file.name == "demo"
    assert (file.config.c_dim, file.config.img_resolution) == (len(demo.SEVERITIES), 64)
    assert "untrained" not in file.note


def test_it_is_small() -> None:
    assert sum((demo.folder() / name).stat().st_size for name in FILES) <= demo.MAX_BYTES


def test_its_card_names_the_digest_the_data_and_the_commands(manifest: dict[str, str]) -> None:
    card = (demo.folder() / demo.CARD_NAME).read_text()

    commands = manifest["training"].split(" && ")
    for told in (manifest["digest"], manifest["data"], *commands, str(SCRIPT.relative_to(ROOT))):
        assert told in card


def test_the_documented_figures_are_of_these_weights(manifest: dict[str, str]) -> None:
    found = figures()

    assert found["model"]["digest"] == manifest["digest"]
    assert found["data"] == manifest["data"]
    assert found["generated"]["severity"]["contrast"] >= float(manifest["severity_spearman_at_least"])
    assert found["generated"]["variety"] >= float(manifest["variety_at_least"]) * found["fresh_phantoms"]["variety"]
    page = (DOCS / "README.md").read_text()
    assert all((DOCS / name).exists() and name in page for name in ("seeds.png", "severities.png", "nearest.png"))


def test_a_hundred_faces_follow_severity_as_the_card_promises(manifest: dict[str, str]) -> None:
    seeds = range(100)
    images = draw(Engine.load(demo.folder()), ((seed, seed % 4) for seed in seeds))
    series = Series(seed=0, count=1, resolution=64, confounders=False)

    found = agreement(measure(images, mean_regions(series.resolution, seed=series.seed)), np.array(seeds) % 4)

    assert found.contrast >= float(manifest["severity_spearman_at_least"])


def test_its_last_training_command_means_the_config_that_it_was_trained_with(
    tmp_path: Path, manifest: dict[str, str]
) -> None:
    data = tmp_path / "train.zip"
    list(write_series(data, Series(seed=0, count=4, resolution=64, confounders=False), LabelKind.severity, workers=1))
    last = manifest["training"].split(" && ")[-1].split()
    at = last.index("--init-from")  # the stretch before, which is not at hand
    rosacea = Path(sys.executable).with_name("rosacea")

    told = subprocess.run(
        [rosacea, *last[1:at], *last[at + 2 :], "--dry-run"], cwd=tmp_path, check=True, capture_output=True
    )

    config, trained = json.loads(told.stdout), json.loads((DOCS / "train.json").read_text())
    decide = set(config) - MAY_CHANGE_ON_RESUME
    assert {name: config[name] for name in decide} == {name: trained.get(name) for name in decide}


def test_ship_refuses_figures_of_another_model(tmp_path: Path) -> None:
    found = figures()
    found["model"]["digest"] = "0" * 64

    with pytest.raises(ValueError, match="the figures must be of the model"):
        run_ship(tmp_path / "out", found)


def test_ship_refuses_a_model_that_does_not_follow_severity(tmp_path: Path) -> None:
    found = figures()
    found["generated"]["severity"]["contrast"] = 0.3

    with pytest.raises(ValueError, match=r"Spearman of at least 0\.7, got 0\.300"):
        run_ship(tmp_path / "out", found, least=0.7)
    assert not (tmp_path / "out" / "model").exists()


def test_ship_refuses_a_model_whose_faces_are_alike(tmp_path: Path) -> None:
    found = figures()
    found["generated"]["variety"] = 0.4 * found["fresh_phantoms"]["variety"]

    with pytest.raises(ValueError, match=r"at least 0\.5 times as much as phantoms, got 0\.400"):
        run_ship(tmp_path / "out", found, least_variety=0.5)
    assert not (tmp_path / "out" / "model").exists()


def test_what_ship_writes_is_the_model_and_a_card_with_its_figures(tmp_path: Path) -> None:
    found = figures()
    found["generated"]["severity"]["contrast"] = 0.77

    run_ship(tmp_path / "out", found)

    shipped = tmp_path / "out" / "model"
    assert {path.name for path in shipped.iterdir()} == FILES
    assert verify(shipped).digest == verify(demo.folder()).digest
    assert "| 0.77 |" in (shipped / demo.CARD_NAME).read_text()


@pytest.mark.slow
def test_the_script_makes_a_model_from_nothing(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "WORK": str(tmp_path),
        "MODEL": str(tmp_path / "model"),
        "DOCS": str(tmp_path / "docs"),
        "PICTURE": str(tmp_path / "demo.png"),
        "COUNT": "24",
        "SIZE": "16",
        "KIMG_FIRST": "0.05",
        "KIMG": "0.06",
        "SAMPLES": "16",
        "LEAST": "-1",
        "LEAST_VARIETY": "0",
        "OMP_NUM_THREADS": "1",
    }

    subprocess.run([SCRIPT], env=environment, check=True, timeout=250)

    made = verify(tmp_path / "model")
    assert (made.name, made.config.img_resolution, made.config.c_dim) == ("demo", 16, 4)
    documents = {path.name for path in (tmp_path / "docs").iterdir()}
    assert {"README.md", "figures.json", "train.json", "report.html", "seeds.png"} <= documents
    card = (tmp_path / "model" / demo.CARD_NAME).read_text()
    assert "rosacea data phantom --count 24 --resolution 16 --seed 0 --labels severity --no-confounders" in card
    assert "--kimg 0.05" in card
    assert "--init-from run-1 --allow-partial --preset demo-64 --cond" in card


def test_the_script_says_how_it_is_used() -> None:
    told = subprocess.run([SCRIPT, "help"], check=False, capture_output=True, text=True)

    assert (told.returncode, told.stderr) == (2, f"usage: {SCRIPT} [all | ship]\n")


@pytest.mark.slow
def test_a_wheel_carries_it(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]

    subprocess.run([*pip, "--wheel-dir", tmp_path, ROOT], check=True)

    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert {f"rosacea_model/demo/{name}" for name in FILES} <= set(archive.namelist())
