"""A loaded generator: `load(path)`, `map(z)`, `synthesize(ws)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .classes import class_number
from .device import usable_device
from .errors import ModelRejected
from .files import weights
from .files.modelfile import ModelFile, verify
from .networks.generator import Generator, NoiseMode, truncate
from .sample import label_rule, one_hot

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike

    from .config import GeneratorConfig


def load(path: Path | str, *, device: str = "cpu") -> Model:
    """Verify a model folder (or its weights file) against its digest and load it.

    Raises ModelRejected for anything that is not exactly the file its manifest names, and ValueError for a device that
    torch does not have here.
    """
    usable_device(device)
    file = verify(path)
    tensors = weights.read(file)
    # Without memory at first, so that a config which does not fit its file costs none.
    with torch.device("meta"):
        generator = Generator(file.config)
    check_fit(generator, tensors, str(file.path))
    generator.to_empty(device=device)
    generator.load_state_dict(tensors)
    return Model(generator, file)


def check_fit(module: torch.nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Raise ModelRejected unless the tensors have exactly the names and shapes of the module's."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    actual = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != actual:
        wrong = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
        example = f"{wrong[0]} must have shape {expected.get(wrong[0])}, got {actual.get(wrong[0])}"
        raise ModelRejected(f"{source}: {len(wrong)} tensors do not fit the config, among them {example}")


class Model:
    """A loaded generator in evaluation mode. Input and output tensors are float32 on the model's device."""

    def __init__(self, generator: Generator, file: ModelFile) -> None:
        self.generator = generator.eval().requires_grad_(False)
        self.file = file

    @property
    def config(self) -> GeneratorConfig:
        return self.file.config

    @property
    def device(self) -> torch.device:
        return self.w_avg.device

    @property
    def w_avg(self) -> Tensor:  # => [w_dim]
        """The average intermediate latent, towards which truncation pulls."""
        return self.generator.mapping.w_avg

    @torch.inference_mode()
    def map(
        self,
        z: ArrayLike | Tensor,
        label: int | str | ArrayLike | Tensor | None = None,
        truncation_psi: float = 1,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """Map input latents z [N, z_dim] to intermediate latents ws [N, num_ws, w_dim].

        `label` is a class index, the name of a class or a vector [c_dim] for all rows, or vectors [N, c_dim]. A
        conditional model must have one; zeros stand for no class. Raises ValueError for wrong shapes, for a name that
        is none, and for a label of an unconditional model.
        """
        z = self._tensor(z)
        if z.ndim != 2 or z.shape[1] != self.config.z_dim:
            raise ValueError(f"z must have shape [N, {self.config.z_dim}], got {list(z.shape)}")
        w = self.generator.mapping(z, self._label(label, len(z)))
        ws = w[:, None].expand(-1, self.config.num_ws, -1)
        return truncate(ws, self.w_avg, truncation_psi, truncation_cutoff)

    @torch.inference_mode()
    def synthesize(self, ws: ArrayLike | Tensor, noise_mode: NoiseMode = "const") -> Tensor:
        """Draw images [N, ch, R, R] float32, nominally in [-1, 1] and not clamped, from ws [N, num_ws, w_dim].

        With noise_mode "random" the noise comes from torch's global generator; the engine draws it from a seed.
        """
        ws = self._tensor(ws)
        if ws.ndim != 3 or ws.shape[1:] != (self.config.num_ws, self.config.w_dim):
            rule = f"[N, {self.config.num_ws}, {self.config.w_dim}]"
            raise ValueError(f"ws must have shape {rule}, got {list(ws.shape)}")
        synthesis = self.generator.synthesis
        images: Tensor = synthesis(ws, synthesis.noises(noise_mode, len(ws)))
        return images

    def _tensor(self, values: ArrayLike | Tensor) -> Tensor:
        if not isinstance(values, Tensor):
            values = torch.from_numpy(np.array(values, np.float32))
        return values.to(self.device, torch.float32)

    def _label(self, label: int | str | ArrayLike | Tensor | None, batch: int) -> Tensor | None:
        width = self.config.c_dim
        if width == 0:
            if label is not None:
                raise ValueError("label must be None: the model is unconditional")
            return None
        if label is None:
            raise ValueError(label_rule(width))
        if isinstance(label, str):
            label = class_number(label, self.file.classes)
        if isinstance(label, int | np.integer):
            label = one_hot(int(label), width)
        vectors = self._tensor(label)
        if vectors.shape not in ((width,), (batch, width)):
            raise ValueError(f"label must have shape [{width}] or [{batch}, {width}], got {list(vectors.shape)}")
        return vectors.expand(batch, width)
