"""The full 512 x 512 generator goes through every form of file and still draws the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from rosacea_model import GeneratorConfig, Sample, load, weights
from rosacea_model.archive import WorkerOptions, read_archive, write_archive
from rosacea_model.engine import Engine
from rosacea_model.fresh import fresh_model
from rosacea_model.onnx_export import export_onnx

if TYPE_CHECKING:
    from pathlib import Path

    from rosacea_model.modelfile import ModelFile

pytestmark = pytest.mark.slow

PARAMETERS = 30_276_583
SAMPLES = [Sample(seed=1, truncation_psi=0.7), Sample(seed=2, noise_mode="random", noise_seed=3)]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return fresh_model(tmp_path_factory.mktemp("full") / "model", GeneratorConfig(), seed=0, name="full")


def test_safetensors_and_archive_keep_every_byte(original: ModelFile, tmp_path: Path) -> None:
    engine = Engine.load(original.path)
    assert sum(parameter.numel() for parameter in engine.model.generator.parameters()) == PARAMETERS
    assert engine.config.img_resolution == 512

    # Model to safetensors to archive and back.
    tensors = engine.model.generator.state_dict()
    saved = weights.save(tmp_path / "saved", engine.config, tensors, name="full", note=original.note)
    write_archive(saved, tmp_path / "full.mar", WorkerOptions())
    returned = read_archive(tmp_path / "full.mar", tmp_path / "returned")

    assert original.digest == saved.digest == returned.digest
    assert (returned.name, returned.config, returned.note) == (original.name, original.config, original.note)
    images = engine.render(SAMPLES)
    assert images.shape == (2, 512, 512, 3)
    assert images.std() > 10
    assert np.array_equal(Engine.load(returned.path).render(SAMPLES), images)


def test_onnx_agrees_with_torch(original: ModelFile, tmp_path: Path) -> None:
    report = export_onnx(load(original.path), tmp_path / "full.onnx")

    assert report.image_difference <= 1e-4
    assert report.file_bytes > 4 * PARAMETERS
