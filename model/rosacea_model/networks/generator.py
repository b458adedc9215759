"""The StyleGAN2 generator: a mapping network (z -> ws) and a synthesis network (ws -> image).

Parameters and buffers carry the names of the reference implementation, so weights move by name. All modules hold
float32 weights; on CUDA the highest resolutions compute in float16 (`GeneratorConfig.runs_in_fp16`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from . import ops

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..config import GeneratorConfig

NoiseMode = Literal["const", "none", "random"]
MAPPING_LR_MULTIPLIER = 0.01


class Linear(nn.Module):
    """Fully connected layer with equalised learning rate (Karras et al. 2018, section 4.1)."""

    def __init__(self, inputs: int, outputs: int, *, lr_multiplier: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.lr_multiplier = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:  # [N, inputs] => [N, outputs]
        weight = self.weight * (self.lr_multiplier / math.sqrt(self.weight.shape[1]))
        return torch.addmm(self.bias * self.lr_multiplier, x, weight.t())


class MappingNetwork(nn.Module):
    """Mapping network: maps z, and a label if conditional, to the intermediate latent w."""

    w_avg: Tensor

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.num_layers = config.mapping_layers
        width = config.z_dim
        self.is_conditional = config.c_dim > 0
        if self.is_conditional:
            self.embed = Linear(config.c_dim, config.w_dim)
            width += config.w_dim
        for index in range(self.num_layers):
            layer = Linear(width, config.w_dim, lr_multiplier=MAPPING_LR_MULTIPLIER)
            self.add_module(f"fc{index}", layer)
            width = config.w_dim
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """z [N, z_dim], c [N, c_dim] or None for an unconditional network => w [N, w_dim], not truncated."""
        x = ops.normalize_second_moment(z)
        if c is not None:
            x = torch.cat([x, ops.normalize_second_moment(self.embed(c))], dim=1)
        for layer in self.layers():
            x = ops.leaky_relu(layer(x))
        return x

    def layers(self) -> Iterator[Linear]:
        """Fully connected layers in order, without the one of labels."""
        for index in range(self.num_layers):
            yield self.get_submodule(f"fc{index}")  # type: ignore[misc]


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias and activation; doubles the resolution if `up` is set."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(self, inputs: int, outputs: int, config: GeneratorConfig, resolution: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.clamp = config.conv_clamp
        self.affine = Linear(config.w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("resample_filter", ops.resample_filter())
        self.register_buffer("noise_const", torch.randn(resolution, resolution))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None, gain: float = 1.0) -> Tensor:
        """x [N, I, H, W], w [N, w_dim], noise broadcastable to [N, 1, R, R] or None => [N, O, R, R]."""
        up_kernel = self.resample_filter if self.up else None
        x = ops.modulated_conv(x, self.weight, self.affine(w), up_kernel=up_kernel)
        if noise is not None:
            x = x + (noise * self.noise_strength).to(x.dtype)
        x = x + self.bias.to(x.dtype).view(1, -1, 1, 1)
        return ops.leaky_relu(x, gain=gain, clamp=self.clamp)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to colour, without demodulation or activation."""

    def __init__(self, inputs: int, config: GeneratorConfig) -> None:
        super().__init__()
        self.clamp = config.conv_clamp
        self.affine = Linear(config.w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(config.img_channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(config.img_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:  # [N, I, R, R], [N, w_dim] => [N, ch, R, R]
        styles = self.affine(w) / math.sqrt(self.weight.shape[1])
        y = ops.modulated_conv(x, self.weight, styles, demodulate=False)
        y = y + self.bias.to(y.dtype).view(1, -1, 1, 1)
        # Not `ops.bound`, whose second gradient would reach the bias, with zeros that Adam then counts as a step.
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)


class ResidualSkip(nn.Module):
    """The shortcut of a resnet block: 1x1 convolution of the upsampled input."""

    resample_filter: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 1, 1))
        self.register_buffer("resample_filter", ops.resample_filter())

    def forward(self, x: Tensor, gain: float) -> Tensor:  # [N, I, H, W] => [N, O, 2H, 2W]
        weight = self.weight * (gain / math.sqrt(self.weight.shape[1]))
        # A 1x1 convolution and the low-pass commute, and before upsampling it is a quarter of the work.
        return ops.upsample(torch.nn.functional.conv2d(x, weight.to(x.dtype)), self.resample_filter)


class SynthesisBlock(nn.Module):
    """One resolution: two layers (one at 4x4), and ToRGB if the architecture has it."""

    resample_filter: Tensor

    def __init__(self, config: GeneratorConfig, resolution: int) -> None:
        super().__init__()
        self.fp16_on_cuda = config.runs_in_fp16(resolution)
        self.is_first = resolution == 4
        self.is_residual = config.architecture == "resnet" and not self.is_first
        channels = config.channels(resolution)
        self.register_buffer("resample_filter", ops.resample_filter())
        if self.is_first:
            self.const = nn.Parameter(torch.randn(channels, resolution, resolution))
        else:
            inputs = config.channels(resolution // 2)
            self.conv0 = SynthesisLayer(inputs, channels, config, resolution, up=True)
            if self.is_residual:
                self.skip = ResidualSkip(inputs, channels)
        self.conv1 = SynthesisLayer(channels, channels, config, resolution, up=False)
        self.has_torgb = config.architecture == "skip" or resolution == config.img_resolution
        if self.has_torgb:
            self.torgb = ToRGB(channels, config)

    @property
    def num_layers(self) -> int:
        return 1 if self.is_first else 2

    @property
    def layers(self) -> tuple[SynthesisLayer, ...]:
        return (self.conv1,) if self.is_first else (self.conv0, self.conv1)

    def forward(
        self, x: Tensor | None, image: Tensor | None, ws: Tensor, noises: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor | None]:
        """Features and image of the resolution below => those of this one.

        x [N, I, R/2, R/2] or None at 4x4; image [N, ch, R/2, R/2] float32 or None; ws [N, num_layers + 1, w_dim]:
        a row for each layer and one for ToRGB; noises: one for each layer.
        """
        dtype = torch.float16 if self.fp16_on_cuda and ws.is_cuda else torch.float32
        if x is None:
            x = self.const.to(dtype).expand(ws.shape[0], -1, -1, -1)
            # In training only: one image at a time is no faster for it, and keeps its bytes.
            x = ops.cpu_layout(x) if self.training else x
            x = self.conv1(x, ws[:, 0], noises[0])
        elif self.is_residual:
            x = x.to(dtype)
            shortcut = self.skip(x, math.sqrt(0.5))
            x = self.conv0(x, ws[:, 0], noises[0])
            x = shortcut + self.conv1(x, ws[:, 1], noises[1], gain=math.sqrt(0.5))
        else:
            x = self.conv0(x.to(dtype), ws[:, 0], noises[0])
            x = self.conv1(x, ws[:, 1], noises[1])

        if image is not None:
            image = ops.upsample(image, self.resample_filter)
        if self.has_torgb:
            colour = self.torgb(x, ws[:, self.num_layers]).float()
            image = colour if image is None else image + colour
        return x, image


class SynthesisNetwork(nn.Module):
    """Synthesis network: maps ws to an image."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.resolutions = config.block_resolutions
        for resolution in self.resolutions:
            self.add_module(f"b{resolution}", SynthesisBlock(config, resolution))

    def blocks(self) -> Iterator[SynthesisBlock]:
        """Blocks from 4x4 upwards."""
        for resolution in self.resolutions:
            yield self.get_submodule(f"b{resolution}")  # type: ignore[misc]

    def _layers(self) -> list[SynthesisLayer]:
        return [layer for block in self.blocks() for layer in block.layers]

    def noise_shapes(self) -> list[tuple[int, int]]:
        """Height and width of each layer's noise, in order."""
        return [(len(layer.noise_const), len(layer.noise_const)) for layer in self._layers()]

    def noises(self, mode: NoiseMode, batch: int) -> list[Tensor | None]:
        """Noise for each layer: the stored one, none, or fresh from torch's generator."""
        layers = self._layers()
        if mode == "const":
            return [layer.noise_const for layer in layers]
        if mode == "none":
            return [None] * len(layers)
        if mode == "random":
            return [torch.randn(batch, 1, *layer.noise_const.shape, device=layer.bias.device) for layer in layers]
        raise ValueError(f"noise_mode must be const, none or random, got {mode!r}")

    def forward(self, ws: Tensor, noises: Sequence[Tensor | None]) -> Tensor:
        """ws [N, num_ws, w_dim], a noise for each layer => image [N, ch, R, R] float32, nominally in [-1, 1]."""
        x: Tensor | None = None
        image: Tensor | None = None
        row = 0
        for block in self.blocks():
            rows = ws[:, row : row + block.num_layers + 1]
            x, image = block(x, image, rows, noises[row : row + block.num_layers])
            row += block.num_layers
        assert image is not None
        return image


class Generator(nn.Module):
    """Mapping and synthesis network. Users normally work with `Model`."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.mapping = MappingNetwork(config)
        self.synthesis = SynthesisNetwork(config)


def truncate(ws: Tensor, w_avg: Tensor, psi: float, cutoff: int | None) -> Tensor:
    """Pull the first `cutoff` rows (None: all) of ws [..., num_ws, w_dim] towards w_avg (Karras et al. 2019, B)."""
    if psi == 1:
        return ws
    near = w_avg + psi * (ws[..., :cutoff, :] - w_avg)
    return near if cutoff is None else torch.cat([near, ws[..., cutoff:, :]], dim=-2)
