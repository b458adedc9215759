"""Two encoders in one pass over the images, so that a model draws them once for both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .protocol import Encoder, Levels


class JointEncoder:
    """The features of one encoder, then those of the other."""

    def __init__(self, one: Encoder, other: Encoder) -> None:
        self.one, self.other = one, other
        self.name = f"{one.name} and {other.name}"
        self.digest = f"{one.digest} {other.digest}"
        self.resize = f"{one.resize}; {other.resize}"
        self.dimension = one.dimension + other.dimension
        self.comparable = one.comparable and other.comparable
        self.unrounded = one.unrounded and other.unrounded

    def encode(self, images: Levels) -> NDArray[np.float32]:
        """Features [N, D1 + D2] of images [N, H, W, 3]."""
        return np.concatenate([self.one.encode(images), self.other.encode(images)], axis=1)
