"""Synthesis of a batch of images on a GPU, with all that depends on weights alone computed once.

The networks are those of `networks.generator` in another order of operations. The images of a batch share the weights,
so styles scale the input of a layer and demodulation its output (Karras et al. 2020, section 2.2). The blocks that the
configuration has in float16 are channels-last, as tensor cores want them; their weights are converted at load. Nothing
here needs CUDA, and with `half=torch.float32` all of it is float32.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
import torch.nn.functional as F

from ...networks import ops
from .folded import FoldedLinear

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from ...networks.generator import ResidualSkip, SynthesisBlock, SynthesisLayer, SynthesisNetwork, ToRGB

    Compiler = Callable[[Callable[..., Tensor]], Callable[..., Tensor]]

LAST, FIRST = torch.channels_last, torch.contiguous_format


class ArrangedSynthesis:
    """Draws what a synthesis network draws, to rounding. Later changes of the network need not reach it."""

    def __init__(
        self, network: SynthesisNetwork, half: torch.dtype = torch.float16, compiler: Compiler | None = None
    ) -> None:
        """`half` is the type of the blocks that are float16 on CUDA. A compiler, such as `torch.compile`, makes one
        pass of each function that it is given: what follows a convolution."""
        with torch.inference_mode():
            self.blocks = [_ArrangedBlock(block, _form(block, half, compiler)) for block in network.blocks()]

    def __call__(self, ws: Tensor, noises: Sequence[Tensor]) -> Tensor:
        """ws [N, num_ws, w_dim], a noise [N, 1, R, R] for each layer => images [N, ch, R, R] float32."""
        x: Tensor | None = None
        image: Tensor | None = None
        row = 0
        for block in self.blocks:
            count = block.num_layers
            x, image = block(x, image, ws[:, row : row + count + 1], noises[row : row + count])
            row += count
        return cast("Tensor", image)


class _Form(NamedTuple):
    """How one block is computed."""

    dtype: torch.dtype
    layout: torch.memory_format
    compiler: Compiler | None


def _form(block: SynthesisBlock, half: torch.dtype, compiler: Compiler | None) -> _Form:
    # Not channels-last in float32, for which there are no tensor cores without TF32.
    return _Form(half, LAST, compiler) if block.fp16_on_cuda else _Form(torch.float32, FIRST, compiler)


class _ArrangedLayer:
    """Modulated 3x3 convolution, noise, bias and activation; doubles the resolution if the layer does."""

    def __init__(self, layer: SynthesisLayer, gain: float, form: _Form) -> None:
        self.up = layer.up
        self.style = FoldedLinear(layer.affine)
        self.is_tamed = form.dtype == torch.float16
        weight = ops.tamed_weight(layer.weight) if self.is_tamed else layer.weight
        self.gain = gain * ops.ACTIVATION_GAIN
        self.energy = weight.square().sum(dim=(2, 3)).t().contiguous()
        self.bias = (layer.bias * self.gain).to(form.dtype)[:, None, None]
        self.noise_strength = layer.noise_strength * self.gain
        self.limit = None if layer.clamp is None else layer.clamp * gain
        self.weight = (weight.transpose(0, 1) if self.up else weight).to(form.dtype, memory_format=form.layout)
        self.finish = _finish(layer, form)

    def __call__(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:  # [N, I, H, W] => [N, O, R, R]
        styles = self.style(w)
        styles = ops.tamed_styles(styles) if self.is_tamed else styles
        factors = (styles.square() @ self.energy + ops.EPSILON).rsqrt() * self.gain
        x = x * styles.to(x.dtype)[:, :, None, None]
        y = F.conv_transpose2d(x, self.weight, stride=2) if self.up else F.conv2d(x, self.weight, padding=1)
        added = (noise * self.noise_strength).to(y.dtype)
        return self.finish(y, factors.to(y.dtype)[:, :, None, None], added, self.bias, self.limit)


def _finish(layer: SynthesisLayer, form: _Form) -> Callable[..., Tensor]:
    """What follows the convolution. Compiled, the low-pass is a part of that one pass; else it is a convolution."""
    kernel = layer.resample_filter * 4
    if form.compiler is not None:
        return _Compiled(form.compiler, kernel.tolist()) if layer.up else form.compiler(activated)
    if not layer.up:
        return activated
    weight = kernel.to(form.dtype).expand(layer.weight.shape[0], 1, -1, -1).contiguous(memory_format=form.layout)

    def finish(wide: Tensor, *settings: Any) -> Tensor:
        return activated(F.conv2d(wide, weight, padding=1, groups=len(weight)), *settings)

    return finish


class _Compiled:
    """Low-pass and activation as one compiled function."""

    def __init__(self, compiler: Compiler, taps: list[list[float]]) -> None:
        self.taps = taps
        self.run = compiler(filtered)

    def __call__(self, wide: Tensor, *settings: Any) -> Tensor:
        done: Tensor = self.run(wide, self.taps, *settings)
        return done


def activated(y: Tensor, factors: Tensor, noise: Tensor, bias: Tensor, limit: float | None) -> Tensor:
    """Demodulation, bias, noise, leaky ReLU and bound of maps [N, O, R, R]; `factors` [N, O, 1, 1]."""
    y = F.leaky_relu(torch.addcmul(bias, y, factors) + noise, ops.LEAK)
    return y if limit is None else F.hardtanh(y, -limit, limit)


def filtered(wide: Tensor, taps: Sequence[Sequence[float]], *settings: Any) -> Tensor:
    """The same after the low-pass, as a sum of shifted maps, of which a compiler makes one pass over memory."""
    padded = F.pad(wide, (1, 1, 1, 1))
    height, width = wide.shape[2] - 1, wide.shape[3] - 1
    shifted = [taps[y][x] * padded[:, :, y : y + height, x : x + width] for y, x in product(range(len(taps)), repeat=2)]
    return activated(torch.stack(shifted).sum(dim=0), *settings)


class _ArrangedColour:
    """Modulated 1x1 convolution to colour, without demodulation or activation, as a matrix product for each image."""

    def __init__(self, torgb: ToRGB) -> None:
        self.style = FoldedLinear(torgb.affine, 1 / math.sqrt(torgb.weight.shape[1]))
        self.weight = torgb.weight.flatten(1).contiguous()
        self.bias = torgb.bias[:, None, None]
        self.limit = torgb.clamp

    def __call__(self, x: Tensor, w: Tensor) -> Tensor:  # [N, I, R, R] => [N, ch, R, R] float32
        weights = self.weight * self.style(w)[:, None]
        colour: Tensor = torch.bmm(weights.to(x.dtype), x.flatten(2)).unflatten(2, x.shape[2:]).float() + self.bias
        return colour if self.limit is None else colour.clamp_(-self.limit, self.limit)


class _ArrangedShortcut:
    """The shortcut of a residual block: 1x1 convolution, upsampled."""

    def __init__(self, skip: ResidualSkip, gain: float, dtype: torch.dtype) -> None:
        self.weight = (skip.weight * (gain / math.sqrt(skip.weight.shape[1]))).to(dtype)
        self.kernel = skip.resample_filter

    def __call__(self, x: Tensor) -> Tensor:  # [N, I, H, W] => [N, O, 2H, 2W]
        return ops.upsample(F.conv2d(x, self.weight), self.kernel)


class _ArrangedBlock:
    """One resolution; its parts have the names of the network's."""

    def __init__(self, block: SynthesisBlock, form: _Form) -> None:
        self.form = form
        gain = math.sqrt(0.5) if block.is_residual else 1.0
        self.const = block.const[None].clone() if block.is_first else None
        self.conv0 = None if block.is_first else _ArrangedLayer(block.conv0, 1.0, form)
        self.conv1 = _ArrangedLayer(block.conv1, gain, form)
        self.skip = _ArrangedShortcut(block.skip, gain, form.dtype) if block.is_residual else None
        self.torgb = _ArrangedColour(block.torgb) if block.has_torgb else None
        self.kernel = block.resample_filter
        self.num_layers = block.num_layers

    def __call__(
        self, x: Tensor | None, image: Tensor | None, ws: Tensor, noises: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        below = cast("Tensor", self.const if x is None else x)
        below = below.to(self.form.dtype, memory_format=self.form.layout)
        y = below if self.conv0 is None else self.conv0(below, ws[:, 0], noises[0])
        y = self.conv1(y, ws[:, self.num_layers - 1], noises[-1])
        if self.skip is not None:
            y = y + self.skip(below)
        if image is not None:
            image = ops.upsample(image, self.kernel)
        if self.torgb is not None:
            colour = self.torgb(y, ws[:, self.num_layers])
            image = colour if image is None else image + colour
        return y, image
