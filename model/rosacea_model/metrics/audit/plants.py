"""Copies of training images, planted among the fakes to see whether the audit finds them."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter

from ..errors import MetricError
from ..images import BATCH, ImageBatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ..images import ImageSource

    Pixels = NDArray[np.uint8]


class Alteration(StrEnum):
    """What was done to a planted copy."""

    exact = "exact"
    mirrored = "mirrored"
    recoloured = "recoloured"  # gamma, and gain and offset of each channel
    cropped = "cropped"  # 90 to 98 % of each side kept, anywhere, and enlarged again
    blended = "blended"  # 60 to 80 % of it, the rest another face
    softened = "softened"  # blurred by 0.8 to 1.6 % of the side, with noise of 3 levels: as a network would draw it


KINDS = tuple(Alteration)


class PlantedImages:
    """Altered copies of some training images, each image once in every way; an `ImageSource`.

    `originals` [n, S, S, 3] are those at the indices `source` [n] of the training set, `partners` [m, S, S, 3] faces to
    blend with. Copy i is of original i // len(KINDS), altered by KINDS[i % len(KINDS)] with numbers drawn from
    (`seed`, i).
    """

    name = "planted copies"

    def __init__(self, originals: Pixels, source: NDArray[np.int64], partners: Pixels, *, seed: int) -> None:
        if originals.shape[1:] != partners.shape[1:]:
            raise MetricError(
                f"images must have the shape of the training images, {list(originals.shape[1:])}, "
                f"got {list(partners.shape[1:])}"
            )
        self.originals, self.partners, self.seed = originals, partners, seed
        self.source = np.repeat(source, len(KINDS))  # [N] training image of each copy
        self.kind = np.tile(np.arange(len(KINDS)), len(source))  # [N] place in KINDS

    @property
    def digest(self) -> str:
        """SHA-256 over originals, partners and seed."""
        return hashlib.sha256(f"{self.seed}".encode() + self.originals.tobytes() + self.partners.tobytes()).hexdigest()

    @property
    def resolution(self) -> int:
        return int(self.originals.shape[1])

    def __len__(self) -> int:
        return len(self.source)

    def batches(self, size: int = BATCH) -> Iterator[ImageBatch]:
        for start in range(0, len(self), size):
            places = range(start, min(start + size, len(self)))
            yield ImageBatch(
                pixels=np.stack([self.copy(place) for place in places]),
                names=tuple(f"{KINDS[self.kind[place]]} copy of {self.source[place]}" for place in places),
                labels=np.zeros((len(places), 0), np.float32),
            )

    def copy(self, place: int) -> Pixels:  # => [S, S, 3]
        rng = np.random.default_rng((self.seed, place))
        partner = self.partners[rng.integers(len(self.partners))]
        return altered(self.originals[place // len(KINDS)], KINDS[self.kind[place]], partner, rng)


def planted(training: ImageSource, partners: Pixels, *, count: int, seed: int) -> PlantedImages:
    """Copies of `count` training images chosen by `seed`, or of all if there are fewer."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(training))[:count])
    return PlantedImages(taken(training, chosen), chosen, partners, seed=seed)


def taken(images: ImageSource, places: NDArray[np.int64]) -> Pixels:  # => [n, S, S, 3]
    """The images at ascending places."""
    found, first = [], 0
    for batch in images.batches():
        inside = places[(places >= first) & (places < first + len(batch.pixels))] - first
        found.append(batch.pixels[inside])
        first += len(batch.pixels)
    return np.concatenate(found)


def altered(image: Pixels, kind: Alteration, partner: Pixels, rng: np.random.Generator) -> Pixels:
    """One copy of an image [S, S, 3]; `partner` is what a blend is with."""
    if kind == Alteration.exact:
        return image
    if kind == Alteration.mirrored:
        return image[:, ::-1]
    return ALTERATIONS[kind](image, partner, rng)


def _recoloured(image: Pixels, partner: Pixels, rng: np.random.Generator) -> Pixels:
    levels = (image / 255) ** rng.uniform(0.75, 1.35)
    return _rounded(255 * (levels * rng.uniform(0.8, 1.2, 3) + rng.uniform(-0.08, 0.08, 3)))


def _cropped(image: Pixels, partner: Pixels, rng: np.random.Generator) -> Pixels:
    side = len(image)
    kept = side * rng.uniform(0.9, 0.98)
    left, top = rng.uniform(0, side - kept, 2)
    box = (float(left), float(top), float(left + kept), float(top + kept))
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC, box))


def _blended(image: Pixels, partner: Pixels, rng: np.random.Generator) -> Pixels:
    share = rng.uniform(0.6, 0.8)
    return _rounded(share * image + (1 - share) * partner)


def _softened(image: Pixels, partner: Pixels, rng: np.random.Generator) -> Pixels:
    radius = float(rng.uniform(0.5, 1.0)) * len(image) / 64
    blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))
    return _rounded(blurred + rng.normal(0, 3, image.shape))


def _rounded(levels: NDArray[np.float64]) -> Pixels:
    return np.asarray(np.clip(np.rint(levels), 0, 255), np.uint8)


ALTERATIONS = {
    Alteration.recoloured: _recoloured,
    Alteration.cropped: _cropped,
    Alteration.blended: _blended,
    Alteration.softened: _softened,
}
