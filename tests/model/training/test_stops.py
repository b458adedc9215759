"""Ctrl-C at any point leaves a model that can be served; and a run says what it is, how fast, and when it will end."""

from __future__ import annotations

import os
import re
import signal
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rosacea_model.engine import Engine
from rosacea_model.sample import FaceSample
from rosacea_model.training import checkpoint
from rosacea_model.training.loop import Run, training_loop
from rosacea_model.training.reporting import grids
from rosacea_model.training.reporting.observe import RunReporter
from rosacea_model.training.reporting.pace import StepTimer, duration
from rosacea_model.training.reporting.probe import s_per_kimg
from rosacea_model.training.state import TrainState
from rosacea_model.training.step import Passes
from rosacea_serving.models.shelf import Shelf

from .runs import Squares, equal, smoke
from .runs import one_thread as one_thread  # for every test here

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def in_the_call(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt the run in the midst of drawing for the `number`th time, counted from 1."""
    draw, calls = grids.draw, []

    def interrupted(*arguments: Any, **options: Any) -> Tensor:
        calls.append(number)
        if len(calls) == number:
            interrupt()
        return draw(*arguments, **options)

    monkeypatch.setattr(grids, "draw", interrupted)


def after(step: int) -> Callable[[TrainState], None]:
    return lambda state: interrupt() if int(state.step) == step else None


# What is interrupted => its options, and the kimg of what is left.
BEGINNING_DRAWS = 7  # two sheets, one of five columns, and what is compared
STOPS: dict[str, tuple[dict[str, Any], int, int, str]] = {
    "before the first step": ({}, 0, 0, "kimg-000000.000"),
    "the first step": ({}, 0, 1, "kimg-000000.008"),
    "the first look": ({"tick_kimg": 0.004}, 1, 0, "kimg-000000.008"),
    "0.3 kimg": ({"batch": 60, "batch_gpu": 60, "total_kimg": 1, "pl_weight": 0}, 0, 4, "kimg-000000.300"),
    "the first snapshot": ({"snap_kimg": 0.008}, BEGINNING_DRAWS + 1, 0, "kimg-000000.008"),
}


@pytest.mark.parametrize("name", STOPS)
def test_an_interrupted_run_leaves_a_model_that_can_be_served_and_says_where(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options, draw, step, kept = STOPS[name]
    if draw:
        in_the_call(draw, monkeypatch)
    elif not step:
        monkeypatch.setattr(RunReporter, "begin", lambda watch, state: interrupt())
    run, config = tmp_path / "run", smoke(100, **options)

    state = training_loop(config, Run(path=run, images=Squares(), after_step=after(step) if step else None))

    folder = run / "snapshots" / kept
    assert [path.name for path in (run / "snapshots").glob("kimg-*")] == [kept]
    assert f"stopped: `rosacea serve {folder}` serves what there is" in capsys.readouterr().out
    assert len(checkpoint.existing(run / "checkpoints")) == bool(int(state.step))
    (tmp_path / "shelf").mkdir()
    (file,) = Shelf(tmp_path / "shelf", None).load([folder], [])
    (image,) = Engine.load(file.path).render([FaceSample(seed=1)])
    wanted = grids.to_levels(grids.draw(state.G_ema, range(1, 2), None))[0]
    assert np.abs(image.astype(int) - wanted).max() <= 1


def test_a_run_goes_on_from_where_it_was_interrupted_in_its_first_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_call(3, monkeypatch)
    training_loop(smoke(2), Run(path=tmp_path, images=Squares()))
    monkeypatch.undo()

    state = training_loop(smoke(2), Run(path=tmp_path, images=Squares(), resume=True))

    assert int(state.step) == 2


def test_before_the_first_step_the_run_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    draw = Passes.generator

    def noted(*arguments: Any) -> Any:
        told.append(capsys.readouterr().out)
        return draw(*arguments)

    monkeypatch.setattr(Passes, "generator", noted)
    run = Run(path=tmp_path, images=Squares(classes=2), classes=("small", "large"))
    training_loop(smoke(1, label_width=2, mirror=True), run)

    for line in (
        r"data: 12 images of 16 px, RGB, shown flipped as well: 24; 2 classes: small, large$",
        r"device: cpu, float32, 1 threads$",
        r"networks: generator \d\.\d\d M, discriminator \d\.\d\d M parameters, 2 mapping layers$",
        r"steps: 1 of 4 images, in 1 micro batches of 4$",
        r"memory: about \d\.\d GB expected$",
        r"roughly: \S+ s a kimg, \S+ \w+ for 0\.004 kimg; better after ten steps$",
    ):
        assert re.search("^" + line, told[0], re.MULTILINE), told[0]


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def paced(clock: Clock, **options: Any) -> StepTimer:
    begun = datetime(2026, 1, 1, 12)
    return StepTimer(smoke(1, **options), clock=clock, now=lambda: begun)


def walk(pace: StepTimer, clock: Clock, seconds: float) -> None:
    pace.begin()
    clock.time += seconds
    pace.end()


def test_after_ten_steps_there_is_an_estimate_and_it_leaves_the_first_step_out() -> None:
    clock = Clock()
    pace = paced(clock, total_kimg=1)
    for number in range(10):
        assert pace.estimate(0) == []
        walk(pace, clock, 1.0 if number else 5.0)

    assert pace.estimate(0.04) == [
        "estimate after 10 steps: 250 s a kimg, 4 min for what is left of 1 kimg, until 2026-01-01 12:04"
    ]
    assert pace.estimate(0.04) == [], "once"


def test_where_steps_are_slow_the_estimate_comes_sooner_and_days_are_called_days() -> None:
    clock = Clock()
    pace = paced(clock, total_kimg=1000)
    walk(pace, clock, 20.0)

    first, warning = pace.estimate(0.004)

    assert first.startswith("estimate after 1 step: 5e+03 s a kimg, 57.9 days for what is left of 1000 kimg, until 20")
    assert warning.startswith("warning: that is 57.9 days on this machine: fewer --kimg")


def test_from_the_estimate_on_there_is_a_line_at_intervals() -> None:
    clock = Clock()
    pace = paced(clock, total_kimg=1)
    assert pace.line(0, 60) is None
    for _ in range(10):
        walk(pace, clock, 2.0)
    pace.estimate(0.04)
    assert pace.line(0.04, 60) is None
    clock.time += 60

    assert pace.line(0.04, 60) == "at 0.040 of 1 kimg (4.0%), 500 s a kimg, 8 min left"
    assert pace.line(0.04, 60) is None


@pytest.mark.parametrize(("seconds", "text"), [(41, "41 s"), (720, "12 min"), (12240, "3.4 h"), (1.08e6, "12.5 days")])
def test_durations_have_the_unit_that_reads_best(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_rough_estimate_changes_nothing_that_training_uses() -> None:
    state, other = TrainState(smoke(1, freeze_d=2)), TrainState(smoke(1, freeze_d=2))

    assert s_per_kimg(state.config, state) > 0

    assert equal(state.save(), other.save()) == []
    for one, two in zip(state.D.parameters(), other.D.parameters(), strict=True):
        assert one.requires_grad == two.requires_grad and one.grad is None
