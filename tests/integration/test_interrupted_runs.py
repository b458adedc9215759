"""What Ctrl-C leaves of a training run is a model that `rosacea serve RUN` really serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from rosacea_client import FaceClient
from rosacea_model.training.loop import Run, training_loop
from rosacea_model.training.reporting.grids import draw, to_levels

from ..model.training.runs import Squares, smoke
from ..model.training.runs import one_thread as one_thread  # for every test here
from ..model.training.test_stops import STOPS, after, in_the_call
from .service import RunningService

if TYPE_CHECKING:
    from pathlib import Path

    from rosacea_model.training.state import TrainState

pytestmark = pytest.mark.slow
SERVED = {"one-step": "the first step", "snapshot": "the first snapshot"}


def interrupted(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> TrainState:
    """The state of a run of many steps that is interrupted as STOPS says."""
    options, in_draw, after_step, _ = STOPS[name]
    with monkeypatch.context() as patch:
        if in_draw:
            in_the_call(in_draw, patch)
        run = Run(path=folder, images=Squares(), after_step=after(after_step) if after_step else None)
        return training_loop(smoke(100, **options), run)


def test_runs_interrupted_after_a_step_and_in_their_first_snapshot_are_served_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = {name: interrupted(tmp_path / name, stop, monkeypatch) for name, stop in SERVED.items()}

    with (
        RunningService([tmp_path / name for name in SERVED]) as service,
        FaceClient(service.address, timeout_seconds=120) as client,
    ):
        models = {name: f"models/{name}-{STOPS[stop][3]}" for name, stop in SERVED.items()}
        faces = {name: client.generate(1, model=model)[0].array() for name, model in models.items()}

    for name, state in states.items():
        wanted = to_levels(draw(state.G_ema, range(1, 2), None))[0]
        assert np.abs(faces[name].astype(int) - wanted).max() <= 1, name
