"""The `builtin` encoder: ships with the package, trained on phantoms alone. Its numbers are its own.

It ranks models of faces and notices what it was trained to notice; it is no substitute for a network that has seen
photographs, and no number of it can be compared with one in a paper.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load

from .network import DIMENSION, RESIZE, PhantomNet
from .pinned import read_pinned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .protocol import Levels

WEIGHTS_NAME = "builtin.safetensors"
SHA256 = "57f6c57e8d75a8b559bbfb38de65bf161fc37d6b8f3b1eb48ab30d8c7f090938"
MICRO_BATCH = 16  # images a pass, always: other sizes round differently


class BuiltinEncoder:
    """The shipped encoder, on the CPU or on `device`."""

    name, resize, dimension, comparable, unrounded = "builtin", RESIZE, DIMENSION, False, True

    def __init__(self, *, device: str = "cpu") -> None:
        data = read_pinned(Path(__file__).with_name(WEIGHTS_NAME), SHA256, "install the package anew")
        self.digest = SHA256
        self.network = PhantomNet()
        self.network.load_state_dict({name: tensor.float() for name, tensor in load(data).items()})
        self.network.eval().requires_grad_(False).to(device)

    @torch.inference_mode()
    def encode(self, images: Levels) -> NDArray[np.float32]:
        """Features [N, 128] of images [N, H, W, 3]."""
        device = self.network.mean.device
        found = np.empty((len(images), DIMENSION), np.float32)
        for start in range(0, len(images), MICRO_BATCH):
            part = np.asarray(images[start : start + MICRO_BATCH], np.float32)
            full = np.concatenate([part, np.zeros((MICRO_BATCH - len(part), *part.shape[1:]), np.float32)])
            levels = torch.from_numpy(full).to(device).permute(0, 3, 1, 2).contiguous()
            found[start : start + len(part)] = self.network(levels)[: len(part)].cpu().numpy()
        return found
