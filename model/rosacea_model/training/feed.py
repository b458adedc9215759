"""Loads real images in an endless shuffled order that depends only on seed and position, so resuming needs just the
position."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ..errors import ModelError
from .errors import LoaderDied, PictureUnreadable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SILENCE_S = 300.0  # that long no image means that whatever loads them hangs
REMEDY = (
    "Put the file back as it was and go on with --resume, or begin another run on a data set without it: "
    "`rosacea data prepare` leaves out what cannot be read"
)


class TrainingSet(Protocol):
    """Interface of a data set: images of one shape and label vectors, of width 0 without labels."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]: ...  # CHW, [width]

    def label(self, index: int) -> NDArray[np.float32]: ...


class Order:
    """The shuffled order: each epoch is its own permutation, drawn from seed and epoch."""

    def __init__(self, seed: int, length: int) -> None:
        if length < 1:
            raise ValueError("the training set must hold at least one image")
        self.seed = seed
        self.length = length
        self._epoch = -1
        self._permutation: NDArray[np.int64] = np.empty(0, np.int64)

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, self.length)
        if epoch != self._epoch:
            self._permutation = np.random.default_rng([self.seed, epoch]).permutation(self.length)
            self._epoch = epoch
        return int(self._permutation[place])


class Mirrored(Dataset[tuple[Tensor, Tensor]]):
    """The data set as tensors; with `mirror`, all flipped images follow."""

    def __init__(self, images: TrainingSet, *, mirror: bool) -> None:
        self.images = images
        self.mirror = mirror

    def __len__(self) -> int:
        return len(self.images) * (2 if self.mirror else 1)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        try:
            image, label = self.images[index % len(self.images)]
        except (ModelError, OSError) as error:
            raise PictureUnreadable(f"{error}. {REMEDY}") from error
        if index >= len(self.images):
            image = image[:, :, ::-1]
        return torch.from_numpy(image.copy()), torch.from_numpy(np.asarray(label, np.float32))


@dataclass(frozen=True, kw_only=True)
class RankShare:
    """The part of each global batch that belongs to one rank."""

    batch: int
    rank: int = 0
    world: int = 1

    def positions(self, start: int) -> range:
        own = self.batch // self.world
        return range(start + self.rank * own, start + (self.rank + 1) * own)


class Batches:
    """Yields the indices of one rank's share of each batch, for a DataLoader."""

    def __init__(self, order: Order, share: RankShare, position: int) -> None:
        self.order, self.share, self.position = order, share, position

    def __iter__(self) -> Iterator[list[int]]:
        position = self.position
        while True:
            yield [self.order[place] for place in self.share.positions(position)]
            position += self.share.batch


def feed(
    images: TrainingSet, *, seed: int, mirror: bool, share: RankShare, position: int, workers: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one rank's batches (uint8 [n, C, H, W], float32 [n, width]) from a position in the endless order on."""
    mirrored = Mirrored(images, mirror=mirror)
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        _ErrorsAsText(mirrored),
        batch_sampler=Batches(Order(seed, len(mirrored)), share, position),
        num_workers=workers,
        collate_fn=_collated,
        worker_init_fn=heed_the_trainer_alone,
        timeout=SILENCE_S if workers else 0,
        generator=torch.Generator(),  # or else it would draw from the global one
    )
    return _readable(iter(loader) if workers == 0 else _watched(iter(loader)))


class _ErrorsAsText(Dataset[Any]):
    """Passes reading errors between processes as text: raised there, they would arrive as long tracebacks."""

    def __init__(self, images: Mirrored) -> None:
        self.images = images

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor] | str:
        try:
            return self.images[index]
        except PictureUnreadable as error:
            return str(error)


def _collated(items: list[object]) -> object:
    reasons = [item for item in items if isinstance(item, str)]
    return reasons[0] if reasons else default_collate(items)


def _readable(batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in batches:
        if isinstance(batch, str):
            raise PictureUnreadable(batch)
        yield batch


def heed_the_trainer_alone(worker: int) -> None:
    """Make a loading process ignore signals to the whole group, so that only the trainer ends it.

    The trainer still needs images then, for the step that it is in.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    Thread(target=_end_when_asked, daemon=True).start()


def _end_when_asked() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def _watched(batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    try:
        yield from batches
    except (RuntimeError, ConnectionError, EOFError) as error:
        # Depending on when it died, torch says so, or only that its pipe has broken.
        raise LoaderDied(f"a process that loads images died or hangs: {error}") from error


@contextmanager
def dead_loaders_reported() -> Iterator[None]:
    """Translate the error torch raises in its SIGCHLD handler to LoaderDied."""
    try:
        yield
    except (LoaderDied, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        # Or else it might say so a second time, in the midst of telling this error.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if isinstance(error, LoaderDied):
            raise
        raise LoaderDied(f"a process that loads images died: {error}") from error


def to_unit(images: Tensor) -> Tensor:
    """Scale uint8 levels to [-1, 1]; float input is returned unchanged."""
    return images if images.is_floating_point() else images.float() / 127.5 - 1
