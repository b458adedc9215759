"""Mixes real and synthetic samples in an exact ratio in every window.

Slot n is synthetic where floor((n + 1) r) exceeds floor(n r): Bresenham's line. So any window of k slots, wherever it
begins, holds floor(k r) or ceil(k r) synthetic samples. Which ratio is best differs from task to task: try several.
"""

from __future__ import annotations

import random
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Indexed(Protocol):
    """Interface of a map-style data set."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def mix(real: Indexed, synthetic: Indexed, ratio: float | Fraction | str, *, shuffle: int | None = None) -> Mixed:
    """A data set in which `ratio` of the samples are synthetic, from 0 to 1: each real sample once.

    A ratio counts as the decimal number that it is written as. `shuffle` is a seed that puts the real samples in
    another order each epoch; a shuffling sampler would do so too, but then windows hold the ratio only on average.
    """
    return Mixed(real, synthetic, Fraction(str(ratio)), shuffle)


class Mixed:
    """The result of `mix`: a map-style data set, to be read in order without shuffling.

    Samples are those of the two data sets as they are, so let both give the same kind (`transform`).
    """

    def __init__(self, real: Indexed, synthetic: Indexed, ratio: Fraction, shuffle: int | None = None) -> None:
        if not 0 <= ratio <= 1:
            raise ValueError(f"ratio must be from 0 to 1, got {ratio}")
        self.real = real
        self.synthetic = synthetic
        self.ratio = ratio
        self.shuffle = shuffle
        self.epoch = 0
        self._length = slots(len(real), ratio) if ratio < 1 else len(synthetic)
        self._order: tuple[int, Sequence[int]] | None = None
        if (needed := self._length * ratio.numerator // ratio.denominator) > len(synthetic):
            raise ValueError(
                f"a ratio of {ratio} beside {len(real)} real samples needs {needed} synthetic ones, "
                f"got {len(synthetic)}"
            )

    def __len__(self) -> int:
        return self._length

    def set_epoch(self, epoch: int) -> None:
        """Start another epoch, also in the synthetic data set. Call it before iterating the DataLoader."""
        self.epoch = epoch
        if hasattr(self.synthetic, "set_epoch"):
            self.synthetic.set_epoch(epoch)

    def where(self, slot: int) -> tuple[bool, int]:
        """Whether the slot is synthetic, and the index in the real or synthetic data set."""
        if not 0 <= slot < self._length:
            raise IndexError(f"index must be from 0 to {self._length - 1}, got {slot}")
        before = slot * self.ratio.numerator // self.ratio.denominator
        after = (slot + 1) * self.ratio.numerator // self.ratio.denominator
        return (True, before) if after > before else (False, self._real_order()[slot - before])

    def __getitem__(self, slot: int) -> Any:
        synthetic, index = self.where(slot)
        return self.synthetic[index] if synthetic else self.real[index]

    def __getitems__(self, wanted: Sequence[int]) -> list[Any]:
        """Fetch a batch, asking the synthetic data set once for all its samples. Called by torch's DataLoader."""
        places = [self.where(slot) for slot in wanted]
        asked = [index for synthetic, index in places if synthetic]
        many = getattr(self.synthetic, "__getitems__", lambda indices: [self.synthetic[index] for index in indices])
        drawn = iter(many(asked))
        return [next(drawn) if synthetic else self.real[index] for synthetic, index in places]

    def _real_order(self) -> Sequence[int]:
        if self.shuffle is None:
            return range(len(self.real))
        if self._order is None or self._order[0] != self.epoch:
            order = list(range(len(self.real)))
            random.Random(f"{self.shuffle} {self.epoch}").shuffle(order)  # noqa: S311  # no secret
            self._order = self.epoch, order
        return self._order[1]


def slots(real: int, ratio: Fraction) -> int:
    """Maximum number of slots that contain `real` real samples: n - floor(n r) = real, for a ratio below 1."""
    # n (1 - r) rounds up to n - floor(n r); the largest n with ceil(n (1 - r)) = real.
    share = 1 - ratio
    return real * share.denominator // share.numerator
