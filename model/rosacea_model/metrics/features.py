"""Features of images: streamed in batches, written to disk as they come, cached by what they depend on."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import MetricError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .encoders.protocol import Encoder
    from .images import ImageSource

BATCH = 64


def features(
    images: ImageSource,
    encoder: Encoder,
    *,
    cache: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    batch: int = BATCH,
) -> NDArray[np.float32]:  # => [N, D]
    """Features of all images in order; with a folder `cache`, read from there if known, else also stored there.

    Only one batch of images is in memory. With a cache the features are on disk too, and what comes back is a read-only
    map of the file. `progress` gets (done, total). Raises MetricError for no images and for features that are not
    finite, naming the image.
    """
    if not len(images):
        raise MetricError(f"{images.name}: no images in it")
    if cache is None:
        found = np.empty((len(images), encoder.dimension), np.float32)
        _fill(found, images, encoder, progress, batch)
        return found
    path = cache / f"{cache_key(images, encoder)}.npy"
    known = _read(path, (len(images), encoder.dimension))
    if known is None:
        _write(path, images, encoder, progress, batch)
        known = _read(path, (len(images), encoder.dimension))
        assert known is not None, path
    progress(len(images), len(images))
    return known


def cache_key(images: ImageSource, encoder: Encoder) -> str:
    """Key of cached features: a hash of the images' digest and the encoder's name, digest and resize rule."""
    stated = [images.digest, encoder.name, encoder.digest, encoder.resize]
    return hashlib.sha256(json.dumps(stated).encode()).hexdigest()[:32]


def default_cache() -> Path:
    """The folder of cached features of this user: `rosacea/features` under $XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rosacea" / "features"


def check_features(found: NDArray[np.float32], name: str) -> None:
    """Raise MetricError unless the array is [N, D] for at least two images and all its values are finite."""
    if found.ndim != 2 or len(found) < 2:
        raise MetricError(f"{name}: needs features [N, D] of at least 2 images, got {list(found.shape)}")
    if not np.isfinite(found).all():
        row = int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])
        raise MetricError(f"{name}: features must be finite, got NaN or infinity in row {row}")


def _fill(
    found: NDArray[np.float32],
    images: ImageSource,
    encoder: Encoder,
    progress: Callable[[int, int], None],
    batch: int,
) -> None:
    done = 0
    progress(0, len(images))
    for part in images.batches(batch):
        rows = encoder.encode(part.pixels)
        if not np.isfinite(rows).all():
            bad = part.names[int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])]
            raise MetricError(f"{images.name}: {encoder.name} gave NaN or infinity for {bad}")
        found[done : done + len(rows)] = rows
        done += len(rows)
        progress(done, len(images))


def _write(path: Path, images: ImageSource, encoder: Encoder, progress: Callable[[int, int], None], batch: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        found = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=(len(images), encoder.dimension))
        _fill(found, images, encoder, progress, batch)
        found.flush()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """Features that an earlier run wrote; None if there are none of this shape."""
    try:
        found: NDArray[np.float32] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == shape and found.dtype == np.float32 else None
