"""The StyleGAN2 discriminator: maps an image, and a label if conditional, to a logit. Names are the reference's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import ops
from .generator import Linear

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..config import Architecture, GeneratorConfig

MAPPING_LAYERS = 8
MAPPING_LR_MULTIPLIER = 0.01


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Options of a discriminator besides the sizes it shares with its generator."""

    architecture: Architecture = "resnet"
    mbstd_group_size: int = 4  # samples whose deviation is one group's; the batch is a multiple of it
    freeze_layers: int = 0  # layers that do not train, counted from the image on


class Conv(nn.Module):
    """Convolution with equalised learning rate; halves the resolution if `down` is set."""

    resample_filter: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, *, bias: bool = True, down: bool = False) -> None:
        super().__init__()
        self.down = down
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.register_buffer("resample_filter", ops.resample_filter())

    def forward(self, x: Tensor) -> Tensor:  # [N, I, H, W] => [N, O, H, W] or [N, O, H/2, W/2]
        fan_in = self.weight[0].numel()
        weight = (self.weight / math.sqrt(fan_in)).to(x.dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        size = weight.shape[-1]
        if not self.down:
            return F.conv2d(x, weight, bias, padding=size // 2)
        if size == 1:
            return F.conv2d(ops.low_pass(x, self.resample_filter, padding=1, stride=2), weight, bias)
        return F.conv2d(ops.low_pass(x, self.resample_filter, padding=2), weight, bias, stride=2)


class LabelMapping(nn.Module):
    """Maps the label to a vector; the score is its dot product with the image's features."""

    def __init__(self, c_dim: int, width: int) -> None:
        super().__init__()
        self.embed = Linear(c_dim, width)
        for index in range(MAPPING_LAYERS):
            self.add_module(f"fc{index}", Linear(width, width, lr_multiplier=MAPPING_LR_MULTIPLIER))

    def forward(self, c: Tensor) -> Tensor:  # [N, c_dim] => [N, width]
        x = ops.normalize_second_moment(self.embed(c))
        for index in range(MAPPING_LAYERS):
            x = ops.leaky_relu(self.get_submodule(f"fc{index}")(x))
        return x


class DiscriminatorBlock(nn.Module):
    """One block: processes features and halves their resolution."""

    resample_filter: Tensor

    def __init__(self, config: GeneratorConfig, architecture: Architecture, resolution: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.clamp = config.conv_clamp
        self.fp16_on_cuda = config.runs_in_fp16(resolution)
        channels, outputs = config.channels(resolution), config.channels(resolution // 2)
        self.register_buffer("resample_filter", ops.resample_filter())
        self.reads_image = architecture == "skip" or resolution == config.img_resolution
        if self.reads_image:
            self.fromrgb = Conv(config.img_channels, channels, 1)
        self.conv0 = Conv(channels, channels, 3)
        self.conv1 = Conv(channels, outputs, 3, down=True)
        if architecture == "resnet":
            self.skip = Conv(channels, outputs, 1, bias=False, down=True)

    def trainable_layers(self) -> Iterator[nn.Module]:
        """Layers in the order of the forward pass, as freezing counts them."""
        names = ("fromrgb", "conv0", "conv1", "skip")
        return (getattr(self, name) for name in names if hasattr(self, name))

    def forward(self, x: Tensor | None, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features (None at the first block) and image => features of half the resolution, and the image, halved only
        in the `skip` architecture."""
        dtype = torch.float16 if self.fp16_on_cuda and image.is_cuda else torch.float32
        x = None if x is None else x.to(dtype)
        if self.reads_image:
            colour = self._activate(self.fromrgb(image.to(dtype)))
            x = colour if x is None else x + colour
        if self.architecture == "skip":
            image = ops.low_pass(image, self.resample_filter, padding=1, stride=2)
        assert x is not None
        if self.architecture != "resnet":
            return self._activate(self.conv1(self._activate(self.conv0(x)))), image
        gain = math.sqrt(0.5)
        deep = self._activate(self.conv1(self._activate(self.conv0(x))), gain)
        return self.skip(x) * gain + deep, image

    def _activate(self, x: Tensor, gain: float = 1.0) -> Tensor:
        return ops.leaky_relu(x, gain=gain, clamp=self.clamp)


class Epilogue(nn.Module):
    """The last block: 4x4 features to a logit, or to the vector that is compared with the label."""

    def __init__(self, config: GeneratorConfig, discriminator: DiscriminatorConfig) -> None:
        super().__init__()
        channels = config.channels(4)
        self.clamp = config.conv_clamp
        self.group_size = discriminator.mbstd_group_size
        if discriminator.architecture == "skip":
            self.fromrgb = Conv(config.img_channels, channels, 1)
        self.conv = Conv(channels + 1, channels, 3)
        self.fc = Linear(channels * 16, channels)
        self.out = Linear(channels, channels if config.c_dim else 1)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:  # [N, C, 4, 4] => [N, 1] or [N, C]
        x = x.float().contiguous()
        if hasattr(self, "fromrgb"):
            x = x + ops.leaky_relu(self.fromrgb(image), clamp=self.clamp)
        x = append_deviation(x, self.group_size)
        x = ops.leaky_relu(self.conv(x), clamp=self.clamp)
        x = ops.leaky_relu(self.fc(x.flatten(1)))
        logits: Tensor = self.out(x)
        return logits


class Discriminator(nn.Module):
    """The discriminator: blocks from the image's resolution to 4x4, and the epilogue."""

    def __init__(self, config: GeneratorConfig, discriminator: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.resolutions = tuple(reversed(config.block_resolutions[1:]))
        for resolution in self.resolutions:
            self.add_module(f"b{resolution}", DiscriminatorBlock(config, discriminator.architecture, resolution))
        self.b4 = Epilogue(config, discriminator)
        if config.c_dim:
            self.mapping = LabelMapping(config.c_dim, config.channels(4))
        self.freeze(discriminator.freeze_layers)

    def blocks(self) -> Iterator[DiscriminatorBlock]:
        """Blocks from the image's resolution down to 8x8."""
        for resolution in self.resolutions:
            yield self.get_submodule(f"b{resolution}")  # type: ignore[misc]

    def freeze(self, layers: int) -> None:
        """Stop training of the first layers, counted from the image (Mo et al. 2020); the epilogue always trains."""
        countable = [layer for block in self.blocks() for layer in block.trainable_layers()]
        if not 0 <= layers <= len(countable):
            raise ValueError(f"freeze_layers must be from 0 to {len(countable)}, got {layers}")
        for layer in countable[:layers]:
            layer.requires_grad_(False)

    def forward(self, image: Tensor, c: Tensor | None = None) -> Tensor:
        """image [N, ch, R, R] float32, c [N, c_dim] or None for an unconditional network => logits [N, 1]."""
        x: Tensor | None = None
        image = ops.cpu_layout(image)
        for block in self.blocks():
            x, image = block(x, image)
        assert x is not None
        features: Tensor = self.b4(x, image)
        if c is None:
            return features
        wanted: Tensor = self.mapping(c)
        return (features * wanted).sum(dim=1, keepdim=True) / math.sqrt(wanted.shape[1])


def append_deviation(x: Tensor, group_size: int) -> Tensor:  # [N, C, H, W] => [N, C + 1, H, W]
    """Minibatch standard deviation (Karras et al. 2018, section 3): appends a channel with the variation within each
    group.

    Groups are strided: samples i, i + N/group, i + 2N/group, ... form one.
    """
    batch, _, height, width = x.shape
    group = min(group_size, batch)
    if batch % group:
        raise ValueError(f"the batch ({batch}) must be a multiple of mbstd_group_size ({group})")
    grouped = x.view(group, batch // group, -1)
    deviation = (grouped.var(dim=0, unbiased=False) + ops.EPSILON).sqrt().mean(dim=1)
    channel = deviation.repeat(group).view(batch, 1, 1, 1).expand(-1, 1, height, width)
    return torch.cat([x, channel], dim=1)
