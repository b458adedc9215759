"""Untrained generators from a seed, for serving, tests and benchmarks before anything is trained."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch

from .config import GeneratorConfig
from .files import weights
from .networks.generator import Generator
from .sample import check_seed, latents

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from .files.modelfile import ModelFile
    from .networks.generator import MappingNetwork

UNTRAINED = "untrained: drawn from a fixed seed"
AVERAGE_OVER = 1000  # latents that w_avg is the mean of


def demo_config() -> GeneratorConfig:
    """A small config that draws a face in about 30 ms on two CPU cores, and is otherwise realistic."""
    return GeneratorConfig(img_resolution=128, mapping_layers=2, channel_base=8192, channel_max=256)


PRESETS = {"demo": demo_config, "full": GeneratorConfig}


def fresh_model(folder: Path, config: GeneratorConfig, *, seed: int, name: str, note: str = UNTRAINED) -> ModelFile:
    """Write an untrained model: the same config and seed give the same digest.

    Its w_avg is the mean over AVERAGE_OVER latents, so that truncation has a centre to pull to.
    """
    check_seed("seed", seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = Generator(config)
    generator.mapping.w_avg.copy_(average_w(generator.mapping, config))
    return weights.save(folder, config, generator.state_dict(), name=name, note=note)


@torch.inference_mode()
def average_w(mapping: MappingNetwork, config: GeneratorConfig) -> Tensor:  # => [w_dim]
    """Mean intermediate latent of seeds 0 to 999, cycling through the classes if there are any."""
    # In float64, so that the order in which a machine adds does not reach the float32 result.
    exact = copy.deepcopy(mapping).double()
    z = torch.from_numpy(latents(range(AVERAGE_OVER), config.z_dim)).double()
    classes = np.arange(AVERAGE_OVER) % max(config.c_dim, 1)
    labels = torch.from_numpy(np.eye(config.c_dim)[classes]) if config.c_dim else None
    w: Tensor = exact(z, labels)
    return w.mean(dim=0).float()
