"""Every batch size, every place in it, ever other neighbours: the handler answers a seed with the same bytes."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rosacea.render.v1 import render_pb2
from rosacea.v1 import faces_pb2
from rosacea_model import GeneratorConfig
from rosacea_model.engine import Engine
from rosacea_model.fresh import fresh_model
from rosacea_serving.worker import handler
from rosacea_serving.worker.contract import INPUT_NAME
from tests.integration.threads import torch_threads

from .history import History, digest, violations

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from rosacea_model.sample import FaceSample

TINY = GeneratorConfig(z_dim=16, w_dim=16, img_resolution=8, mapping_layers=2, channel_base=256, channel_max=16)
SEEDS = range(200)
MAX_BATCH = 16


class Neighbourly(Engine):
    """The negative control: in full company, the face at one place comes out a level brighter."""

    def render_each(self, samples: Sequence[FaceSample]) -> list[Any]:
        faces = super().render_each(samples)
        if len(faces) == MAX_BATCH:
            faces[11] = np.asarray(faces[11]) ^ np.uint8(1)
        return faces


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    fresh_model(folder, TINY, seed=1, name="tiny")
    return folder


def started(model: Path, engine: type[Engine]) -> handler.FaceHandler:
    faces = handler.FaceHandler(load=lambda path, device: engine.load(path, device=device))
    faces.initialize(SimpleNamespace(system_properties={"model_dir": model, "gpu_id": None}))
    return faces


def faces_of(worker: handler.FaceHandler, seeds: Iterable[int]) -> list[bytes]:
    items = [
        render_pb2.RenderItem(
            seed=seed, truncation_psi=1.0, noise_mode=faces_pb2.NOISE_MODE_CONST, format=faces_pb2.IMAGE_FORMAT_PNG
        )
        for seed in seeds
    ]
    context: Any = None
    (data,) = worker.handle([{INPUT_NAME: render_pb2.RenderJob(items=items).SerializeToString()}], context)
    return [outcome.image for outcome in render_pb2.RenderResult.FromString(data).outcomes]


@torch_threads(1)  # more of them wait for one another on a busy machine, for longer than they draw
def wrong_faces(worker: handler.FaceHandler, rounds: int) -> list[str]:
    """Faces in batches of 1 to 16 random seeds, so many of each size, that are not what the seed gives alone."""
    golden: dict[object, str] = {seed: digest(faces_of(worker, [seed])[0]) for seed in SEEDS}
    assert len(set(golden.values())) == len(SEEDS), "faces that are all the same prove nothing"
    rng = random.Random(5)
    history = History()
    for size in [*range(1, MAX_BATCH + 1)] * rounds:
        seeds = rng.sample(SEEDS, size)
        call = history.begin(seeds)
        call.got = [(seed, digest(face)) for seed, face in zip(seeds, faces_of(worker, seeds), strict=True)]
        history.end(call)
    return violations(history, golden)


@pytest.mark.slow
def test_five_thousand_faces_do_not_depend_on_size_place_or_neighbours(model: Path) -> None:
    rounds = 40
    assert rounds * MAX_BATCH * (MAX_BATCH + 1) / 2 == 5440

    assert wrong_faces(started(model, Engine), rounds) == []


def test_one_face_in_one_batch_that_does_is_found(model: Path) -> None:
    assert len(wrong_faces(started(model, Neighbourly), rounds=1)) == 1
