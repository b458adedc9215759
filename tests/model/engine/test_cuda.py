"""What the engine asks of CUDA, seen by a stand-in: there need be no GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from rosacea_model.engine import engine
from rosacea_model.engine.engine import Engine
from rosacea_model.engine.stopwatch import Stopwatch
from rosacea_model.engine.transfer import OnItsWay
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
        self.steps: list[str] = []

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

    def Event(self, enable_timing: bool = False) -> Any:  # noqa: N802 -- torch's name
        cuda = self

        class Event:
            reached = False

            def record(self) -> None:
                cuda.recorded.append(cuda.current)
                cuda.steps.append("record")

            def synchronize(self) -> None:
                cuda.steps.append("wait")
                self.reached = True

            def elapsed_time(self, other: Any) -> float:
                if not other.reached:
                    raise RuntimeError("CUDA error: device not ready")
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


class Somewhere:
    """A tensor, as far as a copy needs one."""

    shape, dtype = torch.Size([2]), torch.uint8

    def __init__(self, cuda: FakeCuda, device: str) -> None:
        self.cuda, self.device = cuda, torch.device(device)

    def copy_(self, source: Somewhere, *, non_blocking: bool) -> None:
        self.cuda.steps.append(f"copy from {source.device}{', go on' if non_blocking else ''}")

    def numpy(self) -> str:
        return "pixels"


def test_a_copy_from_a_gpu_is_waited_for_only_when_it_is_needed(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: list[bool] = []

    def empty(shape: object, *, dtype: object, pin_memory: bool) -> Somewhere:
        pinned.append(pin_memory)
        return Somewhere(cuda, "cpu")

    monkeypatch.setattr(torch, "empty", empty)
    source: Any = Somewhere(cuda, "cuda:3")
    copy = OnItsWay(source)

    assert cuda.steps == ["copy from cuda:3, go on", "record"]
    assert cuda.recorded == [3]
    assert pinned == [True]
    assert copy.wait() == "pixels"
    assert cuda.steps[2:] == ["wait"]
