"""How well redness follows the requested severity on faces without ground truth.

Phantoms measured in the same way tell what can be reached at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ..redness import Redness

GRADES = 4  # none, mild, moderate, severe
TONES = 3


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well redness follows severity: Spearman's rank correlation, with the numbers it comes from."""

    contrast: float  # the primary figure: above the face's own calm skin
    pooled: float  # the bare index, whatever the tone of the skin
    tone_thirds: tuple[float, ...]  # the bare index within the darkest, middle and lightest third
    mean_contrast: tuple[float, ...]  # for each severity
    tone: float  # of severity with skin tone, lightness up; 0 = independent
    tone_spread: float  # standard deviation of skin tone over faces, degrees


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """How redness rises with severity when the same latents are drawn at every severity."""

    spearman: float
    rising: float  # share of steps from one severity to the next at which the index rises


def agreement(found: Redness, severity: NDArray[np.int64]) -> Agreement:
    """How redness follows severity [N] from face to face."""
    third = (TONES * ranks(found.tone) / len(found.tone)).astype(int)
    within = [spearman(found.index[third == tone], severity[third == tone]) for tone in range(TONES)]
    return Agreement(
        contrast=spearman(found.contrast, severity),
        pooled=spearman(found.index, severity),
        tone_thirds=tuple(within),
        mean_contrast=tuple(float(found.contrast[severity == grade].mean()) for grade in range(GRADES)),
        tone=spearman(found.tone, severity),
        tone_spread=float(found.tone.std()),
    )


def ladder(index: NDArray[np.float64]) -> Ladder:
    """How the erythema index [latents, GRADES], a column for each severity, rises when only the severity changes."""
    above = index - index.mean(axis=1, keepdims=True)
    severity = np.broadcast_to(np.arange(GRADES), index.shape)
    return Ladder(spearman=spearman(above.ravel(), severity.ravel()), rising=float((np.diff(index, axis=1) > 0).mean()))


def spearman(one: ArrayLike, other: ArrayLike) -> float:
    """Rank correlation, ties sharing their mean rank; 0 where one of the two does not vary."""
    first, second = ranks(one), ranks(other)
    if len(first) < 2 or not first.std() or not second.std():
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks from 0; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    mean: NDArray[np.float64] = last - (counts - 1) / 2
    return mean[inverse]
