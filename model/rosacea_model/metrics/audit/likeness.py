"""How far an image stands out by its likeness to one training image, whatever was done to it.

All faces are like all faces, in one pose even more so. What tells a copy is that it is like one training image in
detail, and far less like the next: so the measure is how far the best agreement lies above what the same image
reaches with others. It survives mirroring, other colours, a crop of a few per cent, a blend and a blur.

Grey thumbnails of 64 px are compared in two steps, as near duplicates are. Candidates come from low frequencies of the
training images, whole and cropped in `VIEWS`, and from fine detail in place. Each candidate is laid onto the image by
shift and scale, and their detail correlated, in a fine and a coarse band.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...data.screening.alignment import SIDE, alignment, correlation, detail, warped
from ...data.screening.spectrum import COMMON, halves, spectra, unit
from ..errors import MetricError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]
    Places = NDArray[np.intp]

# Shares cut from each side, and whither what is kept is moved: down, right, in units of the share.
VIEWS = ((0.0, 0, 0), *((crop, y, x) for crop in (0.02, 0.04, 0.06) for y in (-1, 0, 1) for x in (-1, 0, 1)))
CANDIDATES = 6  # training images of each kind that are looked at closely
MOST_MOVE = 6.0  # pixels of the thumbnail by which a corner may move
# Chosen on 240 phantoms of 64 px with 200 others, and on 125 faces of a published generator (docs/LOG.md, 2026-11-29).
OTHERS = 0.7  # share of the median agreement with other candidates that is taken off
FINE, COARSE = {"reach": 1, "times": 1}, {"reach": 2, "times": 3}  # blur that is taken off for each band
FINE_SCALE, COARSE_SCALE = 0.7, 0.84  # about what 1 % of images that are no copies go beyond, in each band
MOST_AGREEMENT = 0.999  # correlations above this count as this
BATCH = 256  # images compared at once


@dataclass(frozen=True, eq=False)
class Likeness:
    """The training image that each of N images is most like."""

    score: NDArray[np.float64]  # [N] how far it stands out; about 1 % of new faces go beyond 1
    index: NDArray[np.int64]  # [N] which training image
    mirrored: NDArray[np.bool_]  # [N] whether its mirror image


def likeness(thumbnails: NDArray[np.uint8], training: NDArray[np.uint8], *, own: bool = False) -> Likeness:
    """Compare thumbnails [N, 64, 64] with those of the training images [M, 64, 64], M at least CANDIDATES + 1.

    With `own`, thumbnail i is training image i, which is compared with the others only.
    """
    if len(training) < CANDIDATES + 1:
        raise MetricError(f"training images must be at least {CANDIDATES + 1}, got {len(training)}")
    known = Known(training)
    rows = range(0, len(thumbnails), BATCH)
    found = [_compared(thumbnails[start : start + BATCH], known, start if own else None) for start in rows]
    return Likeness(*(np.concatenate(column) for column in zip(*found, strict=True)))


class Known:
    """Training images prepared for comparison."""

    def __init__(self, thumbnails: NDArray[np.uint8]) -> None:
        levels = thumbnails.astype(np.float32)
        self.fine, self.coarse = detail(levels, **FINE), detail(levels, **COARSE)
        plain = unit(spectra(thumbnails, 0.0))
        self.common = COMMON * plain.mean(axis=0)
        self.views = [halves(unit(spectra(thumbnails, crop, (y, x))) - self.common) for crop, y, x in VIEWS]
        self.in_place = _flat(self.fine), _flat(self.fine[:, :, ::-1])


def _compared(
    thumbnails: NDArray[np.uint8], known: Known, first: int | None
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    levels = thumbnails.astype(np.float32)
    fine, coarse = detail(levels, **FINE), detail(levels, **COARSE)
    left_out = None if first is None else (np.arange(len(fine)), first + np.arange(len(fine)))
    candidates = [_by_low_frequencies(thumbnails, known, left_out), _in_place(fine, known, left_out)]
    index, view = (np.concatenate(column, axis=1) for column in zip(*candidates, strict=True))
    agreements = [_agreements(fine, coarse, known, index[:, k], view[:, k]) for k in range(index.shape[1])]
    scores = [_standing_out(np.stack(band, axis=1)) for band in zip(*agreements, strict=True)]
    # Whichever band says more. A blend shows in fine detail, a soft copy in coarse.
    says_more = scores[1][0] / COARSE_SCALE > scores[0][0] / FINE_SCALE
    best = np.where(says_more, scores[1][1], scores[0][1])
    rows = np.arange(len(best))
    score = np.maximum(scores[0][0] / FINE_SCALE, scores[1][0] / COARSE_SCALE)
    return score.astype(np.float64), index[rows, best].astype(np.int64), view[rows, best] % 2 == 1


def _by_low_frequencies(
    thumbnails: NDArray[np.uint8], known: Known, left_out: tuple[Places, Places] | None
) -> tuple[Places, Places]:
    """[n, CANDIDATES] training images, and the view of each: twice its place in VIEWS, plus 1 if mirrored."""
    even, odd = halves(unit(spectra(thumbnails, 0.0)) - known.common)
    best = np.full((len(even), len(known.fine)), -np.inf, np.float32)
    view = np.zeros(best.shape, np.intp)
    for place, (their_even, their_odd) in enumerate(known.views):
        both, difference = even @ their_even.T, odd @ their_odd.T
        for mirrored, cosine in enumerate((both + difference, both - difference)):
            better = cosine > best
            best[better], view[better] = cosine[better], 2 * place + mirrored
    return _highest(best, view, left_out)


def _in_place(fine: Matrix, known: Known, left_out: tuple[Places, Places] | None) -> tuple[Places, Places]:
    """The same by fine detail, with no crop: in a blend the other face moves the low frequencies."""
    plain, mirrored = (_flat(fine) @ theirs.T for theirs in known.in_place)
    return _highest(np.maximum(plain, mirrored), (mirrored > plain).astype(np.intp), left_out)


def _highest(scores: Matrix, view: Places, left_out: tuple[Places, Places] | None) -> tuple[Places, Places]:
    if left_out is not None:
        scores[left_out] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :CANDIDATES]
    return order, np.take_along_axis(view, order, axis=1)


def _agreements(fine: Matrix, coarse: Matrix, known: Known, index: Places, view: Places) -> tuple[Matrix, Matrix]:
    """Correlations [n] of fine and of coarse detail with one candidate each, laid onto the image."""
    flipped = (view % 2 == 1)[:, None, None]

    def turned(detail: Matrix) -> Matrix:
        return np.where(flipped, detail[:, :, ::-1], detail)

    start, theirs = _start(view), turned(known.coarse[index])
    maps = alignment(coarse, theirs, start, MOST_MOVE)
    their_fine = turned(known.fine[index])
    # A blend may be better left in place: the other face misleads the alignment.
    finest = np.maximum(correlation(fine, warped(their_fine, maps)), correlation(fine, warped(their_fine, start)))
    return finest, correlation(coarse, warped(theirs, maps))


def _start(view: Places) -> Matrix:  # => [n, 2, 2]
    """The alignment that a view stands for: horizontal and vertical, scale and shift."""
    crop, down, right = np.array(VIEWS, np.float32)[view // 2].T
    right = np.where(view % 2 == 1, -right, right)
    return SIDE * np.stack([np.stack([-crop, right * crop], 1), np.stack([-crop, down * crop], 1)], axis=1)


def _standing_out(agreements: Matrix) -> tuple[Matrix, Places]:
    """How far the best of [n, candidates] lies above most others, in Fisher's z; and which it is.

    The two best are left out of "others": a candidate may be there twice, and a blend be of two training images.
    """
    z = np.arctanh(np.clip(agreements, -MOST_AGREEMENT, MOST_AGREEMENT))
    others = np.median(np.sort(z, axis=1)[:, :-2], axis=1)
    return z.max(axis=1) - OTHERS * others, z.argmax(axis=1)


def _flat(images: Matrix) -> Matrix:
    """Rows of length 1 whose products are correlations."""
    centred = (images - images.mean(axis=(1, 2), keepdims=True)).reshape(len(images), -1)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6), np.float32)
