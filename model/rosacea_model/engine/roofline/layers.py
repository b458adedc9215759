"""What each layer takes: times of its calls while images are drawn."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch

from ..runtimes.pytorch import torch_runtime
from .rates import now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import Tensor

    from ...model import Model
    from ..runtimes.runtime import Runtime

WARM_UP = 3
TOTAL = "total"
PARTS = ("conv0", "conv1", "torgb", "skip")


class Timer:
    """Seconds of every call, by the name of the layer."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same function with its time noted; a GPU is waited for before and after it."""

        def run(*inputs: Any) -> Any:
            start = now(self.device)
            result = call(*inputs)
            self.seconds[name].append(now(self.device) - start)
            return result

        return run

    def medians(self) -> dict[str, float]:
        """Median seconds of each layer, without the calls that warm it up."""
        return {name: statistics.median(seconds[WARM_UP:]) for name, seconds in self.seconds.items()}


def layer_seconds(model: Model, repeats: int) -> dict[str, float]:
    """Median seconds an image of each layer by its name, in the form in which the engine draws.

    `TOTAL` is measured apart, without a wait between layers.
    """
    runtime = torch_runtime(model)
    with torch.inference_mode():
        inputs = list(_inputs(model, runtime.micro_batch))
        whole, layers = Timer(model.device), Timer(model.device)
        draw = whole.timed(TOTAL, lambda: _draw(runtime, inputs))
        for _ in range(WARM_UP + repeats):
            draw()
        _time_layers(model, runtime, layers)
        mapping = layers.timed("mapping", runtime.map)
        for _ in range(WARM_UP + repeats):
            mapping(*inputs[0])
            _draw(runtime, inputs)
    return {name: seconds / runtime.micro_batch for name, seconds in (layers.medians() | whole.medians()).items()}


def _inputs(model: Model, batch: int) -> Iterator[Sequence[Tensor]]:
    """What the mapping network takes, and the noises."""
    widths = (model.config.z_dim, model.config.c_dim)
    yield [torch.randn(batch, width, device=model.device) for width in widths if width]
    shapes = model.generator.synthesis.noise_shapes()
    yield [torch.randn(batch, 1, *shape, device=model.device) for shape in shapes]


def _draw(runtime: Runtime, inputs: Sequence[Sequence[Tensor]]) -> Tensor:
    latents, noises = inputs
    return runtime.synthesize(runtime.map(*latents)[:, None].expand(-1, len(noises) + 1, -1), noises)


def _time_layers(model: Model, runtime: Runtime, timer: Timer) -> None:
    """Note the time of each layer of a runtime, which is of no other use from then on."""
    synthesis: Any = runtime.synthesize
    blocks: Iterable[Any] = synthesis.blocks
    for resolution, block in zip(model.config.block_resolutions, blocks, strict=True):
        for part in PARTS:
            layer, name = getattr(block, part, None), f"synthesis.b{resolution}.{part}"
            if layer is not None:
                setattr(block, part, timer.timed(name, layer))
