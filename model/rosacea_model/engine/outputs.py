"""From tensors of several samples to numpy arrays, or the errors that stand in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import OutputNotFinite
from .transfer import OnItsWay

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ..errors import RenderError


def to_numbers(ws: Tensor) -> list[NDArray[np.float32] | RenderError]:
    """Latents [N, num_ws, w_dim] as numpy arrays; where one is not finite, OutputNotFinite is returned, not raised."""
    rows = OnItsWay(ws).wait()
    return [row if np.isfinite(row).all() else OutputNotFinite("the latent holds NaN or infinity") for row in rows]


class Pixels:
    """Images as pixels, by the reference's rule: floor of x * 127.5 + 128, clamped.

    They and whether they are finite are computed on the device, and reach the host in one copy.
    """

    def __init__(self, images: Tensor) -> None:  # [N, C, H, W] float32
        count, channels, height, width = images.shape
        self._shape = (height, width, channels)
        rows = images.new_empty(count, height * width * channels + 1, dtype=torch.uint8)
        levels = (images * 127.5 + 128).clamp_(0, 255).to(torch.uint8)
        rows[:, :-1].unflatten(1, self._shape).copy_(levels.permute(0, 2, 3, 1))
        rows[:, -1] = images.isfinite().flatten(1).all(dim=1)
        self._rows = OnItsWay(rows)

    def wait(self) -> list[NDArray[np.uint8] | RenderError]:
        """[H, W, C] uint8 each; where an image is not finite, OutputNotFinite is returned, not raised."""
        return [self._image(row) for row in self._rows.wait()]

    def _image(self, row: NDArray[np.uint8]) -> NDArray[np.uint8] | RenderError:
        if not row[-1]:
            return OutputNotFinite("the image holds NaN or infinity")
        return row[:-1].reshape(self._shape)
