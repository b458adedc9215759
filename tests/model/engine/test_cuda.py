"""What the engine asks of CUDA, seen by a stand-in: there need be no GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from rosacea_model.engine import engine
from rosacea_model.engine.engine import Engine
from rosacea_model.engine.stopwatch import Stopwatch
from rosacea_model.fresh import fresh_model
from rosacea_model.model import load

from ..files.test_contents import CONFIG

if TYPE_CHECKING:
    from pathlib import Path


class FakeCuda:
    """Has eight GPUs, of which one is current. An event stays with the GPU that was current when it was recorded."""

    def __init__(self) -> None:
        self.current = 0
        self.recorded: list[int] = []

    def set_device(self, device: torch.device) -> None:
        self.current = device.index

    def device(self, device: torch.device) -> Any:
        cuda = self

        class Guard:
            def __enter__(self) -> None:
                self.before, cuda.current = cuda.current, device.index

            def __exit__(self, *exception: object) -> None:
                cuda.current = self.before

        return Guard()

    def Event(self, enable_timing: bool) -> Any:  # noqa: N802 -- torch's name
        cuda = self

        class Event:
            def record(self) -> None:
                cuda.recorded.append(cuda.current)

            def elapsed_time(self, other: Any) -> float:
                return 1500.0

        return Event()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    for name in ("set_device", "device", "Event"):
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
    return fake


def test_time_is_taken_on_the_gpu_that_works_whichever_is_current(cuda: FakeCuda) -> None:
    watch = Stopwatch(torch.device("cuda:3"))
    with watch:
        pass

    assert cuda.recorded == [3, 3]
    assert cuda.current == 0
    assert watch.seconds == 1.5


def test_a_worker_takes_its_gpu_before_it_allocates_anything(
    cuda: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current_at_load: list[int] = []

    def load_on(path: Path, *, device: str) -> Any:
        current_at_load.append(cuda.current)
        return load(path)

    monkeypatch.setattr(engine, "load", load_on)
    folder = fresh_model(tmp_path / "model", CONFIG, seed=0, name="small").path.parent
    Engine.load(folder, device="cuda:5")
    Engine.load(folder)

    assert current_at_load == [5, 5]
    assert cuda.current == 5, "the CPU changes nothing"
