"""The losses of StyleGAN2-ADA as pure functions; the loop weights, logs and applies them.

Non-saturating logistic loss (Goodfellow et al. 2014), R1 (Mescheder et al. 2018), path length regularisation
(Karras et al. 2020, section 3.2).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable


def generator_loss(fake_logits: Tensor) -> Tensor:  # [N, 1] => []
    """The generator's loss: fakes should be classified as real."""
    return F.softplus(-fake_logits).mean()


def fake_loss(fake_logits: Tensor) -> Tensor:  # [N, 1] => []
    """The discriminator's loss for fakes."""
    return F.softplus(fake_logits).mean()


def real_loss(real_logits: Tensor) -> Tensor:  # [N, 1] => []
    """The discriminator's loss for reals."""
    return F.softplus(-real_logits).mean()


def r1_penalty(real_logits: Tensor, images: Tensor) -> Tensor:  # [N, 1], [N, C, H, W] => [N]
    """Squared gradient norm of the logits with respect to each real image (Mescheder et al. 2018, eq. 9).

    `images` requires grad and is the un-augmented input of the logits.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3))


def path_lengths(images: Tensor, ws: Tensor, noise: Tensor) -> Tensor:  # => [N]
    """Path length |J^T y| of each sample: how far an image moves when its latent does (Karras et al. 2020, eq. 4).

    images [N, C, H, W] made from ws [N, num_ws, w_dim], which requires grad; noise [N, C, H, W] ~ N(0, 1) / sqrt(H W).
    """
    (gradient,) = torch.autograd.grad((images * noise).sum(), ws, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()


def path_noise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random image noise for `path_lengths`."""
    height, width = images.shape[2:]
    noise = torch.randn(images.shape, generator=generator, device=generator.device)
    return noise.to(images.device) / math.sqrt(height * width)


def path_penalty(lengths: Tensor, mean_length: Tensor) -> Tensor:  # [N], [] => []
    """Mean squared deviation of path lengths from `mean_length`. Gradients reach both."""
    return (lengths - mean_length).square().mean()


def mix_styles(ws: Tensor, other: Callable[[], Tensor], probability: float, generator: torch.Generator) -> Tensor:
    """Style mixing (Karras et al. 2019, section 3.1): with some probability, rows from a random one on come from
    `other`.

    ws [N, num_ws, w_dim]; `other` gives more of the same, and is called only where it is needed.
    """
    draw = torch.rand([], generator=generator)
    cutoff = int(torch.randint(1, ws.shape[1], [], generator=generator))
    if float(draw) >= probability:
        return ws
    return torch.cat([ws[:, :cutoff], other()[:, cutoff:]], dim=1)
