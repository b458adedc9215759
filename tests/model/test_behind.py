"""A run and a checkpoint stand for the model that is behind them, and it is said which."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
import torch
from typer.testing import CliRunner

from rosacea_model.behind import model_behind
from rosacea_model.commands.model import app
from rosacea_model.config import GeneratorConfig
from rosacea_model.errors import ModelRejected
from rosacea_model.files.archive import read_archive
from rosacea_model.files.modelfile import verify
from rosacea_model.fresh import fresh_model
from rosacea_model.networks.generator import Generator
from rosacea_serving.models.shelf import Shelf

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = GeneratorConfig(
    z_dim=8,
    w_dim=8,
    img_resolution=8,
    mapping_layers=1,
    channel_base=64,
    channel_max=8,
    num_fp16_res=0,
    conv_clamp=None,
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two snapshots, the first of which is the better, and a third that was not finished."""
    folder = tmp_path / "rosacea-64"
    for seed, kimg in enumerate(("000001.000", "000002.000")):
        fresh_model(folder / "snapshots" / f"kimg-{kimg}", CONFIG, seed=seed, name=f"run-{seed}")
    (folder / "snapshots" / "kimg-000003.000").mkdir()
    best = {"snapshot": "kimg-000001.000", "step": 4, "distance": 0.25, "measure": "drift"}
    (folder / "snapshots" / "best.json").write_text(json.dumps(best))
    return folder


def test_a_run_stands_for_its_best_snapshot(run: Path, tmp_path: Path) -> None:
    best = verify(run / "snapshots" / "kimg-000001.000").digest

    facts = json.loads(CliRunner().invoke(app, ["info", str(run), "--json"]).stdout)
    exported = CliRunner().invoke(app, ["export", str(run), "--out", str(tmp_path / "run.mar")])
    (served,) = Shelf(tmp_path / "shelf").load([run])

    assert facts["digest"] == served.digest == read_archive(tmp_path / "run.mar", tmp_path / "back").digest == best
    assert "best snapshot is kimg-000001.000 (drift 0.25)" in facts["taken"]
    assert "kimg-000001.000" in exported.stdout


def test_a_run_without_a_record_of_the_best_stands_for_its_newest_whole_snapshot(run: Path) -> None:
    (run / "snapshots" / "best.json").unlink()

    with model_behind(run) as (folder, taken):
        assert folder.name == "kimg-000002.000" and "newest is kimg-000002.000" in taken


def test_a_run_without_a_snapshot_says_so(tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()

    with pytest.raises(ModelRejected, match="no snapshot yet"), model_behind(tmp_path):
        pass


@pytest.mark.slow
def test_what_is_no_checkpoint_is_called_what_it_is(tmp_path: Path) -> None:
    page = tmp_path / "snapshot.pkl"
    page.write_bytes(b"<!doctype html><html>")

    with pytest.raises(ModelRejected, match="a web page"), model_behind(page):
        pass
    with pytest.raises(ModelRejected, match="a web page"):
        Shelf(tmp_path / "shelf").load([page])


@pytest.mark.slow
def test_a_checkpoint_can_be_looked_at_and_served_as_it_is(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(Generator(CONFIG).state_dict(), buffer)
    path = tmp_path / "My Face.download"
    path.write_bytes(buffer.getvalue())

    facts = json.loads(CliRunner().invoke(app, ["info", str(path), "--json"]).stdout)
    (served,) = Shelf(tmp_path / "shelf").load([path])

    assert (facts["name"], facts["digest"]) == (served.name, served.digest) == ("my-face", served.digest)
    assert "imported for now" in facts["taken"] and sorted(tmp_path.iterdir()) == [path, tmp_path / "shelf"]


def test_a_path_that_is_not_there_is_named_itself(tmp_path: Path) -> None:
    with (
        pytest.raises(ModelRejected, match=r"nothing: does not exist; give a model folder"),
        model_behind(tmp_path / "nothing"),
    ):
        pass
