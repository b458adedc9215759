"""The engine: draws samples so that the bytes of one do not depend on the rest of the batch.

Libraries choose other kernels for other batch sizes, and other kernels round differently. So the engine always runs
the networks at one fixed batch size, the micro-batch of its runtime, and fills the last one up: 1 on a CPU, where
larger batches are no faster, and 8 on a GPU.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..memory import keep_freed_memory
from ..model import Model, load
from ..networks.generator import truncate
from ..sample import FaceSample, latents
from .fingerprint import fingerprint
from .noise import noises
from .outputs import Pixels, to_numbers
from .runtimes.choose import choose_runtime
from .runtimes.hardware import compute_repeatably
from .stopwatch import Stopwatch
from .transfer import to_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ..config import GeneratorConfig
    from ..engines import EngineName, Precision
    from ..errors import RenderError
    from .runtimes.runtime import Runtime

Made = TypeVar("Made")


class Engine:
    """Draws samples with one model on one device."""

    def __init__(self, model: Model, runtime: Runtime | None = None) -> None:
        """The runtime is torch in its fastest form unless another is given."""
        self.model = model
        self.runtime = runtime or choose_runtime(model)
        self.fingerprint = fingerprint(model.file.digest, self.runtime)
        self._stopwatch = Stopwatch(model.device)
        if model.device.type == "cuda":
            compute_repeatably()
        else:
            keep_freed_memory()

    @classmethod
    def load(
        cls, path: Path, *, device: str = "cpu", engine: EngineName = "auto", precision: Precision = "exact"
    ) -> Engine:
        """Verify and load a model folder. A GPU given as `device` becomes this process's current CUDA device.

        `engine` and `precision` are those of `choose_runtime`, and raise what it raises.
        """
        if torch.device(device).type == "cuda":
            torch.cuda.set_device(torch.device(device))
        model = load(path, device=device)
        return cls(model, choose_runtime(model, engine, precision))

    def free_networks(self) -> None:
        """Free the weights that the runtime has copies of. The engine draws as before; `model` maps and synthesizes no
        more."""
        if self.runtime.copies_weights:
            for parameter in self.model.generator.parameters():
                parameter.data = parameter.data.new_empty(0)

    @property
    def config(self) -> GeneratorConfig:
        return self.model.config

    @property
    def name(self) -> str:
        return self.model.file.name

    @property
    def digest(self) -> str:
        return self.model.file.digest

    @property
    def classes(self) -> tuple[str, ...]:
        return self.model.file.classes

    @property
    def micro_batch(self) -> int:
        """Samples that the networks always draw at once."""
        return self.runtime.micro_batch

    @property
    def mapping_seconds(self) -> float:
        """Seconds the mapping network took in the last call."""
        return self._stopwatch.seconds

    def render(self, samples: Sequence[FaceSample]) -> NDArray[np.uint8]:  # => [N, H, W, C]
        """Draw every sample; raises the error of the first bad one (ValueError or RenderError)."""
        outcomes = self.render_each(samples)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        size = self.config.img_resolution
        return np.array(outcomes, np.uint8).reshape(len(outcomes), size, size, self.config.img_channels)

    @torch.inference_mode()
    def render_each(self, samples: Sequence[FaceSample]) -> list[NDArray[np.uint8] | ValueError | RenderError]:
        """Draw each sample as [H, W, C] uint8, or return its error; one bad sample does not affect others."""
        return self._each(samples, self._render)

    @torch.inference_mode()
    def ws_each(self, samples: Sequence[FaceSample]) -> list[NDArray[np.float32] | ValueError | RenderError]:
        """Intermediate latents of each sample, [num_ws, w_dim] float32, or its error."""
        return self._each(samples, lambda chosen, ws: to_numbers(ws))

    def _each(
        self, samples: Sequence[FaceSample], make: Callable[[Sequence[FaceSample], Tensor], list[Made | RenderError]]
    ) -> list[Made | ValueError | RenderError]:
        outcomes: list[Made | ValueError | RenderError | None] = [None] * len(samples)
        good = []
        for index, sample in enumerate(samples):
            try:
                sample.check(self.config)
                good.append(index)
            except ValueError as error:
                outcomes[index] = error
        chosen = [samples[index] for index in good]
        for index, outcome in zip(good, make(chosen, self._all_ws(chosen)), strict=True):
            outcomes[index] = outcome
        return outcomes  # type: ignore[return-value]

    def ws(self, samples: Sequence[FaceSample]) -> Tensor:  # => [N, num_ws, w_dim]
        """Intermediate latents of samples, with their truncation and style mixing."""
        for sample in samples:
            sample.check(self.config)
        with torch.inference_mode():
            return self._all_ws(samples)

    def _all_ws(self, samples: Sequence[FaceSample]) -> Tensor:
        # Every z that is needed, those of the style mixes included, goes through the mapping network in one sequence.
        rows = [row for sample in samples for row in self._mapping_inputs(sample)]
        given = [array for sample in samples for array in (sample.w, sample.ws) if array is not None]
        moved = iter(to_device([*chain.from_iterable(rows), *given], self.model.device))
        inputs = [tuple(next(moved) for _ in row) for row in rows]
        with self._stopwatch:
            mapped = iter(self._map(inputs))
        stacked = [self._assemble(sample, mapped, moved) for sample in samples]
        shape = (0, self.config.num_ws, self.config.w_dim)
        return torch.stack(stacked) if stacked else torch.empty(shape, device=self.model.device)

    def _mapping_inputs(self, sample: FaceSample) -> list[tuple[NDArray[np.float32], ...]]:
        if sample.w is not None or sample.ws is not None:
            return []
        z = latents([sample.seed], self.config.z_dim)[0] if sample.seed is not None else sample.z
        sources = [z, *latents([mix.seed for mix in sample.mixes], self.config.z_dim)]
        label = () if self.config.c_dim == 0 else (sample.label,)
        return [(source, *label) for source in sources]

    def _assemble(
        self, sample: FaceSample, mapped: Iterator[Tensor], given: Iterator[Tensor]
    ) -> Tensor:  # => [num_ws, w_dim]
        num_ws = self.config.num_ws
        if sample.ws is not None:
            return next(given)
        if sample.w is not None:
            return next(given).expand(num_ws, -1)

        def truncated(w: Tensor) -> Tensor:
            return truncate(w.expand(num_ws, -1), self.model.w_avg, sample.truncation_psi, sample.truncation_cutoff)

        ws = truncated(next(mapped)).clone()
        for mix in sample.mixes:
            ws[mix.first_row : mix.end_row] = truncated(next(mapped))[mix.first_row : mix.end_row]
        return ws

    def _render(self, samples: Sequence[FaceSample], ws: Tensor) -> list[NDArray[np.uint8] | RenderError]:
        # A GPU is asked for everything before the first wait, so it draws while noise is made and images are taken.
        drawn = [self._draw(samples[chunk], ws[chunk]) for chunk in self._chunks(len(samples))]
        return [outcome for pixels in drawn for outcome in pixels.wait()]

    def _draw(self, samples: Sequence[FaceSample], ws: Tensor) -> Pixels:
        noise = noises(samples, self.model.generator.synthesis)
        images = self.runtime.synthesize(self._filled(ws.clone()), list(map(self._filled, noise)))
        return Pixels(images[: len(samples)])

    def _map(self, rows: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
        mapped: list[Tensor] = []
        for chunk in self._chunks(len(rows)):
            columns = [self._filled(torch.stack(column)) for column in zip(*rows[chunk], strict=True)]
            mapped.extend(self.runtime.map(*columns)[: len(rows[chunk])])
        return mapped

    def _chunks(self, count: int) -> list[slice]:
        return [slice(start, start + self.micro_batch) for start in range(0, count, self.micro_batch)]

    def _filled(self, rows: Tensor) -> Tensor:
        """As many rows as the micro-batch has: copies of the first fill it up."""
        missing = self.micro_batch - len(rows)
        return torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])]) if missing else rows
