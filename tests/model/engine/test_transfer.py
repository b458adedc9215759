"""What is copied between the host and the device, and when the host waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rosacea_model import FaceSample, OutputNotFinite
from rosacea_model.engine import Engine, engine, noise, outputs
from rosacea_model.engine.noise import noises
from rosacea_model.engine.outputs import Pixels
from rosacea_model.engine.runtimes.pytorch import plain_runtime
from rosacea_model.engine.transfer import OnItsWay, to_device
from rosacea_model.sample import noise_images

from .runtimes.cases import CONFIGS, build
from .runtimes.test_graphs import model

if TYPE_CHECKING:
    from collections.abc import Sequence

CPU = torch.device("cpu")


class Questions(TorchDispatchMode):
    """Notes what makes the host wait for a number of the device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.asked: list[str] = []

    def __torch_dispatch__(self, operation: Any, types: Any, inputs: Any = (), options: Any = None) -> Any:
        if operation._schema.name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal"):
            self.asked.append(operation._schema.name)
        return operation(*inputs, **(options or {}))


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every copy by its direction, and every wait."""
    steps: list[str] = []

    def there(arrays: Sequence[Any], device: torch.device) -> Any:
        steps.append(f"{len(arrays)} in")
        return to_device(arrays, device)

    class Back(OnItsWay):
        def __init__(self, tensor: torch.Tensor) -> None:
            super().__init__(tensor)
            steps.append(f"{len(tensor)} out")

        def wait(self) -> Any:
            steps.append("wait")
            return super().wait()

    for module in (engine, noise):
        monkeypatch.setattr(module, "to_device", there)
    monkeypatch.setattr(outputs, "OnItsWay", Back)
    return steps


def test_a_micro_batch_is_one_copy_there_and_one_back_and_the_next_is_drawn_before_the_wait(copies: list[str]) -> None:
    drawn = model("skip")
    layers = len(drawn.generator.synthesis.noise_shapes())
    samples = [FaceSample(seed=seed, noise_mode="random", noise_seed=seed) for seed in range(6)]
    four = Engine(drawn, plain_runtime(drawn, 4))

    with Questions() as questions:
        four.render(samples)

    noise_in = [f"{4 * layers} in", "4 out", f"{2 * layers} in", "2 out"]
    assert copies == ["6 in", *noise_in, "wait", "wait"]
    assert questions.asked == []


def test_constant_noise_and_none_are_never_copied(copies: list[str]) -> None:
    drawn = model("skip")
    Engine(drawn, plain_runtime(drawn, 4)).render([FaceSample(seed=1), FaceSample(seed=2, noise_mode="none")])

    assert copies == ["2 in", "0 in", "2 out", "wait"]


def test_latents_are_one_copy_back(copies: list[str]) -> None:
    drawn = model("skip")
    with Questions() as questions:
        Engine(drawn, plain_runtime(drawn, 2)).ws_each([FaceSample(seed=seed) for seed in range(5)])

    assert copies == ["5 in", "5 out", "wait"]
    assert questions.asked == []


def test_arrays_arrive_as_they_were() -> None:
    arrays = [np.random.RandomState(0).randn(*shape).astype(np.float32) for shape in [(3,), (2, 5), (1, 0), (4, 2)]]
    arrays.append(arrays[1].T)

    arrived = to_device(arrays, CPU)

    assert all(np.array_equal(tensor.numpy(), array) for tensor, array in zip(arrived, arrays, strict=True))
    arrived[0].zero_()
    assert arrays[0].any(), "not the memory of the caller"
    assert to_device([], CPU) == []


def test_each_sample_gets_its_own_noise() -> None:
    synthesis = build(**CONFIGS["skip"]).synthesis
    modes: list[Any] = ["random", "const", "none", "random"]
    samples = [FaceSample(noise_mode=mode, noise_seed=seed) for seed, mode in enumerate(modes)]

    const = synthesis.noises("const", 1)
    for layer, got in enumerate(noises(samples, synthesis)):
        first, last = (torch.from_numpy(noise_images(seed, synthesis.noise_shapes())[layer]) for seed in (0, 3))
        assert torch.equal(got[:, 0], torch.stack([first, const[layer], torch.zeros_like(first), last]))  # type: ignore[list-item]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_value_that_is_not_finite_spoils_its_image_alone(bad: float) -> None:
    images = torch.rand(3, 2, 4, 4) * 2 - 1
    want = [(image * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy() for image in images]
    images[1, 1, 3, 3] = bad

    outcomes: list[Any] = Pixels(images).wait()

    assert isinstance(outcomes[1], OutputNotFinite)
    assert np.array_equal(outcomes[0], want[0]) and np.array_equal(outcomes[2], want[2])
