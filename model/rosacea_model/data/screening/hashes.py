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

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

SIDE = 64  # of a thumbnail
BANDS = 12  # frequencies per direction in the descriptor
CROPS = (0.0, 0.02, 0.04)  # shares cut from each side that descriptors are taken at
COMMON = 0.9  # share of the mean descriptor taken off: what all faces have in common
CANDIDATE = 0.90  # cosine of descriptors from which a pair is looked at
AGREE = 0.96  # correlation of aligned detail from which a pair is a duplicate
BLOCK = 2048  # pictures compared at once
BATCH = 256  # pairs aligned at once
STEPS = 5  # of the alignment
MARGIN = 5  # border left out of the comparison: a crop moves it out of the picture
MAX_MOVE = 4.0  # pixels of the thumbnail by which alignment may move a corner
MIN_DETAIL = 24.0  # norm of a descriptor below which a picture is plain, and like no other


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
    plain = _unit(_spectra(thumbnails, 0.0))
    common = COMMON * plain.mean(axis=0) if len(plain) else 0
    plain_even, plain_odd = _halves(plain - common)
    for crop in CROPS:
        even, odd = _halves(_unit(_spectra(thumbnails, crop)) - common)
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


def _spectra(thumbnails: NDArray[np.uint8], crop: float) -> NDArray[np.float32]:
    """Weighted low-frequency DCT [n, 12, 12] of pictures cropped by `crop` on each side."""
    basis = _cosines()[:BANDS] @ _resampling(crop)
    frequency = np.hypot(*np.meshgrid(np.arange(BANDS), np.arange(BANDS), indexing="ij")).astype(np.float32)
    spectra = np.empty((len(thumbnails), BANDS, BANDS), np.float32)
    for start in range(0, len(thumbnails), BLOCK):
        block = thumbnails[start : start + BLOCK].astype(np.float32)
        # Natural pictures fall off as 1/f: the weight gives every frequency its say, and the mean none.
        spectra[start : start + BLOCK] = basis @ block @ basis.T * frequency
    return spectra


def _unit(spectra: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale each row vector to length 1; rows with almost no detail become zeros."""
    norm = np.sqrt((spectra**2).sum(axis=(1, 2), keepdims=True))
    return np.asarray(np.where(norm > MIN_DETAIL, spectra / np.maximum(norm, MIN_DETAIL), 0), np.float32)


def _halves(spectra: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Split spectra into the parts that mirroring keeps (even columns) and negates (odd columns), as flat vectors
    scaled together to length 1."""
    norm = np.sqrt((spectra**2).sum(axis=(1, 2), keepdims=True))
    unit = spectra / np.maximum(norm, 1e-6)
    shape = (len(unit), BANDS * BANDS // 2)
    return unit[:, :, 0::2].reshape(shape), unit[:, :, 1::2].reshape(shape)


def _resampling(crop: float) -> NDArray[np.float32]:
    """Resampling matrix that stretches the middle of 64 samples, without `crop` on each side, to 64."""
    places = crop * SIDE + (np.arange(SIDE) + 0.5) * (1 - 2 * crop) - 0.5
    return np.asarray(np.maximum(0, 1 - np.abs(places[:, None] - np.arange(SIDE))), np.float32)


def _cosines() -> NDArray[np.float32]:
    """The orthonormal DCT-II of 64 samples, frequencies in rows."""
    place, frequency = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE))
    basis = np.cos(np.pi / SIDE * place * frequency) * np.sqrt(2 / SIDE)
    basis[0] /= np.sqrt(2)
    return np.asarray(basis, np.float32)


def _verified(thumbnails: NDArray[np.uint8], pairs: Candidates) -> Iterator[Pair]:
    ours = thumbnails[pairs.first].astype(np.float32)
    theirs = thumbnails[pairs.second].astype(np.float32)
    scores = agreement(ours, theirs[:, :, ::-1] if pairs.mirrored else theirs, pairs.crop)
    for one, other, score in zip(pairs.first, pairs.second, scores, strict=True):
        if score >= AGREE:
            first, second = sorted((int(one), int(other)))
            yield Pair(first, second, round(float(score), 4), pairs.mirrored)


def agreement(ours: NDArray[np.float32], theirs: NDArray[np.float32], crop: float = 0.0) -> NDArray[np.float32]:
    """Correlation of fine detail of pictures [n, 64, 64] after aligning the second of each pair to the first.

    `crop` is a first guess of the share to cut from each side of the second.
    """
    ours, theirs = _detail(ours), _detail(theirs)
    return _correlation(ours, _warped(theirs, _alignment(ours, theirs, crop)))


def _detail(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Local contrast: the picture minus its blurred copy, with unit standard deviation."""
    blurred = images
    for axis in (1, 2):
        for _ in range(3):
            padded = np.pad(blurred, [(0, 0)] + [(2, 2) if axis == at else (0, 0) for at in (1, 2)], mode="edge")
            blurred = np.mean([np.take(padded, range(at, at + SIDE), axis) for at in range(5)], axis=0)
    detail = images - blurred
    return np.asarray(detail / np.maximum(detail.std(axis=(1, 2), keepdims=True), 1e-3), np.float32)


def _alignment(ours: NDArray[np.float32], theirs: NDArray[np.float32], crop: float) -> NDArray[np.float32]:
    """Scale and shift [n, 2, 2] (vertical, horizontal) that map our positions to theirs.

    Gauss-Newton on squared differences (Lucas and Kanade 1981).
    """
    count = len(ours)
    line = _line()
    maps = np.zeros((count, 2, 2), np.float32)
    maps[:, :, 0] = -crop * SIDE
    inner = np.zeros((SIDE, SIDE), np.float32)
    inner[MARGIN:-MARGIN, MARGIN:-MARGIN] = 1
    for _ in range(STEPS):
        warped = _warped(theirs, maps)
        down, across = (part * inner for part in np.gradient(warped, axis=(1, 2)))
        jacobian = np.stack([across * line, across, down * line[:, None], down], axis=1).reshape(count, 4, -1)
        residual = ((ours - warped) * inner).reshape(count, -1, 1)
        normal = jacobian @ jacobian.transpose(0, 2, 1) + np.eye(4, dtype=np.float32)
        maps += np.linalg.solve(normal, jacobian @ residual).reshape(count, 2, 2)
        reach = np.abs(maps).sum(axis=2).max(axis=1)
        maps *= np.minimum(1, MAX_MOVE / np.maximum(reach, 1e-6))[:, None, None]
    return maps


def _line() -> NDArray[np.float32]:
    """Positions from -1 to 1 along a side."""
    return np.linspace(-1, 1, SIDE, dtype=np.float32)


def _warped(images: NDArray[np.float32], maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sample pictures bilinearly at displaced positions."""
    places = np.arange(SIDE, dtype=np.float32) + maps[:, :, :1] * _line() + maps[:, :, 1:]
    places = np.clip(places, 0, SIDE - 1.001)
    across, down = places[:, 0, None, :], places[:, 1, :, None]
    left, top = across.astype(np.intp), down.astype(np.intp)
    right_share, low_share = across - left, down - top
    flat = images.reshape(len(images), -1)
    corner = (top * SIDE + left).reshape(len(images), -1)

    def looked_up(step: int) -> NDArray[np.float32]:
        return np.take_along_axis(flat, corner + step, axis=1).reshape(images.shape)

    upper = looked_up(0) * (1 - right_share) + looked_up(1) * right_share
    lower = looked_up(SIDE) * (1 - right_share) + looked_up(SIDE + 1) * right_share
    return np.asarray(upper * (1 - low_share) + lower * low_share, np.float32)


def _correlation(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> NDArray[np.float32]:
    inner = slice(MARGIN, -MARGIN)
    ours, theirs = ours[:, inner, inner], theirs[:, inner, inner]
    ours = ours - ours.mean(axis=(1, 2), keepdims=True)
    theirs = theirs - theirs.mean(axis=(1, 2), keepdims=True)
    norms = np.sqrt((ours**2).sum(axis=(1, 2)) * (theirs**2).sum(axis=(1, 2)))
    return np.asarray((ours * theirs).sum(axis=(1, 2)) / np.maximum(norms, 1e-6), np.float32)
