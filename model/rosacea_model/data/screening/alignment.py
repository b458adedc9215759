"""Lays pictures onto one another, by shift and scale, and compares their detail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 64  # of the pictures that are compared
STEPS = 5  # of the alignment
MARGIN = 5  # border left out of the comparison: a crop moves it out of the picture
MAX_MOVE = 4.0  # pixels by which alignment may move a corner


def agreement(ours: NDArray[np.float32], theirs: NDArray[np.float32], crop: float = 0.0) -> NDArray[np.float32]:
    """Correlation of fine detail of pictures [n, 64, 64] after aligning the second of each pair to the first.

    `crop` is a first guess of the share to cut from each side of the second.
    """
    ours, theirs = detail(ours), detail(theirs)
    start = np.zeros((len(ours), 2, 2), np.float32)
    start[:, :, 0] = -crop * SIDE
    return correlation(ours, warped(theirs, alignment(ours, theirs, start)))


def detail(images: NDArray[np.float32], *, reach: int = 2, times: int = 3) -> NDArray[np.float32]:
    """Local contrast: the picture minus its blurred copy, with unit standard deviation.

    The blur is `times` means over 2 * `reach` + 1 pixels, in each direction.
    """
    blurred = images
    for axis in (1, 2):
        for _ in range(times):
            margins = [(0, 0)] + [(reach, reach) if axis == at else (0, 0) for at in (1, 2)]
            padded = np.pad(blurred, margins, mode="edge")
            blurred = np.mean([np.take(padded, range(at, at + SIDE), axis) for at in range(2 * reach + 1)], axis=0)
    found = images - blurred
    return np.asarray(found / np.maximum(found.std(axis=(1, 2), keepdims=True), 1e-3), np.float32)


def alignment(
    ours: NDArray[np.float32], theirs: NDArray[np.float32], start: NDArray[np.float32], most: float = MAX_MOVE
) -> NDArray[np.float32]:
    """Scale and shift [n, 2, 2] (horizontal, vertical) that map our positions to theirs, beginning with `start`.

    Gauss-Newton on squared differences (Lucas and Kanade 1981). No corner moves by more than `most` pixels.
    """
    count, line = len(ours), _line()
    maps = start.copy()
    inner = np.zeros((SIDE, SIDE), np.float32)
    inner[MARGIN:-MARGIN, MARGIN:-MARGIN] = 1
    for _ in range(STEPS):
        moved = warped(theirs, maps)
        down, across = (part * inner for part in np.gradient(moved, axis=(1, 2)))
        jacobian = np.stack([across * line, across, down * line[:, None], down], axis=1).reshape(count, 4, -1)
        residual = ((ours - moved) * inner).reshape(count, -1, 1)
        normal = jacobian @ jacobian.transpose(0, 2, 1) + np.eye(4, dtype=np.float32)
        maps += np.linalg.solve(normal, jacobian @ residual).reshape(count, 2, 2)
        reach = np.abs(maps).sum(axis=2).max(axis=1)
        maps *= np.minimum(1, most / np.maximum(reach, 1e-6))[:, None, None]
    return maps


def _line() -> NDArray[np.float32]:
    """Positions from -1 to 1 along a side."""
    return np.linspace(-1, 1, SIDE, dtype=np.float32)


def warped(images: NDArray[np.float32], maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sample pictures bilinearly at displaced positions. Each direction is a product with a matrix of its own."""
    places = np.arange(SIDE, dtype=np.float32) + maps[:, :, :1] * _line() + maps[:, :, 1:]
    places = np.clip(places, 0, SIDE - 1.001)
    across, down = _sampling(places[:, 0]), _sampling(places[:, 1])
    return np.asarray(down @ images @ across.transpose(0, 2, 1), np.float32)


def _sampling(places: NDArray[np.float32]) -> NDArray[np.float32]:  # [n, 64] => [n, 64, 64]
    """Matrices that sample lines at these places, between the two nearest values."""
    before = places.astype(np.intp).ravel()
    share, rows = places.ravel() - before, np.arange(places.size)
    matrix = np.zeros((places.size, SIDE), np.float32)
    matrix[rows, before], matrix[rows, before + 1] = 1 - share, share
    return matrix.reshape(*places.shape, SIDE)


def correlation(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> NDArray[np.float32]:
    inner = slice(MARGIN, -MARGIN)
    ours, theirs = ours[:, inner, inner], theirs[:, inner, inner]
    ours = ours - ours.mean(axis=(1, 2), keepdims=True)
    theirs = theirs - theirs.mean(axis=(1, 2), keepdims=True)
    norms = np.sqrt((ours**2).sum(axis=(1, 2)) * (theirs**2).sum(axis=(1, 2)))
    return np.asarray((ours * theirs).sum(axis=(1, 2)) / np.maximum(norms, 1e-6), np.float32)
