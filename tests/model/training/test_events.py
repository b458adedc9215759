"""TensorBoard's own reader finds in a run's event files what stats.jsonl says."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rosacea_client.cli import explain
from rosacea_model.training.loop import Run, training_loop
from rosacea_model.training.reporting import events
from rosacea_model.training.reporting.records import read_stats

from .runs import STEP_KIMG, Squares, smoke
from .runs import one_thread as one_thread  # for every test here

if TYPE_CHECKING:
    from pathlib import Path


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Of each figure: the numbers of images, and its values."""
    reader = EventAccumulator(str(run / events.FOLDER))
    reader.Reload()
    return {name: [(event.step, event.value) for event in reader.Scalars(name)] for name in reader.Tags()["scalars"]}


def train(run: Path, steps: int, *, resume: bool = False) -> None:
    config = smoke(steps, tick_kimg=STEP_KIMG, tensorboard=True)
    training_loop(config, Run(path=run, images=Squares(), resume=resume))


def test_the_event_files_hold_every_figure_of_every_tick(tmp_path: Path) -> None:
    train(tmp_path, 3)

    found, records = scalars(tmp_path), read_stats(tmp_path)
    names = {name for record in records for name in record} - {"kimg", "step"}
    assert found.keys() == names
    for name in names:
        wanted = {round(record["kimg"] * 1000): record[name] for record in records if name in record}
        assert dict(found[name]) == pytest.approx(wanted, rel=1e-5)


def test_a_resumed_run_hides_the_events_of_lost_steps(tmp_path: Path) -> None:
    train(tmp_path, 2)
    lost = events.Events(tmp_path, 8)
    lost.write({"kimg": 0.016, "step": 4, "G/loss": 1e9})
    lost.close()

    train(tmp_path, 3, resume=True)

    assert [nimg for nimg, _ in scalars(tmp_path)["G/loss"]] == [4, 8, 12]


def test_without_the_wish_there_are_no_event_files(tmp_path: Path) -> None:
    training_loop(smoke(1), Run(path=tmp_path, images=Squares()))

    assert not (tmp_path / events.FOLDER).exists()


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(ValueError, match="not installed") as caught:
        events.check_installed()

    assert explain(caught.value) == (
        "--tensorboard needs tensorboard, which is not installed: pip install 'rosacea[tensorboard]'"
        " (in a checkout: pip install '.[tensorboard]')",
        2,
    )
