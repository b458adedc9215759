"""The engine: draws samples so that the bytes of one do not depend on the rest of the batch.

Libraries choose other kernels for other batch sizes, and other kernels round differently. So the engine always runs
the networks at one fixed batch size, the micro-batch of its runtime, and fills the last one up: 1 on a CPU, where
larger batches are no faster, and 8 on a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..memory import keep_freed_memory
from ..model import Model, load
from ..networks.generator import truncate
from ..sample import FaceSample, latents, noise_images
from .fingerprint import fingerprint
from .outputs import to_numbers, to_pixels
from .runtimes.choose import choose_runtime
from .stopwatch import Stopwatch

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
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.deterministic = True
            # TF32 keeps 10 bits of the mantissa: float32 blocks would leave the golden numbers by far.
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False
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
        return self._each(samples, lambda chosen, ws: list(map(to_numbers, ws)))

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
        with self._stopwatch:
            mapped = iter(self._in_micro_batches(self.runtime.map, rows))
        stacked = [self._assemble(sample, mapped) for sample in samples]
        shape = (0, self.config.num_ws, self.config.w_dim)
        return torch.stack(stacked) if stacked else torch.empty(shape, device=self.model.device)

    def _mapping_inputs(self, sample: FaceSample) -> list[tuple[Tensor, ...]]:
        if sample.w is not None or sample.ws is not None:
            return []
        z = latents([sample.seed], self.config.z_dim)[0] if sample.seed is not None else sample.z
        sources = [z, *latents([mix.seed for mix in sample.mixes], self.config.z_dim)]
        if self.config.c_dim == 0:
            return [(self._tensor(source),) for source in sources]
        return [(self._tensor(source), self._tensor(sample.label)) for source in sources]

    def _assemble(self, sample: FaceSample, mapped: Iterator[Tensor]) -> Tensor:  # => [num_ws, w_dim]
        num_ws = self.config.num_ws
        if sample.ws is not None:
            return self._tensor(sample.ws)
        if sample.w is not None:
            return self._tensor(sample.w).expand(num_ws, -1)

        def truncated(w: Tensor) -> Tensor:
            return truncate(w.expand(num_ws, -1), self.model.w_avg, sample.truncation_psi, sample.truncation_cutoff)

        ws = truncated(next(mapped)).clone()
        for mix in sample.mixes:
            ws[mix.first_row : mix.end_row] = truncated(next(mapped))[mix.first_row : mix.end_row]
        return ws

    def _render(self, samples: Sequence[FaceSample], ws: Tensor) -> list[NDArray[np.uint8] | RenderError]:
        noises = [self._noises(sample) for sample in samples]
        rows = [(row, *noise) for row, noise in zip(ws, noises, strict=True)]
        images = self._in_micro_batches(lambda batch, *noise: self.runtime.synthesize(batch, noise), rows)
        return list(map(to_pixels, images))

    def _noises(self, sample: FaceSample) -> list[Tensor]:  # a [1, R, R] for each layer
        synthesis = self.model.generator.synthesis
        if sample.noise_mode == "random":
            images = noise_images(sample.noise_seed, synthesis.noise_shapes())
            return [self._tensor(image)[None] for image in images]
        if sample.noise_mode == "none":
            return [torch.zeros(1, *shape, device=self.model.device) for shape in synthesis.noise_shapes()]
        return [noise[None] for noise in synthesis.noises("const", 1) if noise is not None]

    def _in_micro_batches(self, function: Callable[..., Tensor], rows: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
        results: list[Tensor] = []
        size = self.micro_batch
        for start in range(0, len(rows), size):
            chunk = list(rows[start : start + size])
            padded = chunk + chunk[:1] * (size - len(chunk))
            columns = [torch.stack(column) for column in zip(*padded, strict=True)]
            results.extend(function(*columns)[: len(chunk)])
        return results

    def _tensor(self, array: NDArray[np.float32] | None) -> Tensor:
        assert array is not None
        return torch.from_numpy(np.array(array, np.float32)).to(self.model.device)
