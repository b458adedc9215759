"""What ranks the snapshots of a training run: KID with the encoder that ships, on a few images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..encoders.builtin import BuiltinEncoder
from .kernel import kernel_distance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Features = NDArray[np.float64]


class KidMeasure:
    """KID x 1000 over all pairs, without an interval. The encoder is loaded and the reals are encoded once."""

    figure, name = "kid", "KID x 1000, encoder builtin"

    def __init__(self) -> None:
        self._encoder: BuiltinEncoder | None = None
        self._reals: Features | None = None

    def __call__(self, reals: NDArray[np.uint8], fakes: NDArray[np.uint8]) -> float:
        """Of fakes [M, H, W, 3] against reals [N, H, W, 3], which are the same in every call."""
        if self._encoder is None:
            self._encoder = BuiltinEncoder()
        if self._reals is None:
            self._reals = self._encoder.encode(reals).astype(np.float64)
        return 1000 * kernel_distance(self._reals, self._encoder.encode(fakes).astype(np.float64))
