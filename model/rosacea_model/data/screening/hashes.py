"""Finds near duplicates: the same photograph recompressed, mirrored, or cropped by a few per cent.

Every picture leaves a thumbnail of 64x64 grey values. Two steps compare them. A descriptor of low frequencies, taken
of the whole and of two crops, finds candidates among all pairs by matrix products; a mirrored picture only changes
the sign of its odd columns, so one product of each half answers for both. Each candidate is then laid onto its
partner (shift and scale, by Gauss-Newton) and must agree in fine detail, where different faces in one pose do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .alignment import SIDE, agreement
from .spectrum import COMMON, halves, spectra, unit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

CROPS = (0.0, 0.02, 0.04)  # shares cut from each side that descriptors are taken at
CANDIDATE = 0.90  # cosine of descriptors from which a pair is looked at
AGREE = 0.96  # correlation of aligned detail from which a pair is a duplicate
BLOCK = 2048  # pictures compared at once
BATCH = 256  # pairs aligned at once


@dataclass(frozen=True, order=True)
class Pair:
    """A pair of near duplicates, by list index."""

    first: int
    second: int
    agreement: float  # correlation of detail after alignment
    mirrored: bool


def thumbnail(image: Image.Image) -> NDArray[np.uint8]:
    """Shrink to 64x64 grey values."""
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def near_duplicates(thumbnails: NDArray[np.uint8]) -> list[Pair]:
    """Near-duplicate pairs among thumbnails [n, 64, 64], sorted: enough to connect every group.

    A pair that others connect already is not compared, so a thousand copies of one picture cost a thousand pairs.
    """
    pairs: list[Pair] = []
    group = np.arange(len(thumbnails))
    for found in _candidates(thumbnails):
        while len((found := found.part(group[found.first] != group[found.second])).first):
            for pair in _verified(thumbnails, found.part(slice(0, BATCH))):
                group[group == group[pair.second]] = group[pair.first]
                pairs.append(pair)
            found = found.part(slice(BATCH, None))
    return sorted(pairs)


def groups(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Groups that the pairs connect, each sorted, in the order of their first members."""
    parent = list(range(count))

    def root(member: int) -> int:
        while parent[member] != member:
            parent[member] = parent[parent[member]]
            member = parent[member]
        return member

    for first, second in pairs:
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    found: dict[int, list[int]] = {}
    for member in range(count):
        found.setdefault(root(member), []).append(member)
    return [members for members in found.values() if len(members) > 1]


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Candidate pairs, similar at low frequencies when `crop` is cut from each side of the second."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    mirrored: bool
    crop: float

    def part(self, rows: slice | NDArray[np.bool_]) -> Candidates:
        return Candidates(first=self.first[rows], second=self.second[rows], mirrored=self.mirrored, crop=self.crop)


def _candidates(thumbnails: NDArray[np.uint8]) -> Iterator[Candidates]:
    """Pairs with close descriptors, as they are or mirrored."""
    plain = unit(spectra(thumbnails, 0.0))
    common = COMMON * plain.mean(axis=0) if len(plain) else 0
    plain_even, plain_odd = halves(plain - common)
    for crop in CROPS:
        even, odd = halves(unit(spectra(thumbnails, crop)) - common)
        for top in range(0, len(even), BLOCK):
            for left in range(0 if crop else top, len(even), BLOCK):
                rows, columns = slice(top, top + BLOCK), slice(left, left + BLOCK)
                both = plain_even[rows] @ even[columns].T
                difference = plain_odd[rows] @ odd[columns].T
                for mirrored in (False, True):
                    above, beside = np.nonzero((both - difference if mirrored else both + difference) >= CANDIDATE)
                    first, second = above + top, beside + left
                    keep = first != second if crop else first < second
                    if keep.any():
                        yield Candidates(first=first[keep], second=second[keep], mirrored=mirrored, crop=crop)


def _verified(thumbnails: NDArray[np.uint8], pairs: Candidates) -> Iterator[Pair]:
    ours = thumbnails[pairs.first].astype(np.float32)
    theirs = thumbnails[pairs.second].astype(np.float32)
    scores = agreement(ours, theirs[:, :, ::-1] if pairs.mirrored else theirs, pairs.crop)
    for one, other, score in zip(pairs.first, pairs.second, scores, strict=True):
        if score >= AGREE:
            first, second = sorted((int(one), int(other)))
            yield Pair(first, second, round(float(score), 4), pairs.mirrored)
