"""What is served is a verified copy that nobody else can write to."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from rosacea_model import GeneratorConfig
from rosacea_model.errors import ModelRejected
from rosacea_model.files.archive import WorkerOptions, write_archive
from rosacea_model.files.modelfile import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    WEIGHTS_NAME,
    name_classes,
    sha256,
    verify,
    write_manifest,
)
from rosacea_model.files.signing import sign
from rosacea_model.fresh import fresh_model
from rosacea_serving.models.shelf import Shelf

from ...model.files.test_signing import write_keys

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = GeneratorConfig(z_dim=8, w_dim=8, img_resolution=8, mapping_layers=1, channel_base=64, channel_max=8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return fresh_model(tmp_path / "model", CONFIG, seed=1, name="demo").path.parent


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "shelf")


def test_writing_over_the_original_does_not_reach_the_copy(shelf: Shelf, model: Path) -> None:
    (file,) = shelf.load([model])
    with (model / WEIGHTS_NAME).open("r+b") as original:
        original.write(b"damage")

    assert verify(file.path).digest == file.digest
    with pytest.raises(ModelRejected):
        verify(model)


@pytest.mark.parametrize("name", [WEIGHTS_NAME, MANIFEST_NAME])
def test_a_damaged_model_is_refused_by_its_own_path_and_leaves_no_copy(
    shelf: Shelf, model: Path, tmp_path: Path, name: str
) -> None:
    data = bytearray((model / name).read_bytes())
    data[data.find(b'"digest": "') + 20 if name == MANIFEST_NAME else -20] ^= 1
    (model / name).write_bytes(data)

    with pytest.raises(ModelRejected, match=str(model)) as refusal:
        shelf.load([model])

    assert str(tmp_path / "shelf") not in str(refusal.value)
    assert list((tmp_path / "shelf").iterdir()) == []


def test_a_missing_model_is_refused_by_its_own_path(shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match=str(tmp_path / "none")):
        shelf.load([tmp_path / "none"])


def test_folder_weights_file_and_archive_are_the_same_model_and_one_copy(
    shelf: Shelf, model: Path, tmp_path: Path
) -> None:
    write_archive(verify(model), tmp_path / "demo.mar", WorkerOptions())

    first, second, third = shelf.load([model, model / WEIGHTS_NAME, tmp_path / "demo.mar"])

    assert first is second is third
    assert len(list((tmp_path / "shelf").iterdir())) == 1


def test_classes_that_got_names_are_told_of_the_copy_that_is_kept(shelf: Shelf, tmp_path: Path) -> None:
    model = fresh_model(tmp_path / "two", dataclasses.replace(CONFIG, c_dim=2), seed=1, name="demo").path.parent
    (old,) = shelf.load([model])
    name_classes(model, ["none", "mild"])

    (new,) = shelf.load([model], in_use=[old])

    assert (old.classes, new.classes, new.path) == ((), ("none", "mild"), old.path)
    assert verify(new.path).classes == new.classes and len(list((tmp_path / "shelf").iterdir())) == 1


def test_copies_are_kept_while_they_are_in_use_and_no_longer(shelf: Shelf, model: Path, tmp_path: Path) -> None:
    (old,) = shelf.load([model])
    fresh_model(model, CONFIG, seed=2, name="demo")

    (new,) = shelf.load([model], in_use=[old])
    assert old.path.exists() and new.path.exists() and new.digest != old.digest
    shelf.load([model], in_use=[new])
    assert not old.path.exists() and new.path.exists()


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_with_a_key_only_what_its_owner_signed_is_taken(model: Path, tmp_path: Path, packed: bool) -> None:
    key, public = write_keys(tmp_path, "ours")
    theirs, _ = write_keys(tmp_path, "theirs")
    shelf = Shelf(tmp_path / "shelf", public)

    def taken() -> str:
        if packed:
            write_archive(verify(model), tmp_path / "demo.mar", WorkerOptions())
        (file,) = shelf.load([tmp_path / "demo.mar" if packed else model])
        return file.digest

    sign(model, key)
    assert taken() == verify(model).digest
    sign(model, theirs)
    with pytest.raises(ModelRejected, match=r"model\.sig: not of this model by the owner of") as refusal:
        taken()
    assert str(tmp_path / "shelf") not in str(refusal.value)
    (model / SIGNATURE_NAME).unlink()
    with pytest.raises(ModelRejected, match="not signed"):
        taken()
    assert list((tmp_path / "shelf").iterdir()) == []


def test_without_a_key_a_signature_is_not_asked_for(shelf: Shelf, model: Path) -> None:
    (model / SIGNATURE_NAME).write_text("rubbish")

    assert shelf.load([model])[0].digest == verify(model).digest


def test_a_key_that_is_none_leaves_no_copy(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a public elliptic key"):
        Shelf(tmp_path / "shelf", tmp_path / "none").load([model])

    assert list((tmp_path / "shelf").iterdir()) == []


@pytest.mark.parametrize("damage", ["cut off", "not finite"])
def test_a_model_that_no_worker_could_load_is_not_taken(damage: str, tmp_path: Path) -> None:
    """So `rosacea serve --check`, SIGHUP and the start refuse it alike, and no worker has to try."""
    file = fresh_model(tmp_path / "model", CONFIG, seed=0, name="small")
    data = file.path.read_bytes()
    file.path.write_bytes(data[:-4] + (b"" if damage == "cut off" else b"\0\0\x80\x7f"))
    write_manifest(file.path.parent, name="small", digest=sha256(file.path))

    with pytest.raises(ModelRejected, match="bytes, got" if damage == "cut off" else "must be finite"):
        Shelf(tmp_path / "shelf").load([file.path.parent])
    assert not any((tmp_path / "shelf").iterdir())
