"""The interface of encoders, the networks that turn images into features for all measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Levels = NDArray[np.uint8] | NDArray[np.float32]


class Encoder(Protocol):
    """Interface of a network that turns images into features. Measurements by two encoders must not be compared with
    one another."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str:
        """SHA-256 of the weights, lower-case hexadecimal."""
        ...

    @property
    def resize(self) -> str:
        """How images are resized for the network, as text; part of the key under which features are cached."""
        ...

    @property
    def dimension(self) -> int:
        """Width D of the features."""
        ...

    @property
    def comparable(self) -> bool:
        """Whether numbers may be compared with those that papers report for an encoder of this name."""
        ...

    @property
    def unrounded(self) -> bool:
        """Whether it takes float32 levels that were not rounded, as path lengths need."""
        ...

    def encode(self, images: Levels) -> NDArray[np.float32]:
        """Features [N, D] of images [N, H, W, 3]: uint8, or float32 levels from 0 to 255 where `unrounded`.

        The features of an image do not depend on the images beside it.
        """
        ...
