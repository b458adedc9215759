"""Where measured images come from: a data set, a model and its seeds, or an array; all in batches of bounded memory."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..data.dataset import LabelledImages
from ..data.errors import DataRejected
from ..sample import FaceSample
from .errors import MetricError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ..engine import Engine

BATCH = 64  # images held at once


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageBatch:
    """Some images with their names and labels."""

    pixels: NDArray[np.uint8]  # [n, H, W, 3]
    names: tuple[str, ...]  # file names, or `seed 7`
    labels: NDArray[np.float32]  # [n, c_dim]; width 0 where there are none


class ImageSource(Protocol):
    """Images in a fixed order. Iterating again gives the same images."""

    @property
    def name(self) -> str:
        """What the images are, for people: `faces.zip`, or `demo, 1000 seeds from 0`."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 over everything that the pixels depend on."""
        ...

    @property
    def resolution(self) -> int: ...

    def __len__(self) -> int: ...

    def batches(self, size: int = BATCH) -> Iterator[ImageBatch]:
        """The images in order, at most `size` at a time."""
        ...


class DatasetImages:
    """The images of a data set, zip or folder, read from disk as they are asked for.

    `labels=False` ignores labels. `chosen` takes these images only, in this order. Raises MetricError for grey images
    and DataRejected for what cannot be read.
    """

    def __init__(self, path: Path | str, *, labels: bool = True, chosen: Sequence[int] | None = None) -> None:
        self.images = LabelledImages(path, labels=labels)
        if self.images.channels != 3:
            raise MetricError(
                f"{path}: images must be in colour, got grey ones; `rosacea data prepare --channels 3` makes them so"
            )
        self.chosen = list(range(len(self.images)) if chosen is None else chosen)
        self._digest = ""

    @property
    def name(self) -> str:
        part = f", {len(self)} of {len(self.images)}" if len(self) < len(self.images) else ""
        return f"{self.images.path.name}{part}"

    @property
    def digest(self) -> str:
        """SHA-256 over the names and bytes of the files, in order."""
        if not self._digest:
            self._digest = self.images.content_digest(self.chosen)
        return self._digest

    @property
    def resolution(self) -> int:
        return self.images.resolution

    @property
    def labels(self) -> NDArray[np.float32]:  # [N, c_dim]
        """Labels of all images; width 0 where there are none."""
        return np.stack([self.images.label(place) for place in self.chosen])

    def __len__(self) -> int:
        return len(self.chosen)

    def batches(self, size: int = BATCH) -> Iterator[ImageBatch]:
        for start in range(0, len(self), size):
            places = self.chosen[start : start + size]
            read = [self.images[place] for place in places]
            yield ImageBatch(
                pixels=np.stack([image.transpose(1, 2, 0) for image, _ in read]),
                names=tuple(self.images.name(place) for place in places),
                labels=np.stack([label for _, label in read]),
            )


class ModelImages:
    """The faces of a model at seeds, drawn as they are asked for, without truncation unless `truncation_psi` says so.

    `keep` is a file for the drawn pixels: faces are drawn once, and read from there when they are asked for again.

    The i-th face takes row i % M of `labels` [M, c_dim], so that a model is asked for the labels of the data in their
    proportions. None is for unconditional models.
    """

    def __init__(
        self,
        engine: Engine,
        seeds: Sequence[int],
        *,
        labels: NDArray[np.float32] | None = None,
        truncation_psi: float = 1.0,
        keep: Path | None = None,
    ) -> None:
        config = engine.config
        if config.img_channels != 3:
            raise MetricError(f"{engine.name} draws grey images; metrics need a model with 3 channels")
        if config.c_dim and (labels is None or labels.shape[1:] != (config.c_dim,)):
            found = "none" if labels is None else f"labels of width {labels.shape[1]}"
            raise MetricError(f"{engine.name} takes labels of width {config.c_dim}, and the data have {found}")
        self.engine, self.seeds, self.truncation_psi = engine, seeds, truncation_psi
        self.labels = labels if labels is not None and config.c_dim else np.zeros((1, 0), np.float32)
        shape = (len(seeds), config.img_resolution, config.img_resolution, 3)
        self._kept = np.lib.format.open_memmap(keep, "w+", np.uint8, shape) if keep else None
        self._drawn = 0  # faces in there

    @property
    def name(self) -> str:
        return f"{self.engine.name}, {len(self)} seeds from {self.seeds[0]}"

    @property
    def digest(self) -> str:
        """SHA-256 over the engine's fingerprint, the seeds, labels and truncation."""
        stated = [self.engine.fingerprint, [int(seed) for seed in self.seeds], self.truncation_psi]
        return hashlib.sha256(json.dumps(stated).encode() + self.labels.tobytes()).hexdigest()

    @property
    def resolution(self) -> int:
        return self.engine.config.img_resolution

    def __len__(self) -> int:
        return len(self.seeds)

    def batches(self, size: int = BATCH) -> Iterator[ImageBatch]:
        for start in range(0, len(self), size):
            places = range(start, min(start + size, len(self)))
            yield ImageBatch(
                pixels=self._pixels(places),
                names=tuple(f"seed {self.seeds[place]}" for place in places),
                labels=np.stack([self.labels[place % len(self.labels)] for place in places]),
            )

    def _pixels(self, places: range) -> NDArray[np.uint8]:
        """Faces drawn, or read from the file that keeps them. Every iteration begins at the first."""
        if self._kept is None:
            return self.engine.render([self.sample(place) for place in places])
        if places.stop > self._drawn:
            self._kept[places.start : places.stop] = self.engine.render([self.sample(place) for place in places])
            self._drawn = places.stop
        return np.array(self._kept[places.start : places.stop])

    def sample(self, place: int) -> FaceSample:
        """The input of the engine for the face at this index: its seed, label and truncation."""
        label = self.labels[place % len(self.labels)]
        return FaceSample(
            seed=int(self.seeds[place]), label=label if len(label) else None, truncation_psi=self.truncation_psi
        )


class ArrayImages:
    """Images that are in memory already, [N, H, W, 3] uint8."""

    def __init__(
        self, pixels: NDArray[np.uint8], *, name: str = "images", labels: NDArray[np.float32] | None = None
    ) -> None:
        if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8:
            raise MetricError(f"{name}: images must be uint8 [N, H, W, 3], got {pixels.dtype} {list(pixels.shape)}")
        self.pixels, self.name = pixels, name
        self.labels = np.zeros((len(pixels), 0), np.float32) if labels is None else labels

    @property
    def digest(self) -> str:
        """SHA-256 over shape and pixels."""
        return hashlib.sha256(f"{self.pixels.shape}".encode() + self.pixels.tobytes()).hexdigest()

    @property
    def resolution(self) -> int:
        return int(self.pixels.shape[1])

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, size: int = BATCH) -> Iterator[ImageBatch]:
        for start in range(0, len(self), size):
            pixels = self.pixels[start : start + size]
            yield ImageBatch(
                pixels=pixels,
                names=tuple(f"{self.name} {place}" for place in range(start, start + len(pixels))),
                labels=self.labels[start : start + size],
            )


def check_alike(one: ImageSource, other: ImageSource) -> None:
    """Raise MetricError unless both sources have the same resolution: resizing one would be measured as a
    difference."""
    if one.resolution != other.resolution:
        raise MetricError(
            f"{other.name} has {other.resolution} px and {one.name} {one.resolution}: both must have one resolution; "
            f"`rosacea data prepare --resolution {one.resolution}` brings a data set to it"
        )


def all_pixels(images: ImageSource) -> NDArray[np.uint8]:  # => [N, H, W, 3]
    """All images at once, for sets that are known to be small."""
    found = [batch.pixels for batch in images.batches()]
    if not found:
        raise DataRejected(f"{images.name}: no images in it")
    return np.concatenate(found)
