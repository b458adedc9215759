"""Chooses faces by a written rule, seed by seed in order, and says why each was kept or dropped.

Every limit is a share of the training images, measured as the faces are: a rule is the same for every model, and the
same rule on the same seeds keeps the same faces. A face is dropped for the first of these that it does not meet:

- bar: no bar over the eyes;
- copy: not as near to a training image as a copy is, in all spaces of the audit together;
- redness: the erythema contrast of its class, neither below nor above what nearly all training images have;
- score: the discriminator's score, if there is a run, not below what nearly all training images have;
- alike: not nearer to a face that is kept already than training images are to one another.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..data.screening.bars import find_bar
from ..phantom.redness import mean_regions, measure
from .audit.clusters import nearest_other
from .audit.joint import joined, scale
from .audit.spaces import flat, keep_all
from .audit.threshold import threshold
from .errors import MetricError
from .images import check_alike

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from .audit.membership import Judge
    from .audit.spaces import Neighbours, Space
    from .images import ImageBatch, ImageSource

    Kept = Mapping[str, NDArray[Any]]

FORMAT = "rosacea-curation/1"
BATCH = 16  # faces drawn at once; those drawn after the last one needed are thrown away


class CurationCheck(StrEnum):
    """What a face may be dropped for, in the order in which it is looked at."""

    bar = "bar"
    copy = "copy"
    redness = "redness"
    score = "score"
    alike = "alike"


@dataclass(frozen=True, kw_only=True)
class CurationRule:
    """Shares of training images that each check would drop; 0 leaves a check out."""

    bars: bool = True
    copy: float = 0.01
    redness: float = 0.05  # of the images of the class: half of it below, half above
    score: float = 0.01
    alike: float = 0.01

    def __post_init__(self) -> None:
        for name, share in asdict(self).items():
            if not 0 <= share < 0.5 and name != "bars":
                raise MetricError(f"{name} must be a share from 0 to below 0.5 of the training images, got {share:g}")


@dataclass(frozen=True, kw_only=True)
class CurationLimits:
    """What a rule means on one training set."""

    copy: float = -np.inf  # joint distance to the nearest training image, at least
    redness: tuple[float, float] = (-np.inf, np.inf)  # erythema contrast
    score: float = -np.inf
    alike: dict[str, float] = field(default_factory=dict)  # distance to a kept face in each space, at least


@dataclass(frozen=True, kw_only=True)
class SeedDecision:
    """What was decided on one seed."""

    seed: int
    dropped_for: CurationCheck | None  # None = kept
    why: str
    values: dict[str, float]  # all that was measured

    @property
    def kept(self) -> bool:
        return self.dropped_for is None


class Curator:
    """Knows the training images, the rule, and the faces kept so far."""

    def __init__(
        self,
        training: ImageSource,
        spaces: Sequence[Space],
        rule: CurationRule,
        *,
        label: NDArray[np.float32] | None = None,  # [c_dim] of the faces, None for an unconditional model
        judge: Judge | None = None,
        advance: Callable[[int], None] = lambda images: None,
    ) -> None:
        self.training, self.spaces, self.rule, self.judge = training, spaces, rule, judge
        self.regions = mean_regions(training.resolution)
        self.known: Kept = keep_all(training, spaces, advance)
        own = {space.name: space.nearest(self.known[space.name], self.known[space.name], own=True) for space in spaces}
        self.scales = {name: scale(near.distance) for name, near in own.items()}
        self.company = judge.companions(training)[0] if judge else None
        self.limits = self._limits(own, label)
        self.chosen = {name: flat(self.known[name])[:0] for name in self.limits.alike}  # [kept, D] of each space
        self.seeds: list[int] = []

    def _limits(self, own: Mapping[str, Neighbours], label: NDArray[np.float32] | None) -> CurationLimits:
        rule = self.rule
        redness = self._training_redness(label) if rule.redness else np.zeros(1)
        low, high = np.quantile(redness, [rule.redness / 2, 1 - rule.redness / 2])
        scores = self.judge.scores(self.training, self.company) if self.judge and self.company is not None else None
        linear = [space.name for space in self.spaces if space.linear and rule.alike]
        return CurationLimits(
            copy=threshold(joined(own, self.scales).distance, rule.copy).distance if rule.copy else -np.inf,
            redness=(float(low), float(high)) if rule.redness else (-np.inf, np.inf),
            score=float(np.quantile(scores, rule.score)) if scores is not None and rule.score else -np.inf,
            alike={name: float(np.quantile(nearest_other(flat(self.known[name])), rule.alike)) for name in linear},
        )

    def _training_redness(self, label: NDArray[np.float32] | None) -> NDArray[np.float64]:
        """Erythema contrast of the training images of a class; of all, if they have no classes."""
        found, rows = [], []
        for batch in self.training.batches():
            found.append(measure(batch.pixels, self.regions).contrast)
            rows.append(batch.labels)
        contrast, labels = np.concatenate(found), np.concatenate(rows)
        if label is None or labels.shape[1:] != label.shape:
            return contrast
        same = (labels == label).all(axis=1)
        if not same.any():
            raise MetricError(f"{self.training.name}: no training image has the label {label.tolist()}")
        return np.asarray(contrast[same], np.float64)

    def decide(self, batch: ImageBatch, seeds: Sequence[int]) -> Iterator[SeedDecision]:
        """Decide on the faces of a batch, in order; each that is kept counts for those after it."""
        kept = {space.name: space.keep(batch.pixels) for space in self.spaces}
        near = {space.name: space.nearest(kept[space.name], self.known[space.name]) for space in self.spaces}
        together = joined(near, self.scales)
        contrast = measure(batch.pixels, self.regions).contrast
        scores = None
        if self.judge is not None and self.company is not None:
            scores = self.judge.logits(batch.pixels, batch.labels, self.company)
        for place, seed in enumerate(seeds):
            values = {"copy": float(together.distance[place]), "redness": float(contrast[place])}
            if scores is not None:
                values["score"] = float(scores[place])
            rows = {name: flat(kept[name][place : place + 1])[0] for name in self.limits.alike}
            found = self._first_failure(batch.pixels[place], values, int(together.index[place]), rows)
            if found is None:
                self._keep(seed, rows)
            check, why = found or (None, "kept")
            yield SeedDecision(seed=seed, dropped_for=check, why=why, values=values)

    def _first_failure(
        self,
        image: NDArray[np.uint8],
        values: Mapping[str, float],
        original: int,
        rows: Mapping[str, NDArray[np.float32]],
    ) -> tuple[CurationCheck, str] | None:
        limits, (low, high) = self.limits, self.limits.redness
        if self.rule.bars and find_bar(Image.fromarray(image)):
            return CurationCheck.bar, "a bar over the eyes"
        if values["copy"] < limits.copy:
            return CurationCheck.copy, f"{values['copy']:.2f} from training image {original}, below {limits.copy:.2f}"
        if not low <= values["redness"] <= high:
            return CurationCheck.redness, f"contrast {values['redness']:.3f}, outside of {low:.3f} to {high:.3f}"
        if values.get("score", np.inf) < limits.score:
            return CurationCheck.score, f"score {values['score']:.2f}, below {limits.score:.2f}"
        return self._twin(rows)

    def _twin(self, rows: Mapping[str, NDArray[np.float32]]) -> tuple[CurationCheck, str] | None:
        for name, limit in self.limits.alike.items():
            distances = np.linalg.norm(self.chosen[name] - rows[name], axis=1)
            if len(distances) and distances.min() < limit:
                seed = self.seeds[int(distances.argmin())]
                return CurationCheck.alike, f"{distances.min():.3g} from seed {seed} in {name}, below {limit:.3g}"
        return None

    def _keep(self, seed: int, rows: Mapping[str, NDArray[np.float32]]) -> None:
        self.seeds.append(seed)
        for name, row in rows.items():
            self.chosen[name] = np.vstack([self.chosen[name], row])


@dataclass(frozen=True, kw_only=True)
class Curation:
    """The seeds that were kept, and every decision."""

    rule: CurationRule
    limits: CurationLimits
    decisions: tuple[SeedDecision, ...]

    @property
    def seeds(self) -> list[int]:
        return [decision.seed for decision in self.decisions if decision.kept]

    @property
    def dropped(self) -> Counter[CurationCheck]:
        return Counter(decision.dropped_for for decision in self.decisions if decision.dropped_for)


def curate(
    faces: ImageSource,
    seeds: Sequence[int],
    curator: Curator,
    *,
    count: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Curation:
    """Decide on faces in order until `count` are kept, or on all of them. `progress` gets (done, total)."""
    check_alike(curator.training, faces)
    decisions: list[SeedDecision] = []
    progress(0, len(faces))
    for batch in faces.batches(BATCH):
        first = len(decisions)
        for decision in curator.decide(batch, seeds[first : first + len(batch.pixels)]):
            decisions.append(decision)
            if count is not None and len(curator.seeds) >= count:
                return Curation(rule=curator.rule, limits=curator.limits, decisions=tuple(decisions))
        progress(len(decisions), len(faces))
    return Curation(rule=curator.rule, limits=curator.limits, decisions=tuple(decisions))
