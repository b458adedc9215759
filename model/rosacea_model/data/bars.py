"""Bars laid over the eyes to hide who it is. A generator that trains on them learns to draw them.

A bar is a flat grey, black or white rectangle, wider than high, across the middle of the upper face and perhaps a
little turned: one value inside, a straight edge above and below. Fringes and sunglasses are dark too, but neither is
flat and straight-edged at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SIDE = 128                               # pictures are judged at this size
ANGLES = (0, -2, 2, -4, 4, -6, 6, -8, 8, -10, 10, -12, 12)
NEUTRAL = 26                             # largest difference of colour channels inside a bar
MIN_WIDTH, MAX_HEIGHT = 0.26, 0.32       # shares of the picture
MIN_ROWS = 2                             # flat rows; the edges of a bar are not flat, so its height is 2 more
MIN_FLAT_PIXELS = 50                     # within 8 grey values of each other, in the middle of the picture
MIN_ASPECT = 1.7
MIDDLE = (0.4, 0.6)                      # columns that a bar covers wholly
CENTRE_X, CENTRE_Y = (0.3, 0.7), (0.2, 0.65)
END_SHARE = 0.6                          # of the rows, at one of its ends: a grey wall may swallow the other
VALUES = 4                               # commonest grey values of flat pixels that are tried


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How flat and how sharp-edged a bar is, in grey values."""

    flat: float                          # largest range among neighbours inside
    near: float                          # largest difference from the value of the bar
    spread: float                        # largest standard deviation inside
    edge: float                          # smallest step at an edge, in the channel where it is largest
    edge_share: float                    # of the columns that must show it, above and below


# A clean bar may be close in value to what surrounds it; one that was compressed hard needs more room.
TOLERANCES = (
    Tolerance(flat=12, near=8, spread=5, edge=14, edge_share=0.85),
    Tolerance(flat=20, near=12, spread=7, edge=12, edge_share=0.75),
)


@dataclass(frozen=True)
class Bar:
    """A bar: its edges as shares of the picture's size, after turning the picture by -angle degrees."""

    left: float
    top: float
    right: float
    bottom: float
    angle: int


def find_bar(image: Image.Image) -> Bar | None:
    """The bar over the eyes of a picture, or None."""
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    return next(filter(None, (_find(small, tolerance) for tolerance in TOLERANCES)), None)


def _find(small: Image.Image, tolerance: Tolerance) -> Bar | None:
    values = _flat_values(_planes(small), tolerance)
    for angle in ANGLES if values else ():
        turned = small.rotate(angle, Image.Resampling.BILINEAR) if angle else small
        pixels = _planes(turned)
        flat = _flat(pixels, tolerance)
        if angle:
            flat &= np.asarray(Image.new("L", small.size, 255).rotate(angle)) > 0
        grey = pixels.mean(axis=0)
        for value in values:
            for block in _blocks(flat & (np.abs(grey - value) <= tolerance.near)):
                if _is_bar(pixels, block, tolerance):
                    top, bottom, left, right = (edge / SIDE for edge in block)
                    return Bar(left, top, right, bottom, angle)
    return None


def _planes(image: Image.Image) -> NDArray[np.float32]:
    """The colour channels one after another, which numpy goes through fastest: [3, height, width]."""
    return np.ascontiguousarray(np.asarray(image, np.float32).transpose(2, 0, 1))


def _flat_values(pixels: NDArray[np.float32], tolerance: Tolerance) -> list[float]:
    """The commonest grey values of flat neutral pixels in the middle; none for most faces, which ends the search."""
    rows, columns = (slice(int(low * SIDE) - 8, int(high * SIDE) + 8) for low, high in (CENTRE_Y, CENTRE_X))
    values = pixels[:, rows, columns].mean(axis=0)[_flat(pixels, tolerance)[rows, columns]]
    counts = np.bincount((values / 4).astype(np.intp), minlength=66)
    nearly = counts[:-2] + counts[1:-1] + counts[2:]
    peaks = np.argsort(-nearly, kind="stable")[:VALUES]
    return [float(4 * peak + 6) for peak in peaks if nearly[peak] >= MIN_FLAT_PIXELS]


def _blocks(flat: NDArray[np.bool_]) -> Iterator[tuple[int, int, int, int]]:
    """Rectangles (top, bottom, left, right; ends excluded) of neighbouring rows with a long flat run in common."""
    starts, stops = _longest_runs(flat)
    long_enough = (stops - starts >= MIN_WIDTH * SIDE - 2) & (starts <= MIDDLE[0] * SIDE) & (stops >= MIDDLE[1] * SIDE)
    row = 0
    while row < SIDE:
        last = row
        while last < SIDE and long_enough[last] and _continues(starts, stops, row, last):
            last += 1
        if last - row >= MIN_ROWS:
            rows = slice(row, last)
            yield row, last, int(np.median(starts[rows])), int(np.median(stops[rows]))
        row = max(last, row + 1)


def _continues(starts: NDArray[np.intp], stops: NDArray[np.intp], first: int, row: int) -> bool:
    """Whether the run of a row lies under that of the row above, and of the first one, to within a few pixels.

    Only as far as the middle of the picture goes: beyond it a grey wall may be one with the bar.
    """
    low, high = (int(share * SIDE) for share in CENTRE_X)
    above = max(row - 1, first)
    start, stop = np.maximum(starts[[row, above, first]], low), np.minimum(stops[[row, above, first]], high)
    near, far = (max(abs(start[0] - start[at]), abs(stop[0] - stop[at])) for at in (1, 2))
    return bool(near <= 3 and far <= 6)


def _flat(pixels: NDArray[np.float32], tolerance: Tolerance) -> NDArray[np.bool_]:
    """Where a pixel and its eight neighbours are one neutral colour."""
    grey = pixels.mean(axis=0)
    high, low = _of_neighbours(grey, np.maximum), _of_neighbours(grey, np.minimum)
    neutral = pixels.max(axis=0) - pixels.min(axis=0) <= NEUTRAL
    return np.asarray((high - low <= tolerance.flat) & neutral)


def _of_neighbours(grey: NDArray[np.float32], better: np.ufunc) -> NDArray[np.float32]:
    """The largest, or smallest, of every pixel and its eight neighbours."""
    padded = np.pad(grey, 1, mode="edge")
    rows = better(better(padded[:-2], padded[1:-1]), padded[2:])
    return np.asarray(better(better(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:]), np.float32)


def _longest_runs(flat: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and one-past-last column of the longest run in each row."""
    columns = np.arange(SIDE)
    last_gap = np.maximum.accumulate(np.where(flat, -1, columns), axis=1)
    lengths = columns - last_gap
    stops = lengths.argmax(axis=1)
    longest = lengths[np.arange(SIDE), stops]
    return stops + 1 - longest, stops + 1


def _is_bar(pixels: NDArray[np.float32], block: tuple[int, int, int, int], tolerance: Tolerance) -> bool:
    top, bottom, left, right = block
    height, width = bottom - top + 2, right - left + 2
    if not CENTRE_Y[0] <= (top + bottom) / 2 / SIDE <= CENTRE_Y[1]:
        return False
    if height > MAX_HEIGHT * SIDE or width < MIN_ASPECT * height:
        return False
    interior = pixels[:, top:bottom, left:right]
    colour = np.median(interior, axis=(1, 2), keepdims=True)
    spread = float(interior.std(axis=(1, 2)).max())
    step = np.abs(pixels - colour).max(axis=0) >= tolerance.edge
    return spread <= tolerance.spread and _has_edges(step, block, tolerance.edge_share)


def _has_edges(step: NDArray[np.bool_], block: tuple[int, int, int, int], share: float) -> bool:
    """Whether another colour begins right above, right below, and beyond an end unless the picture ends there."""
    top, bottom, left, right = block
    if top < 4 or bottom > SIDE - 4:
        return False
    # A wall behind the head may be as grey as the bar, so the long edges are judged in the middle.
    middle = slice(max(left, int(CENTRE_X[0] * SIDE)), min(right, int(CENTRE_X[1] * SIDE)))
    # The outermost flat row lies one inside the edge: the edge itself is the next row but one.
    above = step[max(top - 4, 0) : top - 1, middle].any(axis=0)
    below = step[bottom + 1 : bottom + 4, middle].any(axis=0)
    if above.mean() < share or below.mean() < share:
        return False
    before = step[top:bottom, max(left - 5, 0) : max(left - 1, 0)].any(axis=1)
    after = step[top:bottom, right + 1 : right + 5].any(axis=1)
    return bool(left <= 2 or right >= SIDE - 2 or max(before.mean(), after.mean()) >= END_SHARE)
