"""Detects bars over the eyes, which a generator would learn to draw.

A bar is a band of one smooth colour, any colour, across both eyes: wider than high, perhaps a little turned, with
straight parallel edges above and below that may be soft. Real and generated bars shade from one end to the other, so
"smooth" means that neighbouring columns hardly differ, not that the colour is constant. Foreheads, fringes and
spectacles come close; what sets a bar apart is that its edges are strong against what happens inside it, all along
its width, and that no eyes lie below it.

Every picture is searched at a few angles for pairs of long edges. Five measures of the band between them are weighed
as in a logistic regression; docs/LOG.md, 2026-11-29, says on what the weights were fitted and how well they did on
pictures that had been left out. `make bench-bars` counts again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Plane = NDArray[np.float32]

SIDE = 128  # pictures are judged at this size; what follows is in its pixels
ANGLES = tuple(2.5 * step for step in range(-7, 8))  # degrees
MIDDLE = slice(46, 82)  # columns that every bar covers: both eyes lie further out
EDGE_ROWS = range(16, 97)  # where the edges of a bar may lie
CENTRE = (32, 83)  # where the middle row of a bar may lie
HEIGHT = (7, 40)
MIN_WIDTH, MIN_ASPECT = 36, 1.7
EDGES, PAIRS = 10, 3  # strongest edges of an angle, and pairs of them, that are looked at closely
EDGE_SHARE = 0.2  # an edge is as strong as its weakest column, this share of them left out
WEAKEST_EDGE = 3.0  # levels, for an edge to be looked at
ONE_EDGE = 4.0  # levels, that a column of a bar has at its upper or its lower edge
MAX_GAP = 2  # columns within a bar that may look unlike it

# Weights of the measures in `evidence`. Above 0 a bar is likelier than not. They are the rounded coefficients of a
# logistic regression on candidate bands: of 400 phantoms without and 350 with bars, of 81 faces of a published
# generator without and 36 with a bar (five changed copies each), and of those 81 with drawn bars. The bias is half a
# log odd above what was fitted. The program of that fit was not kept, so it cannot be run again; `make bench-bars`
# counts what they find.
SMOOTH, STEP, WIDTH, ASPECT, BELOW, BIAS = -16.0, 9.0, 15.0, 7.0, -2.8, 4.0


@dataclass(frozen=True)
class Bar:
    """A detected bar: edges as fractions of the picture's size, after turning it by `angle` degrees."""

    left: float
    top: float
    right: float
    bottom: float
    angle: float


@dataclass(frozen=True)
class Band:
    """A candidate band between two parallel edges, in pixels and levels of the turned picture."""

    left: int
    top: int
    right: int
    bottom: int
    angle: float
    roughness: float  # mean difference of neighbouring columns inside
    step: float  # the weaker of the edges above and below
    below: float  # how much detail lies beneath: eyes under a forehead, cheeks under a bar

    @property
    def evidence(self) -> float:
        """Log odds that the band is a bar."""
        width, aspect = (self.right - self.left) / SIDE, (self.right - self.left) / (self.bottom - self.top)
        return (
            SMOOTH * math.log(self.roughness + 1)
            + STEP * math.log(min(self.step, 30) + 2)
            + WIDTH * math.log(min(width, 0.55))
            + ASPECT * math.log(min(aspect, 4))
            + BELOW * math.log(self.below + 3)
            + BIAS
        )


def find_bar(image: Image.Image) -> Bar | None:
    """The bar over the eyes of a picture, or None."""
    bars = [band for band in bands(image) if band.evidence > 0]
    if not bars:
        return None
    # Of about equally likely ones, the one turned least.
    best = max(bars, key=lambda band: (round(band.evidence), -abs(band.angle)))
    left, top, right, bottom = (edge / SIDE for edge in (best.left, best.top, best.right, best.bottom))
    return Bar(left, top, right, bottom, best.angle)


def bands(image: Image.Image) -> Iterator[Band]:
    """Find all candidate bands of a picture (strips between two edges that may be a bar)."""
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    for angle in ANGLES:
        view = _view(small, angle)
        yield from filter(None, (_band(view, top, bottom) for top, bottom in _pairs(view)))


@dataclass(frozen=True)
class _View:
    """A picture turned by `angle`; differences are in levels of the colour channel where they are largest."""

    angle: float
    pixels: Plane  # [3, SIDE, SIDE]
    detail: Plane  # [SIDE, SIDE] to the neighbours, along rows or columns, whichever is larger
    sideways: Plane  # [SIDE, SIDE] to the neighbours in the row
    steps: Plane  # [SIDE + 1, SIDE] across the boundary above each row, or the one next to it
    edges: Plane  # [SIDE + 1] how strong an edge each boundary is in the middle
    sharpness: Plane  # [SIDE + 1] the same, larger the closer the boundary is to the very edge


def _view(small: Image.Image, angle: float) -> _View:
    turned = small.rotate(angle, Image.Resampling.BILINEAR) if angle else small
    pixels = np.ascontiguousarray(np.asarray(turned, np.float32).transpose(2, 0, 1))
    upright = np.abs(pixels[:, 2:, 1:-1] - pixels[:, :-2, 1:-1]).max(axis=0) / 2
    sideways = np.abs(pixels[:, 1:-1, 2:] - pixels[:, 1:-1, :-2]).max(axis=0) / 2
    sharp = _steps(pixels)
    steps = _with_neighbours(sharp)
    edges = _quantile(steps[:, MIDDLE], EDGE_SHARE, 1)
    return _View(
        angle,
        pixels,
        np.pad(np.maximum(upright, sideways), 1, mode="edge"),
        np.pad(sideways, 1, mode="edge"),
        steps,
        edges,
        edges + np.float32(0.1) * _quantile(sharp[:, MIDDLE], 0.5, 1),
    )


def _steps(pixels: Plane) -> Plane:
    """Largest difference over the colour channels between the mean of the two rows above each boundary and of the two
    below it: [3, n, width] => [n + 1, width]."""
    twos = pixels[:, :-1] + pixels[:, 1:]
    return np.pad(np.abs(twos[:, 2:] - twos[:, :-2]).max(axis=0) / 2, ((2, 2), (0, 0)))


def _with_neighbours(steps: Plane) -> Plane:
    """Maximum over neighbouring rows, which tolerates slightly tilted edges."""
    padded = np.pad(steps, ((1, 1), (0, 0)))
    return np.asarray(np.maximum(np.maximum(padded[:-2], padded[2:]), steps))


def _quantile(values: Plane, share: float, axis: int) -> Plane:
    place = int(share * (values.shape[axis] - 1) + 0.5)
    return np.asarray(np.take(np.partition(values, place, axis=axis), place, axis=axis))


def _pairs(view: _View) -> list[tuple[int, int]]:
    """The most likely pairs of upper and lower edge: strong, with little detail between."""
    rows = _strong_edges(view)
    detail = np.concatenate([[0], np.cumsum(_quantile(view.detail[:, MIDDLE], 0.75, 1))])

    def likelihood(pair: tuple[int, int]) -> float:
        first, last = pair[0] + _margin(*pair), pair[1] - _margin(*pair)
        inside = (detail[last] - detail[first]) / (last - first)
        return float(min(view.edges[pair[0]], view.edges[pair[1]], 30) / (inside + 1.5))

    pairs = [(top, bottom) for top in rows for bottom in rows if _may_be_bar(top, bottom)]
    return sorted(pairs, key=likelihood, reverse=True)[:PAIRS]


def _strong_edges(view: _View) -> list[int]:
    peaks = [
        row
        for row in EDGE_ROWS
        if view.edges[row] > WEAKEST_EDGE and view.sharpness[row] >= view.sharpness[row - 2 : row + 3].max()
    ]
    return sorted(peaks, key=lambda row: -view.edges[row])[:EDGES]


def _may_be_bar(top: int, bottom: int) -> bool:
    return HEIGHT[0] <= bottom - top <= HEIGHT[1] and CENTRE[0] <= (top + bottom) / 2 <= CENTRE[1]


def _margin(top: int, bottom: int) -> int:
    """Rows next to a bar's edges to ignore because soft edges may reach into them."""
    return 2 if bottom - top < 10 else 3


def _band(view: _View, top: int, bottom: int) -> Band | None:
    """The band between two edges, extended left and right; None if it is too short for a bar."""
    margin = _margin(top, bottom)
    rows = slice(top + margin, bottom - margin)
    left, right = _ends(view, top, bottom, rows)
    if right - left < max(MIN_WIDTH, MIN_ASPECT * (bottom - top)):
        return None
    inside = slice(left + 2, right - 2)
    return Band(
        left,
        top,
        right,
        bottom,
        view.angle,
        roughness=float(view.sideways[rows, inside].mean()),
        step=float(min(_quantile(view.steps[edge, inside], EDGE_SHARE, 0) for edge in (top, bottom))),
        below=float(_quantile(view.detail[bottom + 3 : bottom + 20, inside].ravel(), 0.85, 0)),
    )


def _ends(view: _View, top: int, bottom: int, rows: slice) -> tuple[int, int]:
    """Horizontal extent of a bar: from the middle outwards, columns that are uniform inside and contrast above and
    below."""
    roughness = _quantile(view.detail[rows], 0.75, 0)
    smooth = roughness <= max(4.0, 2.5 * float(np.median(roughness[MIDDLE])))
    fits = smooth & (np.maximum(view.steps[top], view.steps[bottom]) >= ONE_EDGE)
    centre = SIDE // 2
    left, right = centre - _reach(fits[centre - 1 :: -1]), centre + 1 + _reach(fits[centre + 1 :])

    # The band ends at the strongest upright edge about there, unless the picture ends first.
    across = _quantile(_steps(view.pixels[:, rows].transpose(0, 2, 1)), 0.4, 1)
    if left > 3:
        left = _strongest(across, left - 3, left + 9)
    if right < SIDE - 3:
        right = _strongest(across, right - 8, right + 4)
    return left, right


def _reach(fits: NDArray[np.bool_]) -> int:
    """Number of consecutive true values from the start, tolerating gaps of up to `MAX_GAP`."""
    last = 0
    for place, good in enumerate(fits, start=1):
        if good:
            last = place
        elif place - last > MAX_GAP:
            break
    return last


def _strongest(values: Plane, first: int, last: int) -> int:
    first = max(first, 2)
    return first + int(values[first : min(last, SIDE - 1)].argmax())
