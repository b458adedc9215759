"""Copies between the host and the device: one for many arrays, by pinned memory on a GPU, without a wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


def to_device(arrays: Sequence[NDArray[np.float32]], device: torch.device) -> list[Tensor]:
    """Float32 tensors of any shapes, copied at once; views of one block of memory."""
    sizes = [array.size for array in arrays]
    block = _on_host(torch.Size([sum(sizes)]), torch.float32, device)
    for part, array in zip(block.split(sizes), arrays, strict=True):
        part.numpy()[:] = array.ravel()
    moved = block.to(device, non_blocking=True).split(sizes)
    return [part.view(array.shape) for part, array in zip(moved, arrays, strict=True)]


class OnItsWay:
    """A tensor on its way to the host, behind all that the device was asked for before."""

    def __init__(self, tensor: Tensor) -> None:
        self._host, self._arrival = tensor, None
        if tensor.device.type == "cuda":
            self._host = _on_host(tensor.shape, tensor.dtype, tensor.device)
            self._host.copy_(tensor, non_blocking=True)
            self._arrival = torch.cuda.Event()
            with torch.cuda.device(tensor.device):
                self._arrival.record()

    def wait(self) -> NDArray[np.generic]:
        """The same as a numpy array, once it is there."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return self._host.numpy()


def _on_host(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")
