"""The full 512 x 512 generator goes through every form of file and still draws the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from rosacea_model import FaceSample, GeneratorConfig, load
from rosacea_model.engine import Engine
from rosacea_model.files.archive import WorkerOptions, read_archive, write_archive
from rosacea_model.files.modelfile import verify
from rosacea_model.files.onnx_export import export_onnx
from rosacea_model.fresh import fresh_model
from rosacea_model.importers.importer import import_checkpoint

from .pickles import generator, written

if TYPE_CHECKING:
    from pathlib import Path

    from rosacea_model.files.modelfile import ModelFile

pytestmark = pytest.mark.long

PARAMETERS = 30_276_583
SAMPLES = [FaceSample(seed=1, truncation_psi=0.7), FaceSample(seed=2, noise_mode="random", noise_seed=3)]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return fresh_model(tmp_path_factory.mktemp("full") / "model", GeneratorConfig(), seed=0, name="full")


def test_pickle_safetensors_and_archive_keep_every_byte(original: ModelFile, tmp_path: Path) -> None:
    engine = Engine.load(original.path)
    assert sum(parameter.numel() for parameter in engine.model.generator.parameters()) == PARAMETERS
    assert engine.config.img_resolution == 512

    # The reference's pickle layout to safetensors to archive and back.
    snapshot = tmp_path / "network-snapshot-000000.pkl"
    snapshot.write_bytes(written({"G_ema": generator(engine.config, engine.model.generator.state_dict())}))
    report = import_checkpoint(snapshot, tmp_path / "imported", "full")
    write_archive(verify(tmp_path / "imported"), tmp_path / "full.mar", WorkerOptions())
    returned = read_archive(tmp_path / "full.mar", tmp_path / "returned")

    assert original.digest == report.digest == returned.digest
    assert (returned.name, returned.config) == (original.name, original.config)
    images = engine.render(SAMPLES)
    assert images.shape == (2, 512, 512, 3)
    assert images.std() > 10
    assert np.array_equal(Engine.load(returned.path).render(SAMPLES), images)


def test_onnx_agrees_with_torch(original: ModelFile, tmp_path: Path) -> None:
    report = export_onnx(load(original.path), tmp_path / "full.onnx")

    assert report.image_difference <= 1e-4
    assert report.file_bytes > 4 * PARAMETERS
