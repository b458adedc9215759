"""Runs the audit: images into spaces, thresholds from images that are no copies, proof on planted ones, verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MetricError
from ..images import check_alike
from .authenticity import authentic_share
from .clusters import Repetition, repetition
from .copying import copying_test
from .joint import JOINT, joined, scale
from .likeness import CANDIDATES
from .plants import planted, taken
from .spaces import Space, flat, keep_all
from .threshold import threshold
from .verdict import Verdict, judge, prove

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from ..images import ImageSource
    from ..intervals import Estimate
    from .spaces import Neighbours

    Kept = Mapping[str, NDArray[Any]]
    Progress = Callable[[int, int], None]

RATE = 0.01  # false alarms
PLANTED = 100  # training images copied, each in every way
FEWEST = max(20, CANDIDATES + 1)  # training images
MANY = 2  # expected false alarms among the hold-out from which on it alone sets the thresholds


@dataclass(frozen=True, kw_only=True)
class SpaceAudit:
    """What one space says."""

    rule: str
    verdict: Verdict
    fakes: Neighbours
    median: dict[str, float]  # distance to the nearest training image: of generated, hold-out and training images
    authentic: dict[str, Estimate]  # AuthPct of generated images and hold-out
    copying: Estimate | None  # C_T, for spaces of features and with a hold-out
    repeated: Repetition | None  # for spaces of features and pixels


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """All results of auditing a generator against its training set."""

    verdict: Verdict  # of all spaces together
    nearest: dict[str, Neighbours]  # of all spaces together, for "fakes" and "holdout"
    spaces: dict[str, SpaceAudit]
    sets: dict[str, dict[str, Any]]  # name, images and digest of generated, training and hold-out images
    seed: int
    controls: str  # which images set the thresholds


@dataclass(frozen=True, kw_only=True)
class Audit:
    """An audit's settings and, once prepared, what each space keeps of every set of images."""

    spaces: Sequence[Space]
    rate: float = RATE
    planted: int = PLANTED
    seed: int = 0
    progress: Progress = field(default=lambda done, total: None)

    def run(self, fakes: ImageSource, training: ImageSource, holdout: ImageSource | None = None) -> AuditResult:
        """Audit generated images against training images and a hold-out, all of one resolution.

        Raises MetricError for sets that are too small or do not fit together.
        """
        _check(fakes, training, holdout)
        partners = taken(fakes, np.arange(min(len(fakes), self.planted)))
        plants = planted(training, partners, count=self.planted, seed=self.seed)
        images = {"training": training, "fakes": fakes, "holdout": holdout, "plants": plants}
        given = {one: each for one, each in images.items() if each is not None}
        steps = Steps(self.progress, sum(map(len, given.values())) * (1 + len(self.spaces)))
        kept = {one: keep_all(each, self.spaces, steps.add) for one, each in given.items()}
        found = {space.name: _neighbours(space, kept, steps) for space in self.spaces}
        alone = holdout is not None and len(holdout) * self.rate >= MANY
        sets = ["holdout"] if alone else ["training", *(["holdout"] if holdout is not None else [])]
        independent = sum(len(given[one]) / (2 if one == "training" else 1) for one in sets)
        controls = {name: np.concatenate([each[one].distance for one in sets]) for name, each in found.items()}
        scales = {name: scale(distances) for name, distances in controls.items()}
        all_of = {one: joined({name: each[one] for name, each in found.items()}, scales) for one in kept}

        def verdict(name: str, near: Mapping[str, Neighbours]) -> Verdict:
            limit = threshold(np.concatenate([near[one].distance for one in sets]), self.rate, independent=independent)
            return judge(prove(near["plants"], plants, limit, name), near["fakes"].distance, seed=self.seed)

        return AuditResult(
            verdict=verdict(JOINT, all_of),
            nearest={one: near for one, near in all_of.items() if one in ("fakes", "holdout")},
            spaces={
                space.name: self._space(space, verdict(space.name, found[space.name]), found[space.name], kept)
                for space in self.spaces
            },
            sets={
                name: {"name": images.name, "images": len(images), "sha256": images.digest}
                for name, images in (("generated", fakes), ("training", training), ("hold-out", holdout))
                if images is not None
            },
            seed=self.seed,
            controls=" and ".join(
                {"training": "training images, each against the others", "holdout": "the hold-out"}[one] for one in sets
            ),
        )

    def _space(
        self, space: Space, verdict: Verdict, near: Mapping[str, Neighbours], kept: Mapping[str, Kept]
    ) -> SpaceAudit:
        own = near["training"].distance
        given = [one for one in ("fakes", "holdout") if one in near]
        rows = {one: flat(images[space.name]) for one, images in kept.items()} if space.linear else {}
        return SpaceAudit(
            rule=space.rule,
            verdict=verdict,
            fakes=near["fakes"],
            median={one: float(np.median(near[one].distance)) for one in (*given, "training")},
            authentic={one: authentic_share(near[one], own) for one in given},
            copying=_copying(rows, self.seed),
            repeated=repetition(rows["fakes"], rows["training"]) if rows else None,
        )


class Steps:
    """Counts what has been done, images kept and compared, and reports it."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0
        progress(0, total)

    def add(self, images: int) -> None:
        self.done += images
        self.progress(self.done, self.total)


def _neighbours(space: Space, kept: Mapping[str, Kept], steps: Steps) -> dict[str, Neighbours]:
    training = kept["training"][space.name]
    found = {}
    for one, images in kept.items():
        found[one] = space.nearest(images[space.name], training, own=one == "training")
        steps.add(len(images[space.name]))
    return found


def _copying(rows: Mapping[str, NDArray[np.float32]], seed: int) -> Estimate | None:
    """C_T, where there is a hold-out that suffices."""
    if "holdout" not in rows:
        return None
    try:
        return copying_test(rows["fakes"], rows["training"], rows["holdout"], seed=seed)
    except MetricError:
        return None


def _check(fakes: ImageSource, training: ImageSource, holdout: ImageSource | None) -> None:
    if len(training) < FEWEST:
        raise MetricError(f"{training.name}: an audit needs at least {FEWEST} training images, got {len(training)}")
    if len(fakes) < 1:
        raise MetricError(f"{fakes.name}: no images in it")
    for other in (fakes, holdout):
        if other is not None:
            check_alike(training, other)
    if holdout is not None and holdout.digest == training.digest:
        raise MetricError(f"{holdout.name}: the hold-out must hold other images than the training set, got the same")
