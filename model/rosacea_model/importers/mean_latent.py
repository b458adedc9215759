"""Computes the missing mean of w of a checkpoint from 10,000 mapped latents, as rosinality's generate.py does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..networks.generator import MappingNetwork

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ..config import GeneratorConfig

COUNT = 10_000
NOTE = f"w_avg was not in the checkpoint: it is the mean of {COUNT:,} mapped latents (RandomState(0))"


@torch.no_grad()
def mean_latent(config: GeneratorConfig, tensors: Mapping[str, Tensor]) -> Tensor:  # => [w_dim]
    """Mean w of fixed latents, cycling through the classes."""
    mapping = MappingNetwork(config)
    prefix = "mapping."
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    mapping.load_state_dict({**own, "w_avg": torch.zeros(config.w_dim)})
    z = torch.from_numpy(np.random.RandomState(0).randn(COUNT, config.z_dim).astype(np.float32))
    c = torch.eye(config.c_dim)[torch.arange(COUNT) % config.c_dim] if config.c_dim else None
    ws: Tensor = mapping(z, c)
    return ws.double().mean(dim=0).float()
