"""The operations of StyleGAN2 as pure functions on native torch operations (Karras et al. 2020, sections 2 and 3)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

EPSILON = 1e-8
LEAK = 0.2
ACTIVATION_GAIN = math.sqrt(2)


def resample_filter() -> Tensor:  # => [4, 4]
    """The separable binomial low-pass [1, 3, 3, 1], normalised to sum 1."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / 64


def normalize_second_moment(x: Tensor) -> Tensor:  # [N, D] => [N, D]
    """Scale each row to unit mean square."""
    return x * (x.square().mean(dim=1, keepdim=True) + EPSILON).rsqrt()


def cpu_layout(x: Tensor) -> Tensor:
    """Convert to channels-last memory layout on a CPU, which most convolutions there prefer; values stay."""
    return x if x.is_cuda else x.contiguous(memory_format=torch.channels_last)


class _Filter(torch.autograd.Function):
    """Depthwise convolution with a constant kernel. Its gradient is another such convolution, or `_Spread` with a
    stride.

    torch's own gradient of a depthwise convolution is slow on a CPU, and the second one is a loop over the channels.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, padding: int, stride: int) -> Tensor:
        ctx.kernel, ctx.padding, ctx.stride = kernel, padding, stride
        return F.conv2d(x, _depthwise(kernel, x), padding=padding, stride=stride, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.stride == 1:
            padding = len(ctx.kernel) - 1 - ctx.padding
            return _filter(*gradients, ctx.kernel.flip(0, 1), padding, 1), None, None, None
        return _spread(*gradients, ctx.kernel, ctx.padding, ctx.stride), None, None, None


class _Spread(torch.autograd.Function):
    """The transpose of `_Filter`: with a stride, insert zeros and filter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, padding: int, stride: int) -> Tensor:
        ctx.kernel, ctx.padding, ctx.stride = kernel, padding, stride
        return F.conv_transpose2d(x, _depthwise(kernel, x), padding=padding, stride=stride, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _filter(*gradients, ctx.kernel, ctx.padding, ctx.stride), None, None, None


_filter: Callable[..., Tensor] = _Filter.apply
_spread: Callable[..., Tensor] = _Spread.apply


def _depthwise(kernel: Tensor, x: Tensor) -> Tensor:
    return kernel.to(x.dtype).expand(x.shape[1], 1, -1, -1)


def low_pass(x: Tensor, kernel: Tensor, *, padding: int, stride: int = 1, gain: float = 1.0) -> Tensor:
    """Filter every channel of NCHW `x` with the same square kernel, a constant, zero-padded on all sides."""
    return _filter(x, kernel * gain, padding, stride)


def upsample(x: Tensor, kernel: Tensor) -> Tensor:  # [N, C, H, W] => [N, C, 2H, 2W]
    """Insert zeros and low-pass; the gain of 4 keeps the brightness."""
    return _spread(x, kernel * 4, 1, 2)


def conv_up(x: Tensor, weight: Tensor, kernel: Tensor) -> Tensor:
    """3x3 convolution to twice the resolution: stride-2 transposed convolution, then low-pass."""
    wide = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    return low_pass(wide, kernel, padding=1, gain=4)


def leaky_relu(x: Tensor, *, gain: float = 1.0, clamp: float | None = None) -> Tensor:
    """Leak at 0.2, scale by sqrt(2) x gain, keep within +/- clamp x gain."""
    x = F.leaky_relu(x, LEAK) * (ACTIVATION_GAIN * gain)
    return x if clamp is None else bound(x, clamp * gain)


def bound(x: Tensor, limit: float) -> Tensor:
    """Keep within +/- limit. The gradient of `hardtanh` is one pass over memory, that of `clamp` four."""
    return F.hardtanh(x, -limit, limit)


def modulated_conv(
    x: Tensor, weight: Tensor, styles: Tensor, *, demodulate: bool = True, up_kernel: Tensor | None = None
) -> Tensor:
    """Convolution whose weights are scaled per sample by `styles` (Karras et al. 2020, eq. 1 and 3).

    x [N, I, H, W], weight [O, I, k, k], styles [N, I] => [N, O, H, W], or [N, O, 2H, 2W] with `up_kernel`.
    The scales move to the input and the output of one shared convolution, which is the same thing.
    """
    if demodulate and x.dtype == torch.float16:
        weight, styles = tamed_weight(weight), tamed_styles(styles)
    scaled = x * styles.to(x.dtype)[:, :, None, None]
    kernel = weight.to(x.dtype)
    if up_kernel is None:
        y = F.conv2d(scaled, kernel, padding=kernel.shape[-1] // 2)
    else:
        y = conv_up(scaled, kernel, up_kernel)
    if demodulate:
        y = y * demodulation(weight, styles).to(y.dtype)[:, :, None, None]
    return y


def demodulation(weight: Tensor, styles: Tensor) -> Tensor:  # [O, I, k, k], [N, I] => [N, O]
    """Demodulation factors that restore unit variance of each output channel (Karras et al. 2020, eq. 3)."""
    energy = weight.square().sum(dim=(2, 3))
    return (styles.square() @ energy.t() + EPSILON).rsqrt()


def tamed_weight(weight: Tensor) -> Tensor:  # [O, I, k, k]
    """Weights with a scale that demodulation cancels, so that float16 does not overflow on the way."""
    return weight / (math.sqrt(weight[0].numel()) * weight.abs().amax(dim=(1, 2, 3), keepdim=True))


def tamed_styles(styles: Tensor) -> Tensor:  # [N, I]
    """Styles with such a scale, one for each sample."""
    return styles / styles.abs().amax(dim=1, keepdim=True)
