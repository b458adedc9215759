"""Distance of each image to the training set, including mirror images.

The distance is the root mean square over pixels and channels, in levels of 255. A copy of a training image stands out
twice: it is nearer than fresh images ever are, and far nearer to its original than to anything else. An image that is
merely smooth is near to everything, so only the second tells it from a copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 256  # images compared with the training set at once


@dataclass(frozen=True)
class Nearest:
    """The nearest training image of each of N images."""

    distance: NDArray[np.float64]  # [N] levels of 255
    second: NDArray[np.float64]  # [N] distance to the nearest of the others
    index: NDArray[np.int64]  # [N] which training image
    mirrored: NDArray[np.bool_]  # [N] whether it is the mirror image that is so near

    @property
    def ratio(self) -> NDArray[np.float64]:
        """[N] 1 = two training images are equally near, 0 = a copy."""
        return self.distance / np.maximum(self.second, 1e-9)


@dataclass(frozen=True, kw_only=True)
class Closeness:
    """Distances of a set of images to the training set, beside those within the training set."""

    smallest: float
    percentile_1: float
    median: float
    below_training: float  # share nearer than the 1st percentile of the training images
    ratio_below_training: float  # share whose ratio is below the 1st percentile of theirs


def nearest(images: NDArray[np.uint8], training: NDArray[np.uint8], *, own: bool = False) -> Nearest:
    """The nearest training image to each of `images` [N, size, size, channels].

    With `own`, image i is training image i: it and its mirror image are left out, so that each is compared with the
    others only. An image and its mirror image count as one when it comes to the second nearest.
    """
    # Symmetric, so that taking it off changes no distance. float32 then holds the squares to 7 digits.
    middle = training.mean(axis=0, dtype=np.float64)
    middle = (middle + middle[:, ::-1]) / 2
    known = _flat(training, middle)
    blocks = []
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK]
        # The distance of a picture to a mirror image is that of its mirror image to the picture.
        both = np.stack([_squares(_flat(view, middle), known) for view in (block, block[:, :, ::-1])])
        if own:
            both[:, np.arange(len(block)), start + np.arange(len(block))] = np.inf
        blocks.append(_two_smallest(both, known.shape[1]))
    return Nearest(*(np.concatenate(column) for column in zip(*blocks, strict=True)))


def closeness(found: Nearest, training: Nearest) -> Closeness:
    """Figures of one set, given how near the training images are to one another."""
    return Closeness(
        smallest=float(found.distance.min()),
        percentile_1=float(np.percentile(found.distance, 1)),
        median=float(np.median(found.distance)),
        below_training=float((found.distance < np.percentile(training.distance, 1)).mean()),
        ratio_below_training=float((found.ratio < np.percentile(training.ratio, 1)).mean()),
    )


def _flat(images: NDArray[np.uint8], middle: NDArray[np.float64]) -> NDArray[np.float32]:
    # Row by row: a float64 copy of the whole set would be four times as large as what is kept.
    flat = np.empty((len(images), middle.size), np.float32)
    for row, image in zip(flat, images, strict=True):
        row[:] = (image - middle).ravel()
    return flat


def _squares(images: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.float32]:  # => [N, M]
    """Squared distances of every image to every known one."""
    own, theirs = np.square(images).sum(axis=1), np.square(known).sum(axis=1)
    squares: NDArray[np.float32] = own[:, None] + theirs - 2 * images @ known.T
    return np.maximum(squares, 0)


def _two_smallest(both: NDArray[np.float32], size: int) -> tuple[NDArray[np.generic], ...]:
    """Distance, second distance, index and mirroring from squared distances [2, N, M], plain and mirrored."""
    squares = both.min(axis=0)
    rows = np.arange(len(squares))
    index = squares.argmin(axis=1)
    first = squares[rows, index].astype(np.float64)
    mirrored = both[1, rows, index] < both[0, rows, index]
    squares[rows, index] = np.inf
    second = squares.min(axis=1).astype(np.float64)
    return np.sqrt(first / size), np.sqrt(second / size), index, mirrored
