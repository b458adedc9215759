"""Estimates a run's duration before its first step, from the main passes on a few images."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from rosacea_model.training.config import TrainConfig
    from rosacea_model.training.state import TrainState

WARM_S = 2.0  # a first go that took less is mostly warming up


def s_per_kimg(config: TrainConfig, state: TrainState) -> float:
    """Estimated seconds for a thousand real images. Leaves all training state unchanged."""
    seconds = _image_s(config, state, 1)
    if seconds < WARM_S:
        seconds = _image_s(config, state, min(config.batch_gpu, 8))
    return 1000 * seconds * _regularised(config)


def _regularised(config: TrainConfig) -> float:
    """Factor by which path lengths and R1 lengthen a step on average, each taken as one main pass (path lengths on part
    of the batch)."""
    path = 1.0 / (config.pl_batch_shrink * config.pl_interval) if config.pl_weight else 0.0
    r1 = 1.0 / config.r1_interval if config.gamma else 0.0
    return 1.0 + path + r1


def _image_s(config: TrainConfig, state: TrainState, images: int) -> float:
    begun = time.monotonic()
    z = torch.zeros(images, config.z_dim, device=state.device)
    c = torch.zeros(images, config.label_width, device=state.device) if config.label_width else None
    G, D = state.G, state.D  # noqa: N806  # the field's names
    parameters = [*G.parameters(), *D.parameters()]
    needed = [parameter.requires_grad for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        ws = G.mapping(z, c)[:, None].repeat(1, G.config.num_ws, 1)
        fake = G.synthesis(ws, G.synthesis.noises("const", images))
        torch.autograd.grad(D(fake, c).mean(), list(G.parameters()), allow_unused=True)
        value = D(fake.detach(), c).mean() - D(fake.detach(), c).mean()  # of fakes and reals
        torch.autograd.grad(value, list(D.parameters()), allow_unused=True)
    finally:
        for parameter, need in zip(parameters, needed, strict=True):
            parameter.requires_grad_(need)
    return (time.monotonic() - begun) / images
