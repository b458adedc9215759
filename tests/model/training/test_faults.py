"""What a run does when its world fails: exit codes, the reason in one line, and a last checkpoint that is good."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from rosacea_client.cli import explain
from rosacea_model.training import checkpoint
from rosacea_model.training.config import TrainConfig
from rosacea_model.training.errors import (
    CheckpointDamaged,
    LoaderDied,
    NoGoodCheckpoint,
    NotFinite,
    RunBusy,
    TrainingError,
    TransferMismatch,
)
from rosacea_model.training.loop import Run, training_loop
from rosacea_model.training.state import TrainState

from .runs import STEP_KIMG, Squares, equal, train_in_process
from .runs import one_thread as one_thread  # for every test here

pytestmark = pytest.mark.slow  # together they take half a minute

RUN_V1 = Path(__file__).resolve().parents[2] / "golden" / "run-v1"  # two steps, written by the first version
FAILED, NO_GOOD_CHECKPOINT = 1, 3
EVERY_OTHER_STEP = {"snap_kimg": 2 * STEP_KIMG}
TWO_RANKS = {"batch_gpu": 2, "mbstd_group": 2}


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    return shutil.copytree(RUN_V1, tmp_path / "run")


def steps_saved(run: Path) -> list[int]:
    """The steps of the checkpoints, all of which must be good; and nothing half written lies about."""
    assert not list(run.rglob(f"*{checkpoint.PART}"))
    return [checkpoint.read(path).step for path in checkpoint.existing(run / "checkpoints")]


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", pytest.param("raise", marks=pytest.mark.long), "hang"])
def test_a_rank_that_fails_ends_the_others_and_leaves_a_good_checkpoint(fault: str, tmp_path: Path) -> None:
    code, output = train_in_process(
        tmp_path,
        100_000,
        processes=2,
        overrides=TWO_RANKS | EVERY_OTHER_STEP,
        fault=fault,
        fault_after=3,
        fault_rank=1,
        hurry_after=3,
        hurry_s=5,
    )

    assert code != 0, output
    assert steps_saved(tmp_path) == [2]


@pytest.mark.long
def test_ranks_that_do_not_fail_end_well(tmp_path: Path) -> None:
    code, output = train_in_process(tmp_path, 4, processes=2, overrides=TWO_RANKS | EVERY_OTHER_STEP)

    assert code == 0, output
    assert steps_saved(tmp_path) == [2, 4]


def test_a_full_disk_ends_the_run_which_goes_on_when_there_is_room(tmp_path: Path) -> None:
    code, output = train_in_process(tmp_path, 8, overrides=EVERY_OTHER_STEP, fault="full disk", fault_after=3)

    assert code == FAILED
    assert "OSError: [Errno 27] File too large" in output
    assert steps_saved(tmp_path) == [2]

    again, output = train_in_process(tmp_path, 8, overrides=EVERY_OTHER_STEP, resume=True)
    assert again == 0, output
    assert steps_saved(tmp_path)[-1] == 8


def test_nan_ends_the_process_with_its_name_and_a_good_checkpoint(tmp_path: Path) -> None:
    code, output = train_in_process(tmp_path, 8, overrides=EVERY_OTHER_STEP, fault="nan", fault_after=3)

    assert code == FAILED
    assert "NotFinite: weight D.b4.fc.weight is not finite in step 3" in output
    assert steps_saved(tmp_path) == [2]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFinite("G/loss", "G/main", 3), FAILED),
        (CheckpointDamaged("x"), FAILED),
        (RunBusy("x"), FAILED),
        (LoaderDied("x"), FAILED),
        (TransferMismatch("x"), FAILED),
        (NoGoodCheckpoint("x"), NO_GOOD_CHECKPOINT),
    ],
)
def test_every_error_leaves_the_command_as_one_line_and_its_exit_code(error: TrainingError, code: int) -> None:
    assert explain(error) == (str(error), code)


@pytest.mark.parametrize(
    ("start", "command"), [("rosacea_client.cli", "train"), ("rosacea_model.training.__main__", "")]
)
def test_without_a_good_checkpoint_the_exit_code_is_3(start: str, command: str, old_run: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number, image in enumerate(Squares().images):
        Image.fromarray(image.transpose(1, 2, 0)).save(data / f"{number}.png")
    (old_run / "train.json").unlink()
    flip_a_bit(old_run / "checkpoints" / "step-00000002" / checkpoint.TENSORS_NAME)
    options = ["--data", str(data), "--outdir", str(old_run), "--preset", "smoke-16", "--device", "cpu"]
    train = [sys.executable, "-c", f"from {start} import main; main()", *command.split(), *options]
    before = subprocess.run([*train, "--dry-run"], check=True, capture_output=True, text=True)
    (old_run / "train.json").write_text(before.stdout)

    done = subprocess.run([*train, "--resume"], check=False, capture_output=True, text=True)

    assert "none of 1 checkpoints can be trusted" in done.stderr
    assert done.returncode == NO_GOOD_CHECKPOINT


def test_a_run_of_the_first_version_goes_on(old_run: Path) -> None:
    saved = checkpoint.read(old_run / "checkpoints" / "step-00000002")
    config = TrainConfig.from_json((old_run / "train.json").read_text())
    state = TrainState(config)
    state.load(saved.tensors)
    assert equal(state.save(), saved.tensors) == []

    longer = TrainConfig.from_json(config.to_json().replace('"total_kimg": 0.008', '"total_kimg": 0.012'))
    ended = training_loop(longer, Run(path=old_run, images=Squares(), resume=True))

    assert int(ended.step) == 3


def test_a_run_with_settings_of_a_later_version_is_refused_by_their_names(old_run: Path) -> None:
    entries = json.loads((old_run / "train.json").read_text())

    with pytest.raises(ValueError, match="holds lookahead, warmup, which this version does not know"):
        TrainConfig.from_json(json.dumps({**entries, "warmup": 1, "lookahead": 2}))


def test_a_checkpoint_that_lacks_a_part_is_refused_with_what_it_holds(old_run: Path) -> None:
    saved = checkpoint.read(old_run / "checkpoints" / "step-00000002")
    state = TrainState(TrainConfig.from_json((old_run / "train.json").read_text()))

    with pytest.raises(ValueError, match=r"must hold the parts \[.*'pl_mean'.*got"):
        state.load({name: tensor for name, tensor in saved.tensors.items() if not name.startswith("pl_mean:")})
