"""Spaces in which images are near one another: what each keeps of an image, and the nearest training image there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from ...data.screening.hashes import thumbnail
from ...phantom.check.nearest import nearest
from ..distances import squared_distances
from ..errors import MetricError
from .likeness import likeness

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from ..encoders.protocol import Encoder
    from ..images import ImageSource

MAX_SIDE = 64  # pixels at which images are compared pixel by pixel
PIXEL, PERCEPTUAL = "pixel", "perceptual"


@dataclass(frozen=True, eq=False, kw_only=True)
class Neighbours:
    """The nearest training image of each of N images."""

    distance: NDArray[np.float64]  # [N] in units of the space
    index: NDArray[np.int64]  # [N] which training image
    mirrored: NDArray[np.bool_]  # [N] whether its mirror image is the one so near


class Space(Protocol):
    """A space of images; its distances mean nothing in another."""

    @property
    def name(self) -> str: ...

    @property
    def rule(self) -> str:
        """What is kept of an image, and how distance is measured, as text."""
        ...

    @property
    def linear(self) -> bool:
        """Whether what is kept are vectors with Euclidean distances, so that there are clusters and components."""
        ...

    def keep(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """What the space keeps of images [N, S, S, 3], an array with N rows."""
        ...

    def nearest(self, kept: NDArray[Any], training: NDArray[Any], *, own: bool = False) -> Neighbours:
        """The nearest training image of each; with `own`, row i is training image i, compared with the others only."""
        ...


class PixelSpace:
    """Root mean square over pixels and channels, of images and mirror images."""

    name = PIXEL
    rule = f"at most {MAX_SIDE} px, box filter; root mean square in levels of 255, mirror images included"
    linear = True

    def keep(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        side = min(MAX_SIDE, images.shape[1])
        return np.stack(
            [np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX)) for image in images]
        )

    def nearest(self, kept: NDArray[np.uint8], training: NDArray[np.uint8], *, own: bool = False) -> Neighbours:
        found = nearest(kept, training, own=own)
        return Neighbours(distance=found.distance, index=found.index, mirrored=found.mirrored)


class PerceptualSpace:
    """Agreement of grey detail after alignment, above what the image reaches with other training images."""

    name = PERCEPTUAL
    rule = "grey, 64 px, Lanczos; exp(-likeness), mirror images, crops and shifts included"
    linear = False

    def keep(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.stack([thumbnail(Image.fromarray(image)) for image in images])

    def nearest(self, kept: NDArray[np.uint8], training: NDArray[np.uint8], *, own: bool = False) -> Neighbours:
        found = likeness(kept, training, own=own)
        return Neighbours(distance=np.exp(-found.score), index=found.index, mirrored=found.mirrored)


class EncoderSpace:
    """Euclidean distance of an encoder's features, of images as they are."""

    linear = True

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    @property
    def name(self) -> str:
        return self.encoder.name

    @property
    def rule(self) -> str:
        return f"{self.encoder.resize}; weights {self.encoder.digest[:12]}; Euclidean distance of features"

    def keep(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = self.encoder.encode(images)
        if not np.isfinite(found).all():
            raise MetricError(f"features of {self.name} must be finite, got NaN or infinity")
        return found

    def nearest(self, kept: NDArray[np.float32], training: NDArray[np.float32], *, own: bool = False) -> Neighbours:
        squares = squared_distances(kept, training)
        if own:
            np.fill_diagonal(squares, np.inf)
        index = squares.argmin(axis=1)
        found = np.sqrt(squares[np.arange(len(index)), index])
        return Neighbours(distance=found, index=index, mirrored=np.zeros(len(index), np.bool_))


def flat(kept: NDArray[Any]) -> NDArray[np.float32]:  # => [N, D]
    """What a linear space keeps of N images, as vectors."""
    return np.asarray(kept.reshape(len(kept), -1), np.float32)


def keep_all(
    images: ImageSource, spaces: Sequence[Space], advance: Callable[[int], None] = lambda images: None
) -> Mapping[str, NDArray[Any]]:
    """What each space keeps of all images, in one pass over them. `advance` gets the number of images of each step."""
    kept: dict[str, list[NDArray[Any]]] = {space.name: [] for space in spaces}
    for batch in images.batches():
        for space in spaces:
            kept[space.name].append(space.keep(batch.pixels))
        advance(len(batch.pixels))
    return {name: np.concatenate(parts) for name, parts in kept.items()}
