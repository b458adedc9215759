"""The network of the `builtin` encoder: six convolutions on 64 px, a description of layout and one of texture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 64  # px of its input
LAYOUT, TEXTURE = 64, 64  # features of each kind
DIMENSION = LAYOUT + TEXTURE
RESIZE = f"area mean to {SIZE} px, bilinear where the image is smaller"


class PhantomNet(nn.Module):
    """Levels [N, 3, H, W] in 0..255 to features [N, 128], each of mean 0 and variance 1 over its training images."""

    def __init__(self) -> None:
        super().__init__()
        self.edges = nn.Sequential(_conv(3, 24, 2), _conv(24, 32), _conv(32, 48, 2), _conv(48, TEXTURE))
        self.parts = nn.Sequential(_conv(TEXTURE, 96, 2), _conv(96, 64, 2))
        self.layout = nn.Linear(64 * (SIZE // 16) ** 2, LAYOUT)
        self.register_buffer("mean", torch.zeros(DIMENSION))
        self.register_buffer("deviation", torch.ones(DIMENSION))
        self.mean: Tensor
        self.deviation: Tensor

    def forward(self, levels: Tensor) -> Tensor:
        return (self.raw(levels) - self.mean) / self.deviation

    def raw(self, levels: Tensor) -> Tensor:  # => [N, 128], not yet standardised
        """What the heads of training read."""
        edges = self.edges(resized(levels) / 127.5 - 1)
        layout = torch.tanh(self.layout(self.parts(edges).flatten(1)))
        return torch.cat([layout, edges.mean(dim=(2, 3))], dim=1)


def resized(levels: Tensor) -> Tensor:  # => [N, 3, SIZE, SIZE]
    """Bring images to the size of the network by the rule that RESIZE states."""
    if levels.shape[-1] == SIZE:
        return levels
    if levels.shape[-1] > SIZE:
        return F.interpolate(levels, size=(SIZE, SIZE), mode="area")
    return F.interpolate(levels, size=(SIZE, SIZE), mode="bilinear")


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), nn.LeakyReLU(0.2))
