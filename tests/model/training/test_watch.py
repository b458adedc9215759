"""What a run says of itself is about what it was shown, holds only numbers, and outlives a restart."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from rosacea_model.training import checkpoint, loss
from rosacea_model.training.ada import Leak
from rosacea_model.training.feed import to_unit
from rosacea_model.training.loop import Run, training_loop
from rosacea_model.training.reporting import grids, observe
from rosacea_model.training.reporting.observe import RunReporter
from rosacea_model.training.reporting.records import read_stats
from rosacea_model.training.reporting.report import write_report
from rosacea_model.training.state import TrainState

from .runs import STEP_KIMG, Squares, smoke
from .runs import one_thread as one_thread  # for every test here

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


class LitFromTheLeft(Squares):
    """Images alike but for noise, and none like its own mirror image."""

    def __init__(self) -> None:
        super().__init__(24)
        light = np.linspace(200, 50, 16).astype(int)
        noise = np.random.default_rng(0).integers(-20, 20, (24, 3, 16, 16))
        self.images = (light + noise).astype(np.uint8)


def test_under_mirror_fakes_are_compared_with_flipped_reals_too(tmp_path: Path) -> None:
    images = LitFromTheLeft()
    fakes = to_unit(torch.from_numpy(np.concatenate([images.images, images.images[..., ::-1]])))
    found = {}
    for mirror in (False, True):
        watch = RunReporter(tmp_path, smoke(1, mirror=mirror), images, None)
        found[mirror] = watch._compare(fakes)
        watch.finish()

    assert found[False][1].alarm, "or else the test proves nothing"
    assert not found[True][1].alarm
    assert found[True][0] < 0.01 < found[False][0]


def test_reals_are_kept_as_bytes(tmp_path: Path) -> None:
    watch = RunReporter(tmp_path, smoke(1), Squares(), None)

    assert watch.reals.dtype == torch.uint8
    assert torch.equal(watch.reals, torch.from_numpy(Squares().images))


def test_a_run_on_one_image_writes_json_that_everybody_can_read(tmp_path: Path) -> None:
    training_loop(smoke(1), Run(path=tmp_path, images=Squares(1)))

    lines = (tmp_path / "stats.jsonl").read_text().splitlines()
    assert len(lines) == 2
    for line in lines:
        json.loads(line, parse_constant=pytest.fail)


def test_what_is_not_finite_is_no_figure(tmp_path: Path) -> None:
    watch = RunReporter(tmp_path, smoke(1), Squares(), None)

    watch._write({"kimg": 0.5, "distance": float("nan"), "p": 0.1, "eta_s": float("inf")})

    assert read_stats(tmp_path) == [{"kimg": 0.5, "p": 0.1}]


@pytest.mark.parametrize("resumed", [False, True])
def test_a_leak_is_told_before_and_after_a_restart(
    resumed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = TrainState(smoke(1))

    def see(orientation: float) -> None:
        monkeypatch.setattr(observe, "leak", lambda reals, fakes: Leak(orientation=orientation, color=1))

    def watching() -> RunReporter:
        watch = RunReporter(tmp_path, smoke(1), Squares(), None)
        watch.begin(state)
        watch.first_look()
        return watch

    see(1)
    watch = watching()
    state.nimg += 4
    if resumed:
        watch = watching()
    see(9)
    watch.snapshot(state)

    assert "leak alarm (p 0.250): fakes vary 9.0 times as much" in capsys.readouterr().out


def failing(monkeypatch: pytest.MonkeyPatch, calls: set[int]) -> None:
    """Let the generator's loss be NaN in the calls of these numbers, counted from 1."""
    right, count = loss.generator_loss, iter(range(1, 1000))

    def sometimes(logits: Tensor) -> Tensor:
        return right(logits) * (torch.nan if next(count) in calls else 1)

    monkeypatch.setattr(loss, "generator_loss", sometimes)


def test_skipped_steps_are_counted_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, {2, 3})

    training_loop(smoke(4, bad_steps=2, tick_kimg=4 * STEP_KIMG), Run(path=tmp_path, images=Squares()))

    assert read_stats(tmp_path)[-1]["skipped"] == 2
    assert "warning: 2 optimiser steps were skipped" in capsys.readouterr().out


def test_a_pass_that_always_fails_is_not_forgiven_for_others_that_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, set(range(2, 100)))

    with pytest.raises(Exception, match=r"G/loss is not finite in step 3 \(G/main\)"):
        training_loop(smoke(8, bad_steps=2), Run(path=tmp_path, images=Squares()))

    told = json.loads((tmp_path / "not-finite.json").read_text())
    assert (told["step"], told["phase"]) == (3, "G/main")
    assert told["not_finite"][0] == "G/loss"
    assert "gradient of G.synthesis.b4.const" in told["not_finite"]


def stop_at(step: int) -> Any:
    def after_step(state: TrainState) -> None:
        if int(state.step) == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return after_step


def test_a_stop_saves_and_does_not_wait_for_drawing_and_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = training_loop(smoke(8), Run(path=tmp_path, images=Squares(), after_step=stop_at(2)))

    assert int(state.step) == 3
    assert [path.name for path in checkpoint.existing(tmp_path / "checkpoints")] == ["step-00000003"]
    assert [path.name for path in (tmp_path / "snapshots").glob("*")] == ["kimg-000000.012"], "kept, and not measured"
    assert [path.name for path in (tmp_path / "grids").glob("*")] == ["reals.png"]

    training_loop(smoke(4), Run(path=tmp_path, images=Squares(), resume=True))

    names = sorted(path.name for path in (tmp_path / "snapshots").glob("kimg-*"))
    assert names == ["kimg-000000.012", "kimg-000000.016"]


def test_a_checkpoint_is_saved_before_its_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []

    def note(watch: RunReporter, state: TrainState) -> None:
        saved.append(checkpoint.existing(tmp_path / "checkpoints"))

    monkeypatch.setattr(RunReporter, "snapshot", note)

    training_loop(smoke(2), Run(path=tmp_path, images=Squares()))

    assert [[path.name for path in paths] for paths in saved] == [["step-00000002"]]


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (4, 2), (12, 4), (20, 5), (32, 8), (31, 5), (60, 10)])
def test_a_sheet_has_no_empty_cell(count: int, columns: int, tmp_path: Path) -> None:
    assert grids.columns_for(count) == columns

    grids.save_sheet(tmp_path / "sheet.png", torch.ones(count, 3, 4, 4), columns)

    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (4 * columns, 4 * (count // columns))
        assert np.asarray(sheet).min() == 255


def test_the_report_explains_every_curve_and_lays_nothing_over_it(tmp_path: Path) -> None:
    training_loop(smoke(3, tick_kimg=STEP_KIMG), Run(path=tmp_path, images=Squares()))

    page = write_report(tmp_path).read_text()

    curves = re.findall(r"<figcaption>([^<]*)</figcaption><small>(.*?)</small><svg.*?</svg><p>([^<]*)</p>", page)
    assert len(curves) == page.count("<svg") == 9
    assert all(len(told.split()) > 10 and told.endswith(".") for _, _, told in curves)
    assert "tspan" not in page and "Generated at 0.012 kimg" in page
