"""What the audit says, and only after it has shown on planted copies what it can see."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from ..intervals import LEVEL, Estimate, wilson
from .plants import KINDS, Alteration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .plants import PlantedImages
    from .spaces import Neighbours
    from .threshold import Threshold

EXACT_SHARE, ALTERED_SHARE = 0.99, 0.95  # of planted copies to be found before "none" may be said
SIGNIFICANCE = 0.01  # of "copies", over all spaces together
DRAWS = 20_000
REMEDY = (
    "Near duplicates among the training images do that (`rosacea data prepare --exclude duplicates` leaves them out), "
    "and so do too few images: a larger hold-out helps."
)


class Conclusion(StrEnum):
    """Whether a generator copies."""

    copies = "copies"
    none_found = "none found"
    cannot_say = "cannot say"


@dataclass(frozen=True, kw_only=True)
class PlantCount:
    """How well planted copies of some kinds were found."""

    planted: int
    found: int
    right: int  # of the found, those whose nearest image is the one that was copied

    @property
    def share(self) -> Estimate:
        low, high = wilson(self.found / self.planted, self.planted)
        return Estimate(value=self.found / self.planted, low=low, high=high, n=self.planted, method="Wilson")


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What a space finds of planted copies, at which rate of false alarms."""

    space: str
    threshold: Threshold
    findings: dict[Alteration, PlantCount]

    @property
    def exact(self) -> PlantCount:
        return self.findings[Alteration.exact]

    @property
    def altered(self) -> PlantCount:
        """All altered copies together."""
        rest = [self.findings[kind] for kind in KINDS if kind != Alteration.exact]
        return PlantCount(
            planted=sum(each.planted for each in rest),
            found=sum(each.found for each in rest),
            right=sum(each.right for each in rest),
        )

    @property
    def holds(self) -> bool:
        """Whether enough is found that finding nothing means something."""
        return self.exact.share.value >= EXACT_SHARE and self.altered.share.value >= ALTERED_SHARE

    @property
    def line(self) -> str:
        """The sentence without which no verdict is printed."""
        kinds = ", ".join(f"{kind} {self.findings[kind].share.value:.0%}" for kind in KINDS if kind != Alteration.exact)
        alarms = self.threshold.false_alarms
        return (
            f"Of {self.exact.planted + self.altered.planted} planted copies the {self.space} space finds "
            f"{_percent(self.exact.share)} of the exact and {_percent(self.altered.share)} of the altered ones "
            f"({kinds}), at {_percent(alarms)} false alarms ({alarms.n} images that are no copies)."
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is said about a generator's images in one space. It cannot be made without a proof."""

    proof: Proof
    images: int
    alarms: int
    p_value: float  # of as many alarms if nothing is copied
    copied: Estimate  # share of the images that are copies
    conclusion: Conclusion

    def __str__(self) -> str:
        return f"{self.proof.line}\n{self.sentence}"

    @property
    def sentence(self) -> str:
        seen = (
            f"{self.alarms} of {self.images} generated images are as near to a training image as a copy "
            f"(expected of images that are no copies: {self.proof.threshold.rate * self.images:.1f}; "
            f"p = {self.p_value:.2g})"
        )
        if self.conclusion == Conclusion.copies:
            return f"{seen}: copies of training images, about {_percent(self.copied)} of what is generated."
        if self.conclusion == Conclusion.none_found:
            return f"{seen}: no sign of copies; at most {self.copied.high:.1%} are."
        return f"{seen}: nothing can be said, since planted copies are not found well enough. {REMEDY}"


def prove(found: Neighbours, plants: PlantedImages, limit: Threshold, space: str) -> Proof:
    """Count how many planted copies are nearer than the threshold."""
    alarms = limit.alarms(found.distance)
    right = alarms & (found.index == plants.source)
    findings = {
        kind: PlantCount(planted=int(of.sum()), found=int((alarms & of).sum()), right=int((right & of).sum()))
        for kind, of in ((kind, plants.kind == place) for place, kind in enumerate(KINDS))
    }
    return Proof(space=space, threshold=limit, findings=findings)


def judge(proof: Proof, distance: NDArray[np.float64], *, spaces: int = 1, seed: int = 0) -> Verdict:
    """The verdict on images with these distances [N]; `spaces` are judged in all, so each at its part of the level.

    "Copies" needs only that false alarms are rare; "none found" also that copies would have been found.
    """
    alarms = int(proof.threshold.alarms(distance).sum())
    p_value = proof.threshold.p_value(alarms, len(distance))
    conclusion = Conclusion.none_found if proof.holds else Conclusion.cannot_say
    return Verdict(
        proof=proof,
        images=len(distance),
        alarms=alarms,
        p_value=p_value,
        copied=copied_share(proof, alarms, len(distance), seed=seed),
        conclusion=Conclusion.copies if p_value < SIGNIFICANCE / spaces else conclusion,
    )


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict that counts: the clearest "copies", else that of the space that finds most planted copies."""
    accusing = [verdict for verdict in verdicts if verdict.conclusion == Conclusion.copies]
    if accusing:
        return min(accusing, key=lambda verdict: verdict.p_value)
    return max(verdicts, key=lambda verdict: (verdict.proof.holds, verdict.proof.altered.found))


def copied_share(proof: Proof, alarms: int, images: int, *, seed: int) -> Estimate:
    """Share of copies among images, from the share of alarms (Rogan and Gladen 1978).

    (alarms - false alarms) / (share found - false alarms), cut to [0, 1]. The interval comes from draws of the three
    shares: of alarms and finds by Jeffreys' prior, of false alarms from the threshold's own distribution. The share
    found is that of the planted kinds together; copies that are harder to see are missed.
    """
    rng = np.random.default_rng(seed)
    limit = proof.threshold
    planted, found = (
        proof.exact.planted + proof.altered.planted,
        proof.exact.found + proof.altered.found,
    )
    rank, controls = limit.counted
    false = rng.beta(rank, controls + 1 - rank, DRAWS)
    seen = rng.beta(alarms + 0.5, images - alarms + 0.5, DRAWS)
    finds = rng.beta(found + 0.5, planted - found + 0.5, DRAWS)
    low, high = np.quantile(_corrected(seen, false, finds), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = float(_corrected(np.array(alarms / images), np.array(limit.rate), np.array(found / planted)))
    return Estimate(
        value=value,
        low=min(float(low), value),
        high=max(float(high), value),
        n=images,
        seed=seed,
        method="Rogan-Gladen",
    )


def _corrected(
    seen: NDArray[np.float64], false: NDArray[np.float64], finds: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.clip((seen - false) / np.maximum(finds - false, 1e-3), 0, 1)


def _percent(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"
