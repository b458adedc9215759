"""What TorchServe is given, and what is taken back out of an archive."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
import safetensors.numpy

from rosacea_model.config import GeneratorConfig
from rosacea_model.errors import ModelRejected
from rosacea_model.files.archive import WorkerOptions, read_archive, write_archive, write_store_folder
from rosacea_model.files.modelfile import MANIFEST_NAME, WEIGHTS_NAME, ModelFile, sha256, verify, write_manifest
from rosacea_model.files.tensors import expected_tensors
from rosacea_serving.worker.handler import FaceHandler

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def model(tmp_path: Path) -> ModelFile:
    """A model file with next to no weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    config = GeneratorConfig(z_dim=4, w_dim=4, img_resolution=8, channel_base=8, mapping_layers=1)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in expected_tensors(config).items()}
    safetensors.numpy.save_file(tensors, folder / WEIGHTS_NAME, {"config": config.to_json()})
    write_manifest(folder, name="tiny.v2", digest=sha256(folder / WEIGHTS_NAME), note="untrained")
    return verify(folder)


def rewritten(path: Path, change: dict[str, bytes | None], extra: tuple[tuple[str, bytes], ...] = ()) -> Path:
    """A copy of an archive with members changed, left out (None) or added."""
    other = path.with_name("other.mar")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            data = change.get(name, source.read(name))
            if data is not None:
                target.writestr(name, data)
        for name, data in extra:
            target.writestr(name, data)
    return other


def test_a_store_folder_is_a_model_too(model: ModelFile, tmp_path: Path) -> None:
    folder = write_store_folder(model, tmp_path / "store", WorkerOptions(workers=2))

    assert folder.name == "tiny.v2"
    assert verify(folder).digest == model.digest
    assert (folder / WEIGHTS_NAME).samefile(model.path)
    config = (folder / "model-config.yaml").read_text()
    assert "minWorkers: 2\nmaxWorkers: 2\nbatchSize: 1\n" in config
    manifest = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text())
    assert manifest["model"]["modelName"] == "tiny.v2"


def test_a_store_folder_can_be_written_twice(model: ModelFile, tmp_path: Path) -> None:
    for _ in range(2):
        folder = write_store_folder(model, tmp_path / "store", WorkerOptions())

    assert verify(folder).digest == model.digest


def test_the_handler_module_defines_one_class(model: ModelFile, tmp_path: Path) -> None:
    folder = write_store_folder(model, tmp_path / "store", WorkerOptions())
    spec = importlib.util.spec_from_file_location("handler_of_archive", folder / "handler.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    own = [each for each in vars(module).values() if getattr(each, "__module__", "") == "handler_of_archive"]

    assert [each.__name__ for each in own] == ["Handler"]
    assert issubclass(own[0], FaceHandler)


def test_the_same_model_gives_the_same_archive(model: ModelFile, tmp_path: Path) -> None:
    write_archive(model, tmp_path / "a.mar", WorkerOptions())
    write_archive(model, tmp_path / "b.mar", WorkerOptions())

    assert (tmp_path / "a.mar").read_bytes() == (tmp_path / "b.mar").read_bytes()


def test_an_archive_is_named_as_torchserve_wants_it(model: ModelFile, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\*\.mar, got a\.zip"):
        write_archive(model, tmp_path / "a.zip", WorkerOptions())


def test_a_model_comes_back_out_of_its_archive(model: ModelFile, tmp_path: Path) -> None:
    write_archive(model, tmp_path / "a.mar", WorkerOptions())

    back = read_archive(tmp_path / "a.mar", tmp_path / "back")

    assert (back.name, back.digest, back.config, back.note) == ("tiny.v2", model.digest, model.config, "untrained")
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == [WEIGHTS_NAME, MANIFEST_NAME]


def test_nothing_else_is_taken_out_of_an_archive(model: ModelFile, tmp_path: Path) -> None:
    write_archive(model, tmp_path / "a.mar", WorkerOptions())
    hostile = rewritten(tmp_path / "a.mar", {}, (("../escaped", b"x"), ("/tmp/escaped", b"x"), ("more", b"x")))

    read_archive(hostile, tmp_path / "back")

    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == [WEIGHTS_NAME, MANIFEST_NAME]
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize("name", [WEIGHTS_NAME, MANIFEST_NAME])
def test_an_archive_that_lacks_a_part_is_refused(model: ModelFile, tmp_path: Path, name: str) -> None:
    write_archive(model, tmp_path / "a.mar", WorkerOptions())

    with pytest.raises(ModelRejected, match="once, got 0 times"):
        read_archive(rewritten(tmp_path / "a.mar", {name: None}), tmp_path / "back")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_a_part_twice_is_refused(model: ModelFile, tmp_path: Path) -> None:
    write_archive(model, tmp_path / "a.mar", WorkerOptions())

    with pytest.raises(ModelRejected, match="once, got 2 times"):
        read_archive(rewritten(tmp_path / "a.mar", {}, ((MANIFEST_NAME, b"{}"),)), tmp_path / "back")


def test_changed_weights_are_refused_and_not_left_behind(model: ModelFile, tmp_path: Path) -> None:
    write_archive(model, tmp_path / "a.mar", WorkerOptions())
    changed = bytearray(model.path.read_bytes())
    changed[-1] ^= 1

    with pytest.raises(ModelRejected, match="SHA-256"):
        read_archive(rewritten(tmp_path / "a.mar", {WEIGHTS_NAME: bytes(changed)}), tmp_path / "back")
    assert list((tmp_path / "back").iterdir()) == []


def test_an_oversized_manifest_is_refused(model: ModelFile, tmp_path: Path) -> None:
    write_archive(model, tmp_path / "a.mar", WorkerOptions())

    with pytest.raises(ModelRejected, match="at most 1048576 bytes"):
        read_archive(rewritten(tmp_path / "a.mar", {MANIFEST_NAME: b" " * (2**20 + 1)}), tmp_path / "back")


def test_an_archive_with_very_many_members_is_refused_at_once(model: ModelFile, tmp_path: Path) -> None:
    write_archive(model, tmp_path / "a.mar", WorkerOptions())
    many = tuple((f"{number:05}", b"") for number in range(30_000))

    with pytest.raises(ModelRejected, match="directory must have at most"):
        read_archive(rewritten(tmp_path / "a.mar", {}, many), tmp_path / "back")


@pytest.mark.parametrize("data", [b"", b"PK", b"x" * 1000, b"PK\x05\x06" + bytes(18)])
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.mar").write_bytes(data)

    with pytest.raises(ModelRejected):
        read_archive(tmp_path / "a.mar", tmp_path / "back")


def test_a_truncated_archive_is_refused(model: ModelFile, tmp_path: Path) -> None:
    write_archive(model, tmp_path / "a.mar", WorkerOptions())
    whole = (tmp_path / "a.mar").read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "cut.mar").write_bytes(whole[:length])

        with pytest.raises(ModelRejected):
            read_archive(tmp_path / "cut.mar", tmp_path / "back")


@pytest.mark.parametrize("options", [{"workers": 0}, {"response_timeout_seconds": 0}, {"job_queue_size": 1.5}])
def test_options_that_make_no_sense_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be a whole number of at least 1"):
        WorkerOptions(**options)


def test_an_archive_that_unpacks_to_far_more_than_it_is_leaves_the_disk_alone(tmp_path: Path) -> None:
    """All members count together, and none of it is written before that."""
    path = tmp_path / "bomb.mar"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr(MANIFEST_NAME, b"{}")
        archive.writestr(WEIGHTS_NAME, bytes(50 * 2**20))

    with pytest.raises(ModelRejected, match="must unpack to at most"):
        read_archive(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
