"""Defines which face is sample i of epoch e: a pure function of (data set seed, epoch, i).

The derivation, version 1, stands in protos/DATASETS.md, so that any language can repeat it.
It knows no rank, worker, batch or length: those decide who asks for a sample and when, never what it is.

    plan = Plan(seed=7, labels=Labels.balanced(4))
    plan.sample(epoch=0, index=12)              # Sample(index=12, epoch=0, seed=..., class_index=...)
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from math import gcd, lcm
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SCHEME = "rosacea-plan-1"
ROUNDS = 6  # of the Feistel network that permutes the seeds
MAX_DATASET_SEED = 2**64 - 1
MAX_INDEX = 2**32 - 1  # there are no more seeds than that
MAX_QUOTA = 10_000  # samples in a block with exact shares
MAX_WEIGHTS_SUM = 2**32


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Seed and class of one sample."""

    index: int  # its place in the epoch
    epoch: int
    seed: int  # below 2**32
    class_index: int | None  # None for an unconditional model


@dataclass(frozen=True)
class Labels:
    """Rule that assigns classes to samples, such as balanced or fixed. `shares` are whole numbers, one for each class;
    for `fixed`, the class itself.

    Labels.none()                        # an unconditional model, or the zero label
    Labels.fixed(2)
    Labels.drawn([0.7, 0.2, 0.1])        # each sample by itself, with these probabilities
    Labels.balanced(4)                   # in every aligned block of 4 samples each class once
    Labels.quota([3, 1])                 # in every aligned block of 4 samples three and one
    Labels.filling({0: 900, 1: 120})     # what brings such a real data set closest to balance: quota of what lacks
    """

    kind: str
    shares: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("none", "fixed", "drawn", "quota"):
            raise ValueError(f"labels must be none, fixed, drawn or quota, got {self.kind!r}")
        if any(share < 0 for share in self.shares):
            raise ValueError(f"shares of classes must be at least 0, got {list(self.shares)}")
        total, most = sum(self.shares), {"drawn": MAX_WEIGHTS_SUM, "quota": MAX_QUOTA}.get(self.kind)
        if most is not None and not 0 < total <= most:
            raise ValueError(f"shares of {self.kind} labels must add up to 1 to {most}, got {total}")

    @classmethod
    def none(cls) -> Labels:
        """Samples without labels."""
        return cls("none")

    @classmethod
    def fixed(cls, class_index: int) -> Labels:
        """All samples have this class."""
        return cls("fixed", (class_index,))

    @classmethod
    def drawn(cls, weights: Sequence[float | str]) -> Labels:
        """Draw the class of each sample independently with these weights, read as exact decimals."""
        exact = [Fraction(str(weight)) for weight in weights]
        scale = lcm(*(weight.denominator for weight in exact))
        return cls("drawn", _reduced([int(weight * scale) for weight in exact]))

    @classmethod
    def quota(cls, counts: Sequence[int]) -> Labels:
        """Exactly these numbers of each class in every aligned block of as many samples as they add up to."""
        return cls("quota", _reduced(counts))

    @classmethod
    def balanced(cls, classes: int) -> Labels:
        """Every class once in each aligned block of `classes` samples."""
        return cls.quota([1] * classes)

    @classmethod
    def filling(cls, counts: Mapping[int, int]) -> Labels:
        """Fill up the rarer classes of a real data set with `counts` images of each class."""
        most = max(counts.values())
        missing = [most - counts.get(label, 0) for label in range(max(counts) + 1)]
        if not any(missing):
            raise ValueError(f"counts are balanced already, nothing is missing: {dict(counts)}")
        total = sum(missing)
        if total > MAX_QUOTA:  # finer shares than that nobody can see
            missing = [round(each * MAX_QUOTA / (2 * total)) for each in missing]
        return cls.quota(missing)

    @classmethod
    def parse(cls, text: str) -> Labels:
        """Parse `none`, `fixed:2`, `drawn:0.7,0.3`, `balanced:4` or `quota:3,1`."""
        kind, _, rest = text.partition(":")
        try:
            match kind:
                case "none" if not rest:
                    return cls.none()
                case "fixed":
                    return cls.fixed(int(rest))
                case "balanced":
                    return cls.balanced(int(rest))
                case "drawn":
                    return cls.drawn(rest.split(","))
                case "quota":
                    return cls.quota([int(part) for part in rest.split(",")])
        except (ValueError, ZeroDivisionError) as error:
            raise ValueError(f"labels {text[:80]!r} cannot be read: {error}") from None
        forms = "none, fixed:CLASS, drawn:WEIGHT,..., balanced:CLASSES or quota:COUNT,..."
        raise ValueError(f"labels must be {forms}, got {text[:80]!r}")

    def __str__(self) -> str:
        return self.kind if self.kind == "none" else f"{self.kind}:{','.join(map(str, self.shares))}"

    def of(self, dataset_seed: int, epoch: int, index: int) -> int | None:
        """The class of sample `index`, None without labels."""
        match self.kind:
            case "none":
                return None
            case "fixed":
                return self.shares[0]
            case "drawn":
                number = int.from_bytes(_hash("label", dataset_seed, epoch, index)[:8], "big")
                return bisect_right(list(accumulate(self.shares)), number * sum(self.shares) >> 64)
            case _:
                block, place = divmod(index, sum(self.shares))
                return _shuffled(self.shares, dataset_seed, epoch, block)[place]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Definition of the samples of a data set of any length.

    With `fresh` every epoch has faces of its own; without, every epoch has those of epoch 0, so that a cache can
    answer from the second one on. Within an epoch no seed comes twice; between epochs one may.
    """

    seed: int = 0
    labels: Labels | None = None  # None = each class as often as another, where the model has classes
    fresh: bool = True
    first_face: int | None = None  # sample i is this seed + i in every epoch, and no seed is drawn
    faces: tuple[int, ...] | None = None  # sample i is the face of the i-th of these seeds in every epoch

    def __post_init__(self) -> None:
        if self.faces is not None:
            self._check_faces(self.faces)
        if self.first_face is not None and not 0 <= self.first_face <= MAX_INDEX:
            raise ValueError(f"the seed of the first face must be from 0 to 2**32 - 1, got {self.first_face}")
        if not 0 <= self.seed <= MAX_DATASET_SEED:
            raise ValueError(f"the seed of a data set must be from 0 to 2**64 - 1, got {self.seed}")

    def settled(self, classes: int) -> Plan:
        """The plan for a model of `classes` classes, 0 if unconditional; labels default to balanced. ValueError if they
        are `none` for a model with classes."""
        if self.labels is None:
            return replace(self, labels=Labels.balanced(classes) if classes else Labels.none())
        if classes and self.labels == Labels.none():
            rule = f"balanced:{classes} (the default), fixed:CLASS, drawn:WEIGHT,... or quota:COUNT,..."
            raise ValueError(f"the model has classes 0 to {classes - 1}: labels must be {rule}, got none")
        return self

    def sample(self, epoch: int, index: int) -> Sample:
        """Sample `index` of `epoch`, both counted from 0."""
        if not 0 <= index <= MAX_INDEX:
            raise ValueError(f"the index of a sample must be from 0 to 2**32 - 1, got {index}")
        if epoch < 0:
            raise ValueError(f"an epoch must be at least 0, got {epoch}")
        drawn_in = epoch if self.fresh else 0
        return Sample(
            index=index,
            epoch=epoch,
            seed=self._face(drawn_in, index),
            class_index=self.labels.of(self.seed, drawn_in, index) if self.labels else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data with the scheme's name."""
        first = {} if self.first_face is None else {"first_face": self.first_face}
        faces = {} if self.faces is None else {"faces": list(self.faces)}
        stated = {"seed": self.seed, "labels": str(self.labels or "none"), "fresh": self.fresh}
        return {"scheme": SCHEME, **stated, **first, **faces}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Read what `to_json` gave; ValueError for a scheme that this version does not know."""
        if data.get("scheme") != SCHEME:
            raise ValueError(f"the scheme of a plan must be {SCHEME}, got {data.get('scheme')!r}")
        first, faces = data.get("first_face"), data.get("faces")
        return cls(
            seed=int(data["seed"]),
            labels=Labels.parse(data["labels"]),
            fresh=bool(data["fresh"]),
            first_face=None if first is None else int(first),
            faces=None if faces is None else tuple(map(int, faces)),
        )

    def _check_faces(self, faces: tuple[int, ...]) -> None:
        if self.first_face is not None:
            raise ValueError("a plan takes its faces from first_face or from faces, got both")
        if not faces or not 0 <= min(faces) <= max(faces) <= MAX_INDEX:
            found = f"{min(faces)} to {max(faces)}" if faces else "none"
            raise ValueError(f"faces must be seeds from 0 to 2**32 - 1, got {found}")

    def _face(self, epoch: int, index: int) -> int:
        """The seed of a sample: listed, counted or drawn."""
        if self.faces is not None:
            if index >= len(self.faces):
                raise ValueError(
                    f"the index of a sample must be below {len(self.faces)}, the listed faces, got {index}"
                )
            return self.faces[index]
        return face_seed(self.seed, epoch, index) if self.first_face is None else self._seed_from(index)

    def _seed_from(self, index: int) -> int:
        assert self.first_face is not None
        if self.first_face + index > MAX_INDEX:
            raise ValueError(f"the seed of a face must be below 2**32, got {self.first_face} + {index}")
        return self.first_face + index


def face_seed(dataset_seed: int, epoch: int, index: int) -> int:
    """Face seed at position `index` of a pseudorandom permutation of all 2**32 seeds (Luby and Rackoff 1988)."""
    left, right = index >> 16, index & 0xFFFF
    for turn in range(ROUNDS):
        left, right = right, left ^ int.from_bytes(_hash("seed", dataset_seed, epoch, turn, right)[:2], "big")
    return left << 16 | right


def blocks_of(slot: int, slots: int, start: int, count: int, block: int) -> Iterator[range]:
    """Ranges of `block` indices that reader `slot` of `slots` yields: every `slots`th block from `start` on.

    Read in turn, the slots give start, start + 1, ..., count - 1 in this order, however many there are.
    """
    for first in range(start + slot * block, count, slots * block):
        yield range(first, min(first + block, count))


def _hash(purpose: str, *numbers: int) -> bytes:
    text = " ".join([SCHEME, purpose, *map(str, numbers)])
    return hashlib.sha256(text.encode("ascii")).digest()


@lru_cache(maxsize=64)
def _shuffled(shares: tuple[int, ...], dataset_seed: int, epoch: int, block: int) -> tuple[int, ...]:
    """The classes of one block, in an order that depends only on the data set's seed, the epoch and the block's
    number."""
    classes = [label for label, share in enumerate(shares) for _ in range(share)]
    order = sorted(range(len(classes)), key=lambda place: _hash("quota", dataset_seed, epoch, block, place))
    return tuple(classes[place] for place in order)


def _reduced(shares: Sequence[int]) -> tuple[int, ...]:
    common = gcd(*shares) or 1
    return tuple(share // common for share in shares)
