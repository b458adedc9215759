"""A 3x3 convolution whose weights oneDNN has arranged once, for maps of one size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

PADDING = STRIDE = DILATION = [1, 1]
GROUPS = 1


class PackedConv:
    """Convolution with padding 1. Without arranged weights oneDNN rearranges them at every call, which at 4 to 32 px
    takes longer than the convolution. Where torch has no oneDNN it is torch's own convolution."""

    def __init__(self, weight: Tensor, resolution: int) -> None:  # [O, I, 3, 3]
        self.weight = weight.clone(memory_format=torch.channels_last)
        self.is_packed = torch.backends.mkldnn.is_available()
        if self.is_packed:
            reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
            shape = (1, weight.shape[1], resolution, resolution)
            self.weight = reorder(self.weight.to_mkldnn(), PADDING, STRIDE, DILATION, GROUPS, shape)

    def __call__(self, x: Tensor) -> Tensor:  # [1, I, R, R] => [1, O, R, R]
        if not self.is_packed:
            return F.conv2d(x, self.weight, padding=PADDING)
        convolve: Any = torch.ops.mkldnn._convolution_pointwise
        result: Tensor = convolve(x, self.weight, None, PADDING, STRIDE, DILATION, GROUPS, "none", [], "")
        return result
