"""An encoder without weights, for tests: means over a grid of blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rosacea_model.metrics.encoders.protocol import Encoder, Levels


class BlockEncoder:
    """Mean colour of each of `side` x `side` blocks, in levels."""

    name, resize, comparable, unrounded = "blocks", "none", False, True

    def __init__(self, side: int = 2) -> None:
        self.side, self.digest, self.dimension = side, f"{side:064x}", 3 * side**2
        self.calls = 0

    def encode(self, images: Levels) -> NDArray[np.float32]:
        self.calls += 1
        count, height = images.shape[:2]
        blocks = images.reshape(count, self.side, height // self.side, self.side, -1, 3).mean(axis=(2, 4))
        return np.asarray(blocks.reshape(count, -1), np.float32)


def fits(encoder: Encoder) -> Encoder:
    """For the type checker: the encoder fulfils the protocol."""
    return encoder


def random_pixels(count: int, side: int = 8, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3)).astype(np.uint8)
