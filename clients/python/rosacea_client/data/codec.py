"""Gives real images the same compression as synthetic ones.

A classifier learns whatever tells classes apart. If one class is mostly synthetic, and synthetic images alone went
through JPEG (or were resized, or were not), it may learn the traces of that instead of the skin: it then does well in
training and fails on patients. So put both through the same path: take synthetic faces as `raw` or `png` and code
neither, or take them as `jpeg` and code real images with `match_codec` at the same quality, after every resizing.
A photograph that was a JPEG before keeps traces of its first coding; equal quality for both at the end is what can be
done about it.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rosacea_client.data.request import Look

DEFAULT_QUALITY = 95  # what the service takes where none is stated


def match_codec(pixels: NDArray[np.uint8], look: Look) -> NDArray[np.uint8]:
    """Recode a real image [height, width, 1 or 3] with the format and quality of `look`.

    JPEG has the quantisation tables of the service's and no chroma subsampling either; another build of the codec may
    still round single pixels in another way. Lossless formats leave the image as it is.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise ValueError(f"an image must be uint8 [height, width, 1 or 3], got {pixels.dtype} {pixels.shape}")
    if look.format != "jpeg":
        return pixels
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    picture.save(buffer, "JPEG", quality=look.jpeg_quality or DEFAULT_QUALITY, subsampling=0)
    with Image.open(buffer) as decoded:
        return np.array(decoded, np.uint8).reshape(pixels.shape)
