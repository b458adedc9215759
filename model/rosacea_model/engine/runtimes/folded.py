"""Mapping and synthesis of one image at a time on a CPU, with all that depends on weights alone computed once.

The networks are those of `networks.generator` in another order of operations (Karras et al. 2020, section 2.2): styles,
demodulation and gains go into the weights of a layer where these are smaller than its maps, and else scale its input
and output; maps are channels-last, as oneDNN's convolutions want them; passes work in place.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F

from ...networks import ops
from .packed import PackedConv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ...networks.generator import (
        Linear,
        MappingNetwork,
        ResidualSkip,
        SynthesisBlock,
        SynthesisLayer,
        SynthesisNetwork,
        ToRGB,
    )

LAST = torch.channels_last
LARGEST_IN_PHASES = 64  # resolution; measured


class FoldedSynthesis:
    """Draws what a synthesis network draws, to float32 rounding, faster. It copies the weights: later changes of the
    network do not reach it."""

    def __init__(self, network: SynthesisNetwork) -> None:
        with torch.inference_mode():
            self.blocks = [_Block(block) for block in network.blocks()]

    def __call__(self, ws: Tensor, noises: Sequence[Tensor]) -> Tensor:
        """ws [1, num_ws, w_dim], a noise broadcastable to [1, 1, R, R] for each layer => image [1, ch, R, R]."""
        x: Tensor | None = None
        image: Tensor | None = None
        row = 0
        for block in self.blocks:
            count = block.num_layers
            x, image = block(x, image, ws[:, row : row + count + 1], noises[row : row + count])
            row += count
        return cast("Tensor", image)


class FoldedMapping:
    """Maps what a mapping network maps, to float32 rounding, faster; it copies the weights as well."""

    def __init__(self, network: MappingNetwork) -> None:
        with torch.inference_mode():
            self.embed = FoldedLinear(network.embed) if network.is_conditional else None
            # The activation's gain goes into the weights: leaky ReLU keeps positive factors.
            self.layers = [FoldedLinear(layer, ops.ACTIVATION_GAIN) for layer in network.layers()]

    def __call__(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """z [1, z_dim], c [1, c_dim] if the network is conditional => w [1, w_dim], not truncated."""
        x = ops.normalize_second_moment(z)
        if self.embed is not None:
            x = torch.cat([x, ops.normalize_second_moment(self.embed(cast("Tensor", c)))], dim=1)
        for layer in self.layers:
            x = F.leaky_relu_(layer(x), ops.LEAK)
        return x


class FoldedLinear:
    """Fully connected layer of equalised learning rate with its factors multiplied in."""

    def __init__(self, layer: Linear, gain: float = 1.0) -> None:
        scale = layer.lr_multiplier / math.sqrt(layer.weight.shape[1]) * gain
        self.weight = (layer.weight * scale).t().contiguous()
        self.bias = layer.bias * (layer.lr_multiplier * gain)

    def __call__(self, x: Tensor) -> Tensor:  # [1, inputs] => [1, outputs]
        return torch.addmm(self.bias, x, self.weight)


class _Layer:
    """Modulated 3x3 convolution, noise, bias and activation; doubles the resolution if the layer does."""

    def __init__(self, layer: SynthesisLayer, gain: float) -> None:
        self.up = layer.up
        self.style = FoldedLinear(layer.affine)
        self.gain = gain * ops.ACTIVATION_GAIN
        self.energy = layer.weight.square().sum(dim=(2, 3)).t().contiguous()
        self.bias = layer.bias * self.gain
        self.noise_strength = layer.noise_strength * self.gain
        self.limit = None if layer.clamp is None else layer.clamp * gain
        resolution = len(layer.noise_const)
        self.folds = _folds(layer.weight, resolution, up=layer.up)
        if self.up:
            self.weight = layer.weight.transpose(0, 1).clone(memory_format=LAST)
            outputs = layer.weight.shape[0]
            self.filter = (layer.resample_filter * 4).expand(outputs, 1, -1, -1).contiguous(memory_format=LAST)
        elif self.folds:
            self.weight = layer.weight.clone(memory_format=LAST)
        else:
            self.packed = PackedConv(layer.weight, resolution)

    def __call__(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:  # [1, I, H, W] => [1, O, R, R]
        styles = self.style(w)
        factors = (styles.square() @ self.energy + ops.EPSILON).rsqrt_().mul_(self.gain)
        y = self._folded(x, styles, factors) if self.folds else self._scaled(x, styles, factors)
        y.add_(noise * self.noise_strength)
        F.leaky_relu_(y, ops.LEAK)
        return y if self.limit is None else F.hardtanh_(y, -self.limit, self.limit)

    def _folded(self, x: Tensor, styles: Tensor, factors: Tensor) -> Tensor:
        if self.up:
            weight = self.weight * (styles.t() * factors)[:, :, None, None]
            wide = F.conv_transpose2d(x, weight, stride=2)
            return F.conv2d(wide, self.filter, self.bias, padding=1, groups=len(self.filter))
        return F.conv2d(x, self.weight * (factors.t() * styles)[:, :, None, None], self.bias, padding=1)

    def _scaled(self, x: Tensor, styles: Tensor, factors: Tensor) -> Tensor:
        x = x * styles[:, :, None, None]
        if self.up:
            wide = F.conv_transpose2d(x, self.weight, stride=2)
            y = F.conv2d(wide, self.filter, padding=1, groups=len(self.filter))
        else:
            y = self.packed(x)
        return y.mul_(factors[:, :, None, None]).add_(self.bias[:, None, None])


class _Colour:
    """Modulated 1x1 convolution to colour, without demodulation or activation."""

    def __init__(self, torgb: ToRGB) -> None:
        self.style = FoldedLinear(torgb.affine, 1 / math.sqrt(torgb.weight.shape[1]))
        self.weight = torgb.weight.clone()
        self.bias = torgb.bias.clone()
        self.limit = torgb.clamp

    def __call__(self, x: Tensor, w: Tensor) -> Tensor:  # [1, I, R, R] => [1, ch, R, R]
        colour = F.conv2d(x, self.weight * self.style(w)[:, :, None, None], self.bias)
        return colour if self.limit is None else colour.clamp_(-self.limit, self.limit)


class _Doubled:
    """Image to twice the resolution: zeros inserted, then the low-pass, by a depthwise transposed convolution."""

    def __init__(self, kernel: Tensor, channels: int) -> None:
        self.weight = (kernel * 4).expand(channels, 1, -1, -1).contiguous()

    def __call__(self, x: Tensor) -> Tensor:  # [1, C, H, W] => [1, C, 2H, 2W]
        return F.conv_transpose2d(x, self.weight, padding=1, stride=2, groups=len(self.weight))


class _DoubledInPhases:
    """The same by one convolution that gives the four pixels which each pixel becomes; faster for small images."""

    def __init__(self, kernel: Tensor, channels: int) -> None:
        phases = torch.zeros(channels, 2, 2, channels, 3, 3)
        for y, x, down, right in product(range(2), range(2), range(3), range(3)):
            # The tap of the filter that the neighbour meets; phases 0 and 1 lie left and right of the pixel's middle.
            tap_y, tap_x = y + 3 - 2 * down, x + 3 - 2 * right
            if 0 <= tap_y < 4 and 0 <= tap_x < 4:
                phases[range(channels), y, x, range(channels), down, right] = kernel[tap_y, tap_x] * 4
        self.weight = phases.reshape(4 * channels, channels, 3, 3)

    def __call__(self, x: Tensor) -> Tensor:  # [1, C, H, W] => [1, C, 2H, 2W]
        return F.pixel_shuffle(F.conv2d(x, self.weight, padding=1), 2)


def _doubled(block: SynthesisBlock) -> _Doubled | _DoubledInPhases:
    form = _DoubledInPhases if len(block.conv1.noise_const) <= LARGEST_IN_PHASES else _Doubled
    return form(block.resample_filter, block.torgb.weight.shape[0])


class _Shortcut:
    """The shortcut of a residual block: 1x1 convolution, upsampled."""

    def __init__(self, skip: ResidualSkip, gain: float) -> None:
        self.weight = skip.weight * (gain / math.sqrt(skip.weight.shape[1]))
        self.kernel = skip.resample_filter.clone()

    def __call__(self, x: Tensor) -> Tensor:  # [1, I, H, W] => [1, O, 2H, 2W]
        return ops.upsample(F.conv2d(x, self.weight), self.kernel)


class _Block:
    """One resolution; its parts have the names of the network's."""

    def __init__(self, block: SynthesisBlock) -> None:
        gain = math.sqrt(0.5) if block.is_residual else 1.0
        self.const = block.const[None].clone(memory_format=LAST) if block.is_first else None
        self.conv0 = None if block.is_first else _Layer(block.conv0, 1.0)
        self.conv1 = _Layer(block.conv1, gain)
        self.skip = _Shortcut(block.skip, gain) if block.is_residual else None
        self.torgb = _Colour(block.torgb) if block.has_torgb else None
        self.doubled = None if block.is_first or not block.has_torgb else _doubled(block)
        self.num_layers = block.num_layers

    def __call__(
        self, x: Tensor | None, image: Tensor | None, ws: Tensor, noises: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        y = below = cast("Tensor", self.const if x is None else x)
        if self.conv0 is not None:
            y = self.conv0(y, ws[:, 0], noises[0])
        y = self.conv1(y, ws[:, self.num_layers - 1], noises[-1])
        if self.skip is not None:
            y.add_(self.skip(below))
        if image is not None and self.doubled is not None:
            image = self.doubled(image)
        if self.torgb is not None:
            colour = self.torgb(y, ws[:, self.num_layers])
            image = colour if image is None else image.add_(colour)
        return y, image


def _folds(weight: Tensor, resolution: int, *, up: bool) -> bool:
    """Whether scaling the weights of a layer is less work than scaling its maps."""
    outputs, inputs = weight.shape[:2]
    below = resolution // 2 if up else resolution
    return weight.numel() < inputs * below**2 + outputs * resolution**2
