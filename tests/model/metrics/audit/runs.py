"""A training run in the smallest form that is one: config, checkpoint, snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rosacea_model.files import weights
from rosacea_model.training import checkpoint
from rosacea_model.training.config import CONFIG_NAME, TrainConfig, resolve
from rosacea_model.training.state import TrainState

if TYPE_CHECKING:
    from pathlib import Path


def config() -> TrainConfig:
    return resolve("smoke-16", {}, resolution=16, label_width=0)


def written(path: Path, state: TrainState | None = None) -> Path:
    state = state or TrainState(config())
    path.mkdir()
    (path / CONFIG_NAME).write_text(state.config.to_json())
    checkpoint.write(path / "checkpoints", 7, state.save(), {})
    snapshot = path / "snapshots" / "kimg-000000.100"
    weights.save(snapshot, state.G_ema.config, state.G_ema.state_dict(), name="tiny")
    return path
