"""A worker that does not draw the same twice takes no job."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rosacea_model import GeneratorConfig
from rosacea_model.engine import Engine
from rosacea_model.errors import OutputNotFinite
from rosacea_model.fresh import fresh_model
from rosacea_serving.worker.handler import FaceHandler
from rosacea_serving.worker.selftest import NotDeterministic, self_test

from .test_handler import FakeEngine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rosacea_model.sample import FaceSample


class BatchDependent(FakeEngine):
    """One level brighter in company, at one place of the batch."""

    def __init__(self, place: int, micro_batch: int = 1) -> None:
        super().__init__()
        self._place = place
        self.micro_batch = micro_batch

    def render_each(self, samples: Sequence[FaceSample]) -> list[NDArray[np.uint8] | Exception]:
        images = super().render_each(samples)
        if len(images) > 1:
            images[self._place] = images[self._place] + np.uint8(1)  # type: ignore[operator]
        return images


class Drifting(FakeEngine):
    """Draws something else every time."""

    def render_each(self, samples: Sequence[FaceSample]) -> list[NDArray[np.uint8] | Exception]:
        self.batches.append([])
        return [np.full((8, 8, 3), len(self.batches), np.uint8) for _ in samples]


class Broken(FakeEngine):
    def render_each(self, samples: Sequence[FaceSample]) -> list[NDArray[np.uint8] | Exception]:
        return [OutputNotFinite("the image holds NaN or infinity") for _ in samples]


def test_an_engine_that_keeps_its_promise_passes() -> None:
    self_test(FakeEngine())


@pytest.mark.parametrize("engine", [BatchDependent(0), BatchDependent(-1), BatchDependent(-1, 8), Drifting()])
def test_an_engine_whose_bytes_depend_on_the_batch_is_refused(engine: FakeEngine) -> None:
    with pytest.raises(NotDeterministic, match="seed 0 must give the same pixels alone and in a batch of"):
        self_test(engine)


def test_a_face_that_cannot_be_drawn_is_told_as_such() -> None:
    with pytest.raises(OutputNotFinite):
        self_test(Broken())


def test_a_worker_that_fails_it_does_not_start() -> None:
    handler = FaceHandler(load=lambda path, device: Drifting())
    context: Any = SimpleNamespace(system_properties={"model_dir": "/models/tiny", "gpu_id": None})

    with pytest.raises(NotDeterministic):
        handler.initialize(context)


def test_the_real_engine_passes(tmp_path: Path) -> None:
    config = GeneratorConfig(z_dim=8, w_dim=8, img_resolution=16, mapping_layers=2, channel_base=256, channel_max=16)
    fresh_model(tmp_path, config, seed=1, name="small")

    self_test(Engine.load(tmp_path))
