"""The engine: draws samples so that the bytes of one do not depend on the rest of the batch.

Libraries choose other kernels for other batch sizes, and other kernels round differently. So the engine always runs
the networks at one fixed batch size, the micro-batch, and fills the last one up: 1 on a CPU, where larger batches
are no faster, and `CUDA_MICRO_BATCH` on a GPU.
"""

from __future__ import annotations

import hashlib
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from .errors import OutputNotFinite, RenderError
from .model import Model, load
from .networks.generator import truncate
from .sample import FaceSample, latents, noise_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from .config import GeneratorConfig

CUDA_MICRO_BATCH = 8

Made = TypeVar("Made")


class Engine:
    """Draws samples with one model on one device."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.micro_batch = CUDA_MICRO_BATCH if model.device.type == "cuda" else 1
        self.fingerprint = fingerprint(model, self.micro_batch)
        self._mapping = Stopwatch(model.device)
        if model.device.type == "cuda":
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.deterministic = True
            # TF32 keeps 10 bits of the mantissa: float32 blocks would leave the golden numbers by far.
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False

    @classmethod
    def load(cls, path: Path, *, device: str = "cpu") -> Engine:
        """Verify and load a model folder. A GPU given as `device` becomes this process's current CUDA device."""
        if torch.device(device).type == "cuda":
            torch.cuda.set_device(torch.device(device))
        return cls(load(path, device=device))

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
    def mapping_seconds(self) -> float:
        """Seconds the mapping network took in the last call."""
        return self._mapping.seconds

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
        with self._mapping:
            mapped = iter(self._in_micro_batches(self.model.generator.mapping, rows))
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

        def synthesize(batch: Tensor, *noise: Tensor) -> Tensor:
            return self.model.generator.synthesis(batch, noise)  # type: ignore[no-any-return]

        return [to_pixels(image) for image in self._in_micro_batches(synthesize, rows)]

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
        for start in range(0, len(rows), self.micro_batch):
            chunk = list(rows[start : start + self.micro_batch])
            padded = chunk + chunk[:1] * (self.micro_batch - len(chunk))
            columns = [torch.stack(column) for column in zip(*padded, strict=True)]
            results.extend(function(*columns)[: len(chunk)])
        return results

    def _tensor(self, array: NDArray[np.float32] | None) -> Tensor:
        assert array is not None
        return torch.from_numpy(np.array(array, np.float32)).to(self.model.device)


class Stopwatch:
    """Measures time on a device without synchronising: on CUDA, read `seconds` once the results are there."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if device.type == "cuda" else []
        self._times = [0.0, 0.0]

    def __enter__(self) -> None:
        self._mark(0)

    def __exit__(self, *exception: object) -> None:
        self._mark(1)

    def _mark(self, place: int) -> None:
        self._times[place] = time.perf_counter()
        if self._events:
            with torch.cuda.device(self._device):  # an event belongs to the device that is current at its record
                self._events[place].record()

    @property
    def seconds(self) -> float:
        if self._events:
            return float(self._events[0].elapsed_time(self._events[1])) / 1000
        return self._times[1] - self._times[0]


def to_numbers(ws: Tensor) -> NDArray[np.float32] | RenderError:
    """Latents of one sample [num_ws, w_dim] as a numpy array; if one is not finite, OutputNotFinite is returned, not
    raised."""
    if not bool(torch.isfinite(ws).all()):
        return OutputNotFinite("the latent holds NaN or infinity")
    return ws.cpu().numpy()


def to_pixels(image: Tensor) -> NDArray[np.uint8] | RenderError:
    """One image [C, H, W] float32 => [H, W, C] uint8, by the reference's rule: floor of x * 127.5 + 128, clamped. If a
    value is not finite, OutputNotFinite is returned, not raised."""
    if not bool(torch.isfinite(image).all()):
        return OutputNotFinite("the image holds NaN or infinity")
    pixels = (image * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    return pixels.permute(1, 2, 0).contiguous().cpu().numpy()


def cpu_name() -> str:
    """CPU model name, since libraries choose kernels by it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def fingerprint(model: Model, micro_batch: int) -> str:
    """SHA-256 of everything besides the request that determines the exact bytes."""
    if model.device.type == "cuda":
        hardware = f"{torch.cuda.get_device_name(model.device)} cudnn {torch.backends.cudnn.version()}"
    else:
        hardware = f"{cpu_name()} {torch.backends.cpu.get_cpu_capability()} threads {torch.get_num_threads()}"
    parts = [model.file.digest, version("rosacea"), version("torch"), hardware, f"micro-batch {micro_batch}"]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
