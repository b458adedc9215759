"""The `identity` encoder: who a face looks like, by dlib's face network. Needs the extra `faces`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ...data.screening.faces import FaceFinder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .protocol import Levels


class IdentityEncoder:
    """The embedding of the most certain face of an image; of the whole image where no face is found in it."""

    name, dimension, comparable, unrounded = "identity", 128, False, False
    resize = "aligned face of 150 px; the whole image where no face is found"

    def __init__(self) -> None:
        self.finder = FaceFinder()
        self.digest = self.finder.digest

    def encode(self, images: Levels) -> NDArray[np.float32]:
        """Features [N, 128] of uint8 images [N, H, W, 3]."""
        return np.stack([self._of(image) for image in np.asarray(images, np.uint8)])

    def _of(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        image = Image.fromarray(pixels)
        found = self.finder.find(image)
        return found[0].embedding if found else self.finder.embed(image)
