"""Faces of a model, for measuring: the same however often and in whatever batches they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from rosacea_model import FaceSample, GeneratorConfig
from rosacea_model.engine import Engine
from rosacea_model.fresh import fresh_model
from rosacea_model.metrics.images import ModelImages, all_pixels

if TYPE_CHECKING:
    from pathlib import Path

TINY = GeneratorConfig(z_dim=8, w_dim=8, img_resolution=8, mapping_layers=1, channel_base=64, channel_max=8, c_dim=2)
SEEDS = range(5, 16)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine.load(fresh_model(tmp_path / "model", TINY, seed=0, name="fresh").path)


def test_faces_that_are_kept_are_drawn_once_and_are_those_of_the_engine(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.eye(2, dtype=np.float32)
    want = engine.render([FaceSample(seed=seed, label=labels[place % 2]) for place, seed in enumerate(SEEDS)])
    drawn: list[int] = []
    render = engine.render

    def counted(samples: list[FaceSample]) -> object:
        drawn.extend(sample.seed or 0 for sample in samples)
        return render(samples)

    monkeypatch.setattr(engine, "render", counted)
    images = ModelImages(engine, SEEDS, labels=labels, keep=tmp_path / "faces.npy")
    begun = next(images.batches(4)).pixels  # an iteration that is given up

    assert np.array_equal(begun, want[:4])
    for size in (4, 3, 64):
        assert np.array_equal(np.concatenate([batch.pixels for batch in images.batches(size)]), want)
    assert drawn == list(SEEDS)


def test_faces_that_are_not_kept_are_the_same_each_time(engine: Engine) -> None:
    images = ModelImages(engine, SEEDS, labels=np.eye(2, dtype=np.float32))

    assert np.array_equal(all_pixels(images), all_pixels(images))
