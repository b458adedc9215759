"""A checkpoint is complete and verified, or absent; and a run directory has one trainer."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from rosacea_model.training import checkpoint
from rosacea_model.training.errors import CheckpointDamaged, RunBusy
from rosacea_model.training.loop import Run, training_loop
from rosacea_model.training.state import TrainState

from .runs import Squares, smoke, train_in_process
from .runs import one_thread as one_thread  # for every test here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

SAVER = """
import sys, torch
from pathlib import Path
from rosacea_model.training import checkpoint
folder = Path(sys.argv[1])
print("ready", flush=True)
for step in range(1, 10**6):
    checkpoint.write(folder, step, {"x": torch.full((2**20,), float(step))}, {})
    checkpoint.prune(folder, 2)
"""


def small(value: float = 1.0) -> dict[str, Tensor]:
    return {"a:x": torch.full((1000,), value), "b:n": torch.tensor(7), "c:s": torch.arange(5, dtype=torch.uint8)}


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    path = checkpoint.write(tmp_path, 3, small(), {"p": 0.25})

    found = checkpoint.read(path)

    assert (found.step, found.facts) == (3, {"p": 0.25})
    assert found.tensors.keys() == small().keys()
    for name, tensor in small().items():
        assert torch.equal(found.tensors[name], tensor)
        assert found.tensors[name].dtype == tensor.dtype


def test_a_whole_training_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    state = TrainState(smoke(1))
    saved = state.save()

    found = checkpoint.read(checkpoint.write(tmp_path, 0, saved, {}))

    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in saved.items())


@pytest.mark.parametrize("name", [checkpoint.TENSORS_NAME, checkpoint.MANIFEST_NAME])
def test_a_damaged_newest_checkpoint_is_told_and_the_one_before_is_taken(tmp_path: Path, name: str) -> None:
    for step in (1, 2, 3):
        checkpoint.write(tmp_path, step, small(step), {"p": 0.5})
    flip_a_bit(tmp_path / "step-00000003" / name)
    warnings: list[str] = []

    found = checkpoint.read_newest(tmp_path, warnings.append)

    assert found is not None
    assert found.step == 2
    (warning,) = warnings
    assert "step-00000003" in warning


def test_without_a_good_checkpoint_there_is_an_error_and_no_fresh_start(tmp_path: Path) -> None:
    training_loop(smoke(1), Run(path=tmp_path, images=Squares()))
    (path,) = checkpoint.existing(tmp_path / "checkpoints")
    flip_a_bit(path / checkpoint.TENSORS_NAME)

    with pytest.raises(CheckpointDamaged, match="none of 1 checkpoints can be trusted"):
        training_loop(smoke(2), Run(path=tmp_path, images=Squares(), resume=True))


def test_a_run_falls_back_over_a_damaged_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training_loop(smoke(2, snap_kimg=0.004), Run(path=tmp_path, images=Squares()))
    flip_a_bit(tmp_path / "checkpoints" / "step-00000002" / checkpoint.TENSORS_NAME)

    state = training_loop(smoke(2, snap_kimg=0.004), Run(path=tmp_path, images=Squares(), resume=True))

    assert int(state.step) == 2
    assert "warning: damaged checkpoint passed over" in capsys.readouterr().out
    assert checkpoint.is_good(tmp_path / "checkpoints" / "step-00000002"), "it must have been written anew"


def test_a_missing_file_is_damage(tmp_path: Path) -> None:
    path = checkpoint.write(tmp_path, 1, small(), {})
    (path / checkpoint.TENSORS_NAME).unlink()

    with pytest.raises(CheckpointDamaged, match=r"state\.safetensors: cannot be read"):
        checkpoint.read(path)


def test_another_format_is_refused_with_both_numbers(tmp_path: Path) -> None:
    path = checkpoint.write(tmp_path, 1, small(), {})
    manifest = path / checkpoint.MANIFEST_NAME
    content = json.loads(manifest.read_text())["content"] | {"format": 99}
    checkpoint._write_manifest(manifest, content)

    with pytest.raises(CheckpointDamaged, match="this version reads format 1, got format 99"):
        checkpoint.read(path)


def test_pruning_keeps_the_last_and_the_named(tmp_path: Path) -> None:
    for step in range(1, 7):
        checkpoint.write(tmp_path, step, small(), {})

    checkpoint.prune(tmp_path, 2, keep={"step-00000003"})

    assert [path.name[-1] for path in checkpoint.existing(tmp_path)] == ["3", "5", "6"]


@pytest.fixture
def file_limit() -> Iterator[None]:
    """Files beyond half a MiB cannot be written, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_last_checkpoint_whole_and_no_fragment(tmp_path: Path, file_limit: None) -> None:
    good = checkpoint.write(tmp_path, 1, small(), {})
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    with pytest.raises(OSError, match="File too large"):
        checkpoint.write(tmp_path, 2, {"x": torch.zeros(2**20)}, {})

    assert list(tmp_path.iterdir()) == [good]
    assert checkpoint.is_good(good)


def test_a_full_file_system_leaves_the_last_checkpoint_whole_and_no_fragment(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system can only be mounted by root; the file size limit was tested instead")
    try:
        good = checkpoint.write(tmp_path, 1, small(), {})

        with pytest.raises(OSError, match="No space left"):
            checkpoint.write(tmp_path, 2, {"x": torch.zeros(2**20)}, {})

        assert list(tmp_path.iterdir()) == [good]
        assert checkpoint.is_good(good)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize(("call", "what"), [(1, "tensors"), (2, "manifest"), (3, "names in the new folder")])
def test_an_error_of_fsync_is_told_and_no_checkpoint(
    call: int, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = checkpoint.write(tmp_path, 1, small(), {})
    monkeypatch.setattr(os, "fsync", failing_at(call))

    with pytest.raises(OSError, match="Input/output"):
        checkpoint.write(tmp_path, 2, small(), {})

    assert list(tmp_path.iterdir()) == [good], what


def test_an_error_of_the_last_fsync_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing_at(4))

    with pytest.raises(OSError, match="Input/output"):
        checkpoint.write(tmp_path, 1, small(), {})

    (path,) = tmp_path.iterdir()  # renamed already, and whole; only the name may not outlive a power cut
    assert checkpoint.is_good(path)


def failing_at(call: int) -> Callable[[int], None]:
    """An fsync that fails in the call of that number, counted from 1."""
    calls = itertools.count(1)

    def fsync(descriptor: int) -> None:
        if next(calls) == call:
            raise OSError(5, "Input/output error")

    return fsync


def kill_while_saving(run: Path, times: int) -> int:
    """Kill a process that saves without pause, each time at a random moment; how often something was left over."""
    folder = run / "checkpoints"
    rng = random.Random(0)
    fragments = 0
    for _ in range(times):
        saver = subprocess.Popen([sys.executable, "-c", SAVER, str(folder)], stdout=subprocess.PIPE)
        assert saver.stdout is not None
        saver.stdout.readline()
        time.sleep(rng.uniform(0.02, 0.2))
        saver.kill()
        saver.wait()
        saver.stdout.close()
        found = checkpoint.read_newest(folder, pytest.fail)
        if found is not None:
            assert bool((found.tensors["x"] == found.step).all())
        fragments += len(list(folder.glob(f"*{checkpoint.PART}")))
        checkpoint.sweep(run)
        assert not list(folder.glob(f"*{checkpoint.PART}"))
        for path in checkpoint.existing(folder):
            checkpoint._discard(path)
    return fragments


@pytest.mark.slow
def test_killed_savers_leave_only_whole_checkpoints(tmp_path: Path) -> None:
    kill_while_saving(tmp_path, 3)


@pytest.mark.long
def test_40_killed_savers_leave_only_whole_checkpoints(tmp_path: Path) -> None:
    assert kill_while_saving(tmp_path, 40) > 0, "no kill hit a save: the test proves nothing"


@pytest.mark.slow
def test_a_second_trainer_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    with checkpoint.run_lock(tmp_path):
        code, output = train_in_process(tmp_path, 1)

    assert code != 0
    assert f"RunBusy: {tmp_path}: the process {os.getpid()} trains here" in output


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    def hold(path: str) -> None:
        with checkpoint.run_lock(Path(path)):
            os.kill(os.getpid(), signal.SIGKILL)

    holder = multiprocessing.get_context("fork").Process(target=hold, args=(str(tmp_path),))
    holder.start()
    holder.join()
    assert (tmp_path / checkpoint.LOCK_NAME).read_text() == str(holder.pid)

    with checkpoint.run_lock(tmp_path):
        assert (tmp_path / checkpoint.LOCK_NAME).read_text() == str(os.getpid())
        with pytest.raises(RunBusy), checkpoint.run_lock(tmp_path):
            pass


def test_a_start_sweeps_what_killed_runs_left(tmp_path: Path) -> None:
    for name in ("checkpoints/step-00000009.77.part", "checkpoints/step-00000003.old.part", "snapshots/kimg-1"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("snapshots/kimg-1/generator.safetensors.77.part", "snapshots/best.json.77.part", "train.json.9.part"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "fakes-000000.004.png.77.part").write_bytes(b"half")
    (tmp_path / "train.json").write_text(smoke(1).to_json())

    training_loop(smoke(1), Run(path=tmp_path, images=Squares()))

    assert not list(tmp_path.rglob("*.part"))


def test_a_start_leaves_what_others_put_into_the_run(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(smoke(1).to_json())
    theirs = [
        "film.mp4.part",
        "notes.77.part",
        "checkpoints/backup.part",
        "snapshots/train.json.77.part",
        "mine/step-00000009.77.part",
        "grids/fakes.png.part",
    ]
    for name in theirs:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"theirs")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "model.json.77.part").write_bytes(b"theirs")
    (tmp_path / "snapshots" / "kimg-9").symlink_to(tmp_path / "elsewhere")

    checkpoint.sweep(tmp_path)

    assert [name for name in [*theirs, "elsewhere/model.json.77.part"] if not (tmp_path / name).exists()] == []


def test_a_folder_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "film.mp4.part").write_bytes(b"theirs")

    with pytest.raises(ValueError, match=r"holds files and is not a run \(no train\.json in it\)"):
        training_loop(smoke(1), Run(path=tmp_path, images=Squares()))

    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4.part"]


@pytest.mark.parametrize("text", ["{}", "{half", "[]", '{"batch": "many"}', '{"compilerOptions": {}}'])
def test_a_config_that_is_damaged_or_of_something_else_is_refused_by_its_path(tmp_path: Path, text: str) -> None:
    (tmp_path / "train.json").write_text(text)

    with pytest.raises(ValueError, match=rf"^{tmp_path / 'train.json'}: not the config of a run"):
        training_loop(smoke(1), Run(path=tmp_path, images=Squares(), resume=True))

    assert [path.name for path in tmp_path.iterdir()] == ["train.json"]
