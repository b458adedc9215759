"""The erythema panel: how red fakes are beside reals, for all of them and for each label.

Four measures of a face, each over the same soft regions of the picture (`phantom.redness`): the erythema index above
the face's own calm skin, the bare index, CIELAB a* above calm skin, and the spread of a* over the central face, which
follows what experts rated (Spearman 0.456 over 52 faces). The severity histogram of a measure has bins that each hold
equally many reals; reals and fakes are compared by the Jensen-Shannon divergence of their histograms.

Example:

    panel = erythema_panel(reals, fakes, real_labels=labels, fake_labels=wanted)
    print(panel.table())
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...phantom.redness import Redness, mean_regions, measure
from ..errors import MetricError
from ..intervals import Estimate, bootstrap
from .divergence import chance, divergence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

MEASURES = {
    "contrast": "erythema index above calm skin",
    "index": "erythema index",
    "a_contrast": "CIELAB a* above calm skin",
    "a_spread": "spread of CIELAB a* over the central face",
}
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
FEWEST = 20  # images of a set; below, a histogram says nothing
MOST_BINS = 10
ALL = "all"
COLUMNS = (
    "redness",
    "label",
    "reals / fakes",
    "median of reals",
    "of fakes",
    "shift of the mean",
    "divergence, bits",
    "chance",
)


@dataclass(frozen=True, kw_only=True)
class RednessComparison:
    """One measure of redness of the reals and fakes of one label."""

    measure: str  # a key of MEASURES
    label: str  # name of the class, or "all"
    reals: int
    fakes: int
    real_quantiles: tuple[float, ...]  # at QUANTILES
    fake_quantiles: tuple[float, ...]
    edges: tuple[float, ...]  # between bins of the severity histogram; the outer bins are open
    real_shares: tuple[float, ...]
    fake_shares: tuple[float, ...]
    divergence: Estimate  # of the histograms, Jensen-Shannon, bits
    chance: float  # 95 % of sets of these sizes without any difference stay below it
    shift: Estimate  # mean of fakes less mean of reals, in the measure's units


@dataclass(frozen=True, kw_only=True)
class ErythemaPanel:
    """Comparisons for each measure and label, all labels together first."""

    comparisons: tuple[RednessComparison, ...]
    left_out: tuple[str, ...]  # labels with too few images, with their counts

    def of(self, measure: str, label: str = ALL) -> RednessComparison:
        """The comparison of a measure and label; KeyError if there is none."""
        for each in self.comparisons:
            if (each.measure, each.label) == (measure, label):
                return each
        raise KeyError(f"no comparison of {measure} for {label}")

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"quantiles_at": QUANTILES, "measures": MEASURES, **asdict(self)}

    def table(self) -> str:
        """The main figures as a Markdown table."""
        lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
        lines += [_table_row(each) for each in self.comparisons]
        lines += [f"\nToo few images for a histogram: {each}." for each in self.left_out]
        return "\n".join(lines)


def erythema_panel(
    reals: NDArray[np.uint8],  # [N, H, W, 3]
    fakes: NDArray[np.uint8],  # [M, H, W, 3]
    *,
    real_labels: ArrayLike | None = None,  # [N] class numbers
    fake_labels: ArrayLike | None = None,  # [M]
    classes: Sequence[str] = (),  # their names
    seed: int = 0,
) -> ErythemaPanel:
    """Measure both sets and compare them. MetricError for grey, differently sized or too few images."""
    for name, images in (("reals", reals), ("fakes", fakes)):
        check_images(name, images)
    if reals.shape[1:] != fakes.shape[1:]:
        raise MetricError(f"reals and fakes must have one size, got {reals.shape[1:3]} and {fakes.shape[1:3]}")
    regions = mean_regions(reals.shape[1])
    return compare(
        measure(reals, regions),
        measure(fakes, regions),
        real_labels=real_labels,
        fake_labels=fake_labels,
        classes=classes,
        seed=seed,
    )


def compare(
    reals: Redness,
    fakes: Redness,
    *,
    real_labels: ArrayLike | None = None,
    fake_labels: ArrayLike | None = None,
    classes: Sequence[str] = (),
    seed: int = 0,
) -> ErythemaPanel:
    """Compare sets that have been measured, batch by batch if they are large."""
    for name, found in (("reals", reals), ("fakes", fakes)):
        if len(found.index) < FEWEST:
            raise MetricError(f"the erythema panel needs at least {FEWEST} {name}, got {len(found.index)}")
    groups, left_out = _groups(reals, fakes, real_labels, fake_labels, classes)
    comparisons = [
        _comparison(name, label, getattr(reals, name)[real], getattr(fakes, name)[fake], seed)
        for name in MEASURES
        for label, real, fake in groups
    ]
    return ErythemaPanel(comparisons=tuple(comparisons), left_out=tuple(left_out))


def check_images(name: str, images: NDArray[np.uint8]) -> None:
    """Raise MetricError unless these are colour images [N, size, size, 3], size a power of two."""
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise MetricError(f"{name} must be uint8 [N, size, size, 3], got {images.dtype} {list(images.shape)}")
    size = images.shape[1]
    if images.shape[2] != size or size < 8 or size & (size - 1):
        raise MetricError(f"{name} must be square with a power of two from 8 px on, got {images.shape[2]}x{size}")
    if len(images) and (images == images[..., :1]).all():
        raise MetricError(f"{name} are grey: redness needs images in colour")


def _groups(
    reals: Redness,
    fakes: Redness,
    real_labels: ArrayLike | None,
    fake_labels: ArrayLike | None,
    classes: Sequence[str],
) -> tuple[list[tuple[str, NDArray[np.bool_], NDArray[np.bool_]]], list[str]]:
    """Name and members of each group that is large enough, and what is said of the others."""
    everyone = [np.ones(len(each.index), np.bool_) for each in (reals, fakes)]
    groups = [(ALL, everyone[0], everyone[1])]
    left_out: list[str] = []
    if real_labels is None or fake_labels is None:
        return groups, left_out
    real, fake = _labels("real_labels", real_labels, everyone[0]), _labels("fake_labels", fake_labels, everyone[1])
    for label in np.union1d(real, fake).tolist():
        name = classes[label] if 0 <= label < len(classes) else str(label)
        members = real == label, fake == label
        counts = [int(each.sum()) for each in members]
        if min(counts) < FEWEST:
            left_out.append(f"{name}, {counts[0]} reals and {counts[1]} fakes (at least {FEWEST} each)")
        else:
            groups.append((name, *members))
    return groups, left_out


def _labels(name: str, labels: ArrayLike, images: NDArray[np.bool_]) -> NDArray[np.int64]:
    found = np.asarray(labels, np.int64)
    if found.shape != images.shape:
        raise MetricError(
            f"{name} must hold one class number for each of {len(images)} images, got {list(found.shape)}"
        )
    return found


def _comparison(
    name: str, label: str, reals: NDArray[np.float64], fakes: NDArray[np.float64], seed: int
) -> RednessComparison:
    bins = min(MOST_BINS, round(min(len(reals), len(fakes)) ** 0.5))
    edges = np.unique(np.quantile(reals, np.linspace(0, 1, bins + 1)[1:-1]))
    real, fake = (np.bincount(np.digitize(each, edges), minlength=len(edges) + 1) for each in (reals, fakes))
    return RednessComparison(
        measure=name,
        label=label,
        reals=len(reals),
        fakes=len(fakes),
        real_quantiles=tuple(np.quantile(reals, QUANTILES).tolist()),
        fake_quantiles=tuple(np.quantile(fakes, QUANTILES).tolist()),
        edges=tuple(edges.tolist()),
        real_shares=tuple((real / len(reals)).tolist()),
        fake_shares=tuple((fake / len(fakes)).tolist()),
        divergence=divergence(real, fake, seed=seed),
        chance=chance(real, fake, seed=seed),
        shift=bootstrap(_mean_shift, reals, fakes, seed=seed),
    )


def _mean_shift(reals: NDArray[np.float64], fakes: NDArray[np.float64]) -> float:
    return float(fakes.mean() - reals.mean())


def _table_row(each: RednessComparison) -> str:
    middle = QUANTILES.index(0.5)
    cells = (
        MEASURES[each.measure],
        each.label,
        f"{each.reals} / {each.fakes}",
        f"{each.real_quantiles[middle]:.3g}",
        f"{each.fake_quantiles[middle]:.3g}",
        str(each.shift),
        str(each.divergence),
        f"{each.chance:.3f}",
    )
    return f"| {' | '.join(cells)} |"
