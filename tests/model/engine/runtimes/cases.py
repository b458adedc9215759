"""Small untrained networks of every form that a configuration allows."""

from __future__ import annotations

from typing import Any

import torch

from rosacea_model import GeneratorConfig
from rosacea_model.networks.generator import Generator

SMALL: dict[str, Any] = {"z_dim": 12, "w_dim": 16, "mapping_layers": 3, "channel_base": 512, "channel_max": 24}
CONFIGS: dict[str, dict[str, Any]] = {
    "skip": {"img_resolution": 32},
    "large": {"img_resolution": 128},
    "orig": {"img_resolution": 32, "architecture": "orig"},
    "resnet": {"img_resolution": 32, "architecture": "resnet"},
    "unbounded": {"img_resolution": 16, "conv_clamp": None},
    "bounded": {"img_resolution": 16, "conv_clamp": 0.4},
    "bounded resnet": {"img_resolution": 16, "conv_clamp": 0.4, "architecture": "resnet"},
    "grey": {"img_resolution": 16, "img_channels": 1},
    "with alpha": {"img_resolution": 8, "img_channels": 4},
    "odd channels": {"img_resolution": 16, "channel_base": 176, "channel_max": 13},
    "wide": {"img_resolution": 8, "channel_base": 2048, "channel_max": 256},
    "conditional": {"img_resolution": 8, "c_dim": 3},
}


def build(**given: Any) -> Generator:
    """Untrained networks of which every parameter shows."""
    torch.manual_seed(1)
    generator = Generator(GeneratorConfig(**{**SMALL, **given})).eval().requires_grad_(False)
    for name, parameter in generator.named_parameters():
        if name.endswith(("noise_strength", "bias")):
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return generator


def inputs(generator: Generator) -> tuple[torch.Tensor, list[torch.Tensor]]:
    config = generator.config
    ws = torch.randn(1, config.num_ws, config.w_dim)
    return ws, [torch.randn(1, 1, *shape) for shape in generator.synthesis.noise_shapes()]
