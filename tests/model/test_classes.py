"""Names of classes: in the manifest, not in the digest; taken along wherever a model goes."""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from rosacea_model import demo, latents, load
from rosacea_model.classes import MAX_NAME_CHARS, check_classes, class_number, usable_classes
from rosacea_model.commands.model import app
from rosacea_model.config import GeneratorConfig
from rosacea_model.errors import ModelRejected
from rosacea_model.files.archive import WorkerOptions, read_archive, write_archive, write_store_folder
from rosacea_model.files.modelfile import MANIFEST_NAME, name_classes, verify
from rosacea_model.fresh import fresh_model

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("none", "mild, early", "s\u00e9v\u00e8re")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    config = GeneratorConfig(
        z_dim=8, c_dim=3, w_dim=8, img_resolution=8, mapping_layers=1, channel_base=64, channel_max=8
    )
    return fresh_model(tmp_path / "model", config, seed=0, name="small").path.parent


def test_naming_the_classes_leaves_the_digest_and_all_else_of_a_model(model: Path) -> None:
    before = verify(model)
    manifest = json.loads((model / MANIFEST_NAME).read_text())

    named = name_classes(model, NAMES)

    assert (before.classes, named.classes, named.digest) == ((), NAMES, before.digest)
    after = json.loads((model / MANIFEST_NAME).read_text())
    assert after.pop("classes") and after == manifest
    assert name_classes(model, ()).classes == ()


def test_names_go_with_a_model_into_archives_and_stores(model: Path, tmp_path: Path) -> None:
    file = name_classes(model, NAMES)
    write_archive(file, tmp_path / "small.mar", WorkerOptions())

    assert read_archive(tmp_path / "small.mar", tmp_path / "again").classes == NAMES
    assert verify(write_store_folder(file, tmp_path / "store", WorkerOptions())).classes == NAMES


def test_a_default_class_is_set_by_number_or_name_and_unset_by_refuse(model: Path, tmp_path: Path) -> None:
    digest = name_classes(model, NAMES).digest

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["classes", str(model), *arguments])
        return done.output if done.exit_code == 0 else str(done.exception)

    assert "1 mild, early (default)" in run("--default", "1")
    assert "0 none (default)" in run("--default", "none")
    assert (verify(model).default_class, verify(model).digest) == (0, digest)
    write_archive(verify(model), tmp_path / "small.mar", WorkerOptions())
    assert read_archive(tmp_path / "small.mar", tmp_path / "again").default_class == 0
    assert "must be from 0 to 2, got 3" in run("--default", "3")
    assert "must be one of none" in run("--default", "heavy")
    assert "(default)" not in run("--default", "refuse")
    assert verify(model).default_class is None


@pytest.mark.parametrize("entry", ["3", "-1", "x", "1.0", "\u0661", "9" * 5000])
def test_a_manifest_with_a_default_class_that_cannot_be_is_refused(model: Path, entry: str) -> None:
    manifest = json.loads((model / MANIFEST_NAME).read_text())
    (model / MANIFEST_NAME).write_text(json.dumps({**manifest, "default_class": entry}))

    with pytest.raises(ModelRejected, match=r"model\.json: default_class must be a class below 3"):
        verify(model)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a", "b"], "a name for each of the 3 classes, got 2"),
        (["a", "b", "a"], "'a' more than once"),
        (["a", "b", ""], "1 to 64 printable"),
        (["a", "b", "c\n"], "1 to 64 printable"),
        (["a", "b", "c" * (MAX_NAME_CHARS + 1)], "1 to 64 printable"),
    ],
)
def test_names_that_fit_no_model_are_refused_and_nothing_is_changed(model: Path, names: list[str], told: str) -> None:
    before = (model / MANIFEST_NAME).read_bytes()

    with pytest.raises(ValueError, match=told):
        name_classes(model, names)

    assert (model / MANIFEST_NAME).read_bytes() == before


@pytest.mark.parametrize("entry", ["[", "[1, 2, 3]", '{"a": 1}', '["a", "b"]', "[" * 10_000, '["a", "b", "a"]'])
def test_a_manifest_with_names_that_cannot_be_is_refused(model: Path, entry: str) -> None:
    manifest = json.loads((model / MANIFEST_NAME).read_text())
    (model / MANIFEST_NAME).write_text(json.dumps({**manifest, "classes": entry}))

    with pytest.raises(ModelRejected, match=r"model\.json"):
        verify(model)


@pytest.mark.parametrize(
    ("names", "width", "usable"),
    [
        (("a", "b"), 2, ("a", "b")),
        (("a", "b"), 4, ("a", "b", "2", "3")),
        ((), 3, ()),
        (("a", "b"), 1, ()),
        (("a\n", "b"), 2, ("a?", "b")),
        (("x" * 80, "b"), 2, ("x" * 64, "b")),
        (("x" * 80, "x" * 90), 2, ()),
    ],
)
def test_folder_names_become_class_names_where_they_can(
    names: tuple[str, ...], width: int, usable: tuple[str, ...]
) -> None:
    assert usable_classes(names, width) == usable
    assert not usable or check_classes(usable, width)


def test_the_demo_model_s_classes_have_names() -> None:
    assert verify(demo.folder()).classes == demo.SEVERITIES


def test_a_class_is_known_by_its_name_in_process_too() -> None:
    model = load(demo.folder())
    z = latents([1], model.config.z_dim)

    assert torch.equal(model.map(z, "severe"), model.map(z, 3))
    with pytest.raises(ValueError, match="one of none, mild, moderate, severe, got 'sever'; did you mean 'severe'"):
        model.map(z, "sever")
    with pytest.raises(ValueError, match="the classes have no names"):
        class_number("severe", ())
    assert class_number(unicodedata.normalize("NFD", NAMES[2]), NAMES) == 2


def test_classes_are_named_from_a_list_or_from_a_data_set(model: Path, tmp_path: Path) -> None:
    for name in ("10 severe", "2 none", "3 mild"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / name / "a.png")

    stated = CliRunner().invoke(app, ["classes", str(model), "none, mild,severe"])
    learnt = CliRunner().invoke(app, ["classes", str(model), str(tmp_path / "data")])

    assert stated.output == "0 none\n1 mild\n2 severe\n"
    assert learnt.output == "0 2 none\n1 3 mild\n2 10 severe\n"
    assert "2 none, 3 mild, 10 severe" in CliRunner().invoke(app, ["info", str(model), "--json"]).output
