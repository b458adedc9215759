"""A run that was interrupted ends exactly where an uninterrupted one does."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
import torch

from rosacea_model.training import checkpoint
from rosacea_model.training.config import TrainConfig
from rosacea_model.training.distributed import Ranks
from rosacea_model.training.feed import RankShare, feed
from rosacea_model.training.loop import Run, label_table, training_loop
from rosacea_model.training.reporting.records import read_best, read_stats
from rosacea_model.training.state import TrainState, by_part
from rosacea_model.training.step import Passes

from .runs import STEP_KIMG, Squares, equal, launch, train_in_process
from .runs import one_thread as one_thread  # for every test here
from .runs import smoke as smoke_config

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

INTERRUPTED_AFTER = 3
# Conditional, so that drawing labels matters; and at this target p goes another way when signs are forgotten.
OPTIONS = {"label_width": 2, "ada_interval": 2, "ada_target": 0.2}


def smoke(steps: int, **overrides: Any) -> TrainConfig:
    return smoke_config(steps, **OPTIONS, **overrides)


def faces() -> Squares:
    return Squares(classes=2)


PARTS = [
    "D", "D_opt", "G", "G_ema", "G_opt", "ada", "augment", "pl_mean", "progress", "rng.augment", "rng.label",
    "rng.mixing", "rng.noise", "rng.z", "sampler",
]  # fmt: skip
# Where the best snapshot is told apart from others: it reaches no weight.
OBSERVED = {"best"}


def final(path: Path) -> dict[str, Tensor]:
    found = checkpoint.read_newest(path / "checkpoints", pytest.fail)
    assert found is not None
    return found.tensors


def without_observations(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("best:")}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("uninterrupted")
    probabilities = set()
    run = Run(path=path, images=faces(), after_step=lambda state: probabilities.add(state.p))
    state = training_loop(smoke(8, tick_kimg=STEP_KIMG), run)
    assert len(probabilities) > 1, "ADA must have moved"
    assert state.pl_mean > 0, "path length regularisation must have run"
    assert int(state.step) == 8
    return path


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Killed with SIGKILL right after the third step was saved."""
    path = tmp_path_factory.mktemp("interrupted")
    code, output = train_in_process(
        path,
        8,
        kill_after=INTERRUPTED_AFTER,
        classes=2,
        overrides={**OPTIONS, "snap_kimg": INTERRUPTED_AFTER * STEP_KIMG},
    )
    assert code == -signal.SIGKILL, output
    return path


@pytest.mark.slow
def test_kill_minus_9_and_resume_continues_bit_for_bit(uninterrupted: Path, interrupted: Path) -> None:
    before = [path.name for path in checkpoint.existing(interrupted / "checkpoints")]
    assert before == [f"step-{INTERRUPTED_AFTER:08d}"]

    training_loop(smoke(8), Run(path=interrupted, images=faces(), resume=True))

    ended, wanted = final(interrupted), final(uninterrupted)
    assert equal(without_observations(ended), without_observations(wanted)) == []


def test_a_run_stopped_three_times_ends_the_same_and_tells_the_same(uninterrupted: Path, tmp_path: Path) -> None:
    for steps in (2, 3, 6, 8):
        training_loop(smoke(steps, tick_kimg=STEP_KIMG), Run(path=tmp_path, images=faces(), resume=True))

    assert equal(without_observations(final(tmp_path)), without_observations(final(uninterrupted))) == []
    assert figures(tmp_path) == figures(uninterrupted)


def figures(path: Path) -> list[dict[str, float]]:
    """What training said of itself, step by step, without clocks and looks at samples."""
    chosen = ("step", "G/loss", "D/loss", "r1_penalty", "path_length", "signs/real", "p", "pl_mean")
    return [{name: record[name] for name in chosen if name in record} for record in read_stats(path)]


def continued(start: dict[str, Tensor], without: str | None, steps: int) -> dict[str, Tensor]:
    """What becomes of a saved state in so many steps, with one part as a fresh start has it."""
    config = smoke(8)
    state = TrainState(config)
    saved = by_part(start)
    for name, part in state.parts().items():
        if name != without:
            part.load(saved[name])
    passes = Passes(state, Ranks(), label_table(faces()))
    batches = feed(
        faces(),
        seed=config.seed,
        mirror=config.mirror,
        share=RankShare(batch=config.batch),
        position=int(state.position),
    )
    for _ in range(steps):
        step = int(state.step)
        reals, real_c = next(batches)
        passes.generator(reals, real_c)
        if step % config.pl_interval == 0:
            passes.path_length(reals, real_c)
        passes.discriminator(reals, real_c)
        if step % config.r1_interval == 0:
            passes.r1(reals, real_c)
        passes.update_ema()
        state.step += 1
        state.nimg += config.batch
        state.position += config.batch
        assert state.ada is not None
        state.ada.adjust(int(state.step))
    return state.save()


@pytest.fixture(scope="module")
def third_step(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    path = tmp_path_factory.mktemp("third")
    training_loop(smoke(INTERRUPTED_AFTER), Run(path=path, images=faces()))
    return final(path)


@pytest.fixture(scope="module")
def expected(third_step: dict[str, Tensor]) -> dict[str, Tensor]:
    return continued(third_step, None, 5)


def test_the_whole_state_continues_as_the_loop_does(expected: dict[str, Tensor], uninterrupted: Path) -> None:
    assert equal(without_observations(expected), without_observations(final(uninterrupted))) == []


def test_each_part_of_the_state_is_left_out_once() -> None:
    assert TrainState(smoke(1)).parts().keys() == {*PARTS, *OBSERVED}


@pytest.mark.parametrize("part", PARTS)
def test_leaving_out_one_part_makes_the_run_another_one(
    part: str, third_step: dict[str, Tensor], expected: dict[str, Tensor]
) -> None:
    ended = continued(third_step, part, 5)

    if part == "G_ema":
        # The average reaches nothing else; it must differ itself.
        assert any(name.startswith("G_ema:") for name in equal(ended, expected))
        return
    wrong = [name for name in ended if name in expected and not torch.equal(ended[name], expected[name])]
    assert any(name.startswith(("G:", "D:")) for name in wrong), f"{part} could be left out of a checkpoint"


def test_the_least_distance_survives_a_restart(tmp_path: Path) -> None:
    training_loop(smoke(3), Run(path=tmp_path, images=faces()))
    best = read_best(tmp_path)
    known = []

    training_loop(
        smoke(4), Run(path=tmp_path, images=faces(), resume=True, after_step=lambda state: known.append(state.best))
    )

    assert 0 < float(known[0]) <= best["distance"]


def test_loading_does_not_alias_the_tensors_it_was_given(third_step: dict[str, Tensor]) -> None:
    kept = {name: tensor.clone() for name, tensor in third_step.items()}

    continued(third_step, None, 1)

    assert equal(third_step, kept) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_current_step_and_ends_with_exit_code_0(
    number: signal.Signals, tmp_path: Path, uninterrupted: Path
) -> None:
    sent = tmp_path.with_suffix(".sent")
    run = launch(tmp_path, 8, announce=True, wait_after=2, wait_for=str(sent), classes=2, overrides=OPTIONS)
    assert run.stdout is not None
    for line in run.stdout:
        if line == "step 2\n":
            run.send_signal(number)
            break
    sent.touch()
    output, _ = run.communicate(timeout=240)
    assert run.returncode == 0, output
    (saved,) = checkpoint.existing(tmp_path / "checkpoints")
    assert 2 <= checkpoint.read(saved).step <= 4

    training_loop(smoke(8), Run(path=tmp_path, images=faces(), resume=True))

    assert equal(without_observations(final(tmp_path)), without_observations(final(uninterrupted))) == []


def test_a_run_is_not_continued_by_accident(uninterrupted: Path) -> None:
    with pytest.raises(ValueError, match="pass --resume"):
        training_loop(smoke(8), Run(path=uninterrupted, images=faces()))


def test_a_run_is_not_continued_as_another_one(uninterrupted: Path) -> None:
    with pytest.raises(ValueError, match=r"gamma was 1 in this run, got 2"):
        training_loop(smoke(8, gamma=2), Run(path=uninterrupted, images=faces(), resume=True))


def test_other_circumstances_are_told_and_not_refused(
    third_step: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = smoke(INTERRUPTED_AFTER)
    (tmp_path / "train.json").write_text(config.to_json())
    facts = {"config": {}, "environment": {"torch": "1.0", "threads": "64"}}
    checkpoint.write(tmp_path / "checkpoints", INTERRUPTED_AFTER, third_step, facts)

    training_loop(config, Run(path=tmp_path, images=faces(), resume=True))

    output = capsys.readouterr().out
    assert "warning: torch was 1.0, is" in output
    assert "warning: threads was 64, is 1" in output


def test_the_config_is_on_disk_before_the_first_step(tmp_path: Path) -> None:
    config = smoke(1)
    seen = []

    training_loop(
        config,
        Run(
            path=tmp_path,
            images=faces(),
            after_step=lambda state: seen.append(TrainConfig.from_json((tmp_path / "train.json").read_text())),
        ),
    )

    assert seen == [config]
