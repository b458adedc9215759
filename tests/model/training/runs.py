"""Tiny runs for the tests of training: a data set, configs, and a process that trains and can be killed.

Usage:

    python runs.py '{"path": "...", "overrides": {...}, "kill_after": 3}'
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.distributed import distributed_c10d

from rosacea_model.training.config import TrainConfig, resolve

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from rosacea_model.training.state import TrainState

ROOT = Path(__file__).resolve().parents[3]
STEP_KIMG = 0.004  # batch 4


class Squares:
    """Bright squares on dark ground, of any colour and place; half of them small, which is the label."""

    def __init__(self, count: int = 12, resolution: int = 16, *, classes: int = 0) -> None:
        rng = np.random.default_rng(0)
        self.classes = classes
        self.images = rng.integers(0, 60, (count, 3, resolution, resolution)).astype(np.uint8)
        for number, image in enumerate(self.images):
            size = resolution // 4 if number % 2 else resolution // 2
            row, column = rng.integers(0, resolution - size, 2)
            image[:, row : row + size, column : column + size] = rng.integers(100, 255, (3, 1, 1))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        return self.images[index], self.label(index)

    def label(self, index: int) -> NDArray[np.float32]:
        return np.eye(self.classes, dtype=np.float32)[index % 2] if self.classes else np.zeros(0, np.float32)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks are slowed down by more. Test modules import this."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def smoke(steps: int, **overrides: Any) -> TrainConfig:
    """smoke-16 for so many steps, with everything that needs intervals switched on; saves only at the end."""
    width = overrides.pop("label_width", 0)
    return resolve(
        "smoke-16", {"total_kimg": steps * STEP_KIMG, "snap_kimg": 1000, **overrides}, resolution=16, label_width=width
    )


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that differ in at least one bit."""
    assert one.keys() == other.keys()
    return [name for name in one if not bool((one[name] == other[name]).all())]


def launch(path: Path, steps: int, *, processes: int = 1, **options: Any) -> subprocess.Popen[str]:
    """Train in another process (or several)."""
    task = json.dumps({"path": str(path), "steps": steps, **options})
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(torchrun if processes > 1 else []), __file__, task]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'model'}"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def train_in_process(path: Path, steps: int, *, processes: int = 1, **options: Any) -> tuple[int, str]:
    """Exit code and output of a run in another process."""
    started = launch(path, steps, processes=processes, **options)
    output, _ = started.communicate(timeout=240)
    return started.returncode, output


def commit(fault: str, state: TrainState) -> None:
    """Do to this process what the world does to it."""
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "raise":
        raise RuntimeError("the fault of the test")
    elif fault == "hang":
        time.sleep(3600)
    elif fault == "nan":
        state.D.get_parameter("b4.fc.weight").data[0, 0] = torch.nan
    elif fault == "full disk":
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
    else:
        raise ValueError(fault)


def main() -> None:
    from rosacea_model.training import checkpoint
    from rosacea_model.training.distributed import join
    from rosacea_model.training.loop import Run, training_loop
    from rosacea_model.training.reporting.observe import RunReporter, WrittenSnapshot

    task = json.loads(sys.argv[1])

    def after_step(state: TrainState) -> None:
        if task.get("announce"):
            print(f"step {int(state.step)}", flush=True)
            time.sleep(task.get("pause", 0))
        if int(state.step) == task.get("wait_after"):
            while not Path(task["wait_for"]).exists():
                time.sleep(0.01)
        if int(state.step) == task.get("hurry_after"):
            distributed_c10d._set_pg_timeout(timedelta(seconds=task["hurry_s"]))
        if int(state.step) == task.get("kill_after"):
            os.kill(os.getpid(), signal.SIGKILL)
        if int(state.step) == task.get("fault_after") and ranks.rank == task.get("fault_rank", 0):
            commit(task["fault"], state)

    snapshot = RunReporter.snapshot

    def slow_snapshot(watch: RunReporter, state: TrainState) -> WrittenSnapshot | None:
        time.sleep(task.get("slow_snapshot_s", 0))
        return snapshot(watch, state)

    RunReporter.snapshot = slow_snapshot  # type: ignore[method-assign, assignment]
    config = smoke(task["steps"], **task.get("overrides", {}))
    images = Squares(classes=task.get("classes", 0))
    with join("cpu", timeout_s=240) as ranks:
        run = Run(
            path=Path(task["path"]), images=images, ranks=ranks, resume=task.get("resume", False), after_step=after_step
        )
        state = training_loop(config, run)
        if task.get("dump"):
            checkpoint.write_tensors(Path(f"{task['dump']}.{ranks.rank}"), state.save())
    assert torch.get_num_threads() == config.threads


if __name__ == "__main__":
    main()
