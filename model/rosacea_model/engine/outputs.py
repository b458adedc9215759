"""From tensors of one sample to numpy arrays, or the error that stands in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..errors import OutputNotFinite

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ..errors import RenderError


def to_numbers(ws: Tensor) -> NDArray[np.float32] | RenderError:
    """Latents of one sample [num_ws, w_dim] as a numpy array; if one is not finite, OutputNotFinite is returned, not
    raised."""
    if not bool(torch.isfinite(ws).all()):
        return OutputNotFinite("the latent holds NaN or infinity")
    return ws.cpu().numpy()


def to_pixels(image: Tensor) -> NDArray[np.uint8] | RenderError:
    """One image [C, H, W] float32 => [H, W, C] uint8, by the reference's rule: floor of x * 127.5 + 128, clamped. If a
    value is not finite, OutputNotFinite is returned, not raised."""
    if not bool(torch.isfinite(image).all()):
        return OutputNotFinite("the image holds NaN or infinity")
    pixels = (image * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    return pixels.permute(1, 2, 0).contiguous().cpu().numpy()
