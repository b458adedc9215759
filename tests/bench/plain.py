"""Training in plain eager float32, written from the papers' definitions: what `bench_train` measures against.

Every sample convolves with weights of its own (a grouped convolution), filters are zero insertion, padding, depthwise
convolution and slicing, bias, activation, gain and clamp follow one another, everything is NCHW, and all gradients are
torch's own. Passes, losses, augmentation, optimiser and random draws are the package's.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch.nn.functional as F
from torch import Tensor

from rosacea_model.networks import ops
from rosacea_model.networks.discriminator import Conv
from rosacea_model.training.augment import geometry, pipe

if TYPE_CHECKING:
    from collections.abc import Iterator

DESCRIPTION = "plain eager fp32: grouped convolution per sample, separate filter and bias/act passes, NCHW"


@contextmanager
def plain_training() -> Iterator[None]:
    """Have the networks and the warp computed the plain way."""
    replaced: dict[str, Any] = {
        "cpu_layout": lambda x: x,
        "low_pass": low_pass,
        "upsample": upsample,
        "leaky_relu": leaky_relu,
        "bound": bound,
        "modulated_conv": modulated_conv,
    }
    with patch.multiple(ops, **replaced), patch.object(pipe, "warp", warp), patch.object(Conv, "forward", convolve):
        yield


def upfirdn(x: Tensor, kernel: Tensor, *, padding: tuple[int, int, int, int], up: int = 1, down: int = 1) -> Tensor:
    """Insert zeros, pad (left, right, top, bottom), filter every channel with kernel [h, w], drop pixels.

    `up` and `down` act along the axes in which the kernel is longer than 1.
    """
    batch, channels, height, width = x.shape
    down_y, down_x = (down if size > 1 else 1 for size in kernel.shape)
    up_y, up_x = (up if size > 1 else 1 for size in kernel.shape)
    spread = F.pad(x.reshape(batch, channels, height, 1, width, 1), (0, up_x - 1, 0, 0, 0, up_y - 1))
    padded = F.pad(spread.reshape(batch, channels, height * up_y, width * up_x), padding)
    weight = kernel.flip(0, 1).expand(channels, 1, -1, -1)
    return F.conv2d(padded, weight, groups=channels)[:, :, ::down_y, ::down_x]


def low_pass(x: Tensor, kernel: Tensor, *, padding: int, stride: int = 1, gain: float = 1.0) -> Tensor:
    return upfirdn(x, kernel * gain, padding=(padding,) * 4, down=stride)


def upsample(x: Tensor, kernel: Tensor) -> Tensor:
    return upfirdn(x, kernel * 4, padding=(2, 1, 2, 1), up=2)


def leaky_relu(x: Tensor, *, gain: float = 1.0, clamp: float | None = None) -> Tensor:
    x = F.leaky_relu(x, ops.LEAK) * (ops.ACTIVATION_GAIN * gain)
    return x if clamp is None else bound(x, clamp * gain)


def bound(x: Tensor, limit: float) -> Tensor:
    return x.clamp(-limit, limit)


def modulated_conv(
    x: Tensor, weight: Tensor, styles: Tensor, *, demodulate: bool = True, up_kernel: Tensor | None = None
) -> Tensor:
    """Karras et al. 2020, eq. 1 to 3, with the samples as groups."""
    batch, inputs, height, width = x.shape
    weights = weight[None] * styles[:, None, :, None, None]  # => [N, O, I, k, k]
    if demodulate:
        weights = weights * (weights.square().sum(dim=(2, 3, 4), keepdim=True) + ops.EPSILON).rsqrt()
    grouped = x.reshape(1, batch * inputs, height, width)
    if up_kernel is None:
        y = F.conv2d(grouped, weights.flatten(0, 1), padding=weight.shape[-1] // 2, groups=batch)
    else:
        y = F.conv_transpose2d(grouped, weights.transpose(1, 2).flatten(0, 1), stride=2, groups=batch)
        y = low_pass(y, up_kernel, padding=1, gain=4)
    return y.reshape(batch, -1, *y.shape[2:])


def convolve(self: Conv, x: Tensor) -> Tensor:
    """`Conv.forward`, with the bias as a pass of its own."""
    weight = self.weight / math.sqrt(self.weight[0].numel())
    size = weight.shape[-1]
    if self.down:
        x = low_pass(x, self.resample_filter, padding=1 if size == 1 else 2, stride=2 if size == 1 else 1)
    stride = 2 if self.down and size > 1 else 1
    y = F.conv2d(x, weight, stride=stride, padding=0 if self.down else size // 2)
    return y if self.bias is None else y + self.bias[:, None, None]


def warp(images: Tensor, matrices: Tensor, taps: Tensor) -> Tensor:
    """`geometry.warp` with reflection padding and filters along one axis after the other."""
    height, width = images.shape[2:]
    theta, left, top = geometry.placed(matrices, height, width)
    taps = taps.to(images)
    fine = F.pad(images, (left, left, top, top), mode="reflect")
    fine = upfirdn(fine, 2 * taps[None], padding=(6, 5, 0, 0), up=2)
    fine = upfirdn(fine, 2 * taps[:, None], padding=(0, 0, 6, 5), up=2)
    shape = [*images.shape[:2], 2 * (height + geometry.SPARE), 2 * (width + geometry.SPARE)]
    grid = F.affine_grid(theta.to(fine), shape, align_corners=False)
    fine = F.grid_sample(fine, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    fine = upfirdn(fine, taps.flip(0)[None], padding=(0, 0, 0, 0), down=2)
    return upfirdn(fine, taps.flip(0)[:, None], padding=(0, 0, 0, 0), down=2)
