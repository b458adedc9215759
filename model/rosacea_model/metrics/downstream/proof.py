"""The downstream proof: classifiers trained on real images, on real with synthetic ones, and on synthetic ones alone.

All are tested on real images that neither the classifiers nor, if the user keeps to it, the generator have seen. Every
classifier trains for the same number of steps, so that more images do not mean more training. The i-th synthetic image
is seed i with the label of real image i, going round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...phantom.redness import mean_regions, measure
from ..errors import MetricError
from ..images import all_pixels
from .classifiers import ARCHITECTURES, predict, shrunk, train_classifier
from .scores import HeldOutImages, thirds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from ..images import DatasetImages, ImageSource
    from ..intervals import Estimate

CLASSIFIED_AT = 64  # px at most
TONES = ("darkest third by typology angle", "middle third", "lightest third")
REAL = "real alone"


@dataclass(frozen=True, kw_only=True)
class TrainingMix:
    """What a classifier is trained on: all real images or none, and synthetic ones, whose amount is a multiple of the
    number of real images."""

    real: bool
    amount: float  # of synthetic images

    @property
    def name(self) -> str:
        if not self.amount:
            return REAL
        return f"real and {self.amount:g} x synthetic" if self.real else f"{self.amount:g} x synthetic alone"


@dataclass(frozen=True, kw_only=True)
class MixScore:
    """How classifiers trained on one mix do on the real test images."""

    mix: TrainingMix
    images: int
    balanced: Estimate  # balanced accuracy: mean recall over classes
    recalls: tuple[Estimate, ...]  # of each class
    groups: tuple[Estimate, ...]  # balanced accuracy of each group
    worst_group: Estimate
    gain: Estimate | None  # of balanced accuracy over real alone; the intervals of all gains hold together
    worst_group_gain: Estimate | None
    of_architectures: tuple[float, ...]  # balanced accuracy of each


@dataclass(frozen=True, kw_only=True)
class ProofResult:
    """Scores of every mix."""

    classes: tuple[str, ...]
    groups: tuple[str, ...]
    architectures: tuple[str, ...]
    seeds: int
    steps: int
    resolution: int
    real_images: int
    test_images: int
    scores: tuple[MixScore, ...]

    def sentence(self) -> str:
        """The answer: whether synthetic images help, as far as the intervals allow one."""
        added = [score for score in self.scores if score.mix.real and score.gain is not None]
        helps, hurts = ([s for s in added if each(s)] for each in (_above, _below))
        if helps:
            best = max(helps, key=lambda score: score.gain.value if score.gain else 0.0)
            return f"Synthetic images help: {best.mix.name} gains {best.gain} of balanced accuracy over {REAL}."
        if hurts:
            worst = min(hurts, key=lambda score: score.gain.value if score.gain else 0.0)
            return f"Synthetic images do not help: {worst.mix.name} changes balanced accuracy by {worst.gain}."
        return (
            f"No gain can be told: with {self.seeds} seeds and {self.test_images} test images every interval of the "
            f"difference to {REAL} holds 0."
        )


def _above(score: MixScore) -> bool:
    return score.gain is not None and score.gain.low > 0


def _below(score: MixScore) -> bool:
    return score.gain is not None and score.gain.high < 0


@dataclass(frozen=True, eq=False)
class LabelledPixels:
    """Images and class numbers."""

    pixels: NDArray[np.uint8]  # [N, size, size, 3]
    labels: NDArray[np.int64]  # [N]

    def first(self, count: int) -> LabelledPixels:
        return LabelledPixels(self.pixels[:count], self.labels[:count])

    def with_others(self, others: LabelledPixels) -> LabelledPixels:
        return LabelledPixels(
            np.concatenate([self.pixels, others.pixels]), np.concatenate([self.labels, others.labels])
        )


def mixes(amounts: Sequence[float]) -> list[TrainingMix]:
    """Real alone, real with each amount, and each amount alone."""
    if bad := [amount for amount in amounts if not 0 < amount <= 1000]:
        raise MetricError(f"amounts of synthetic images must be above 0 and at most 1000, got {bad[0]:g}")
    return [
        TrainingMix(real=True, amount=0),
        *(TrainingMix(real=real, amount=amount) for real in (True, False) for amount in amounts),
    ]


def prove(
    real: DatasetImages,
    test: DatasetImages,
    synthetic: Callable[[int, NDArray[np.float32]], ImageSource],  # (count, label rows [N, classes]) -> images
    *,
    amounts: Sequence[float],
    seeds: int,
    steps: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ProofResult:
    """Train and test every mix with every architecture and seed."""
    planned = mixes(amounts)
    size = min(real.resolution, test.resolution, CLASSIFIED_AT)
    known, unseen = _classified(real, size), _classified(test, size)
    _check(real, test, known, unseen)
    classes = real.labels.shape[1]
    count = round(max(amounts, default=0) * len(real))
    drawn = _drawn(synthetic(count, real.labels), real.labels, size)
    results: dict[str, list[NDArray[np.bool_]]] = {mix.name: [] for mix in planned}
    total = len(planned) * len(ARCHITECTURES) * seeds
    for done, (mix, architecture, seed) in enumerate(_runs(planned, seeds)):
        progress(done, total)
        data = _mixed(mix, known, drawn)
        network = train_classifier(
            data.pixels, data.labels, classes=classes, architecture=architecture, seed=seed, steps=steps
        )
        results[mix.name].append(predict(network, unseen.pixels) == unseen.labels)
    progress(total, total)
    tone = measure(all_pixels(test), mean_regions(test.resolution)).tone
    return ProofResult(
        classes=tuple(real.images.classes) or tuple(map(str, range(classes))),
        groups=TONES,
        architectures=tuple(ARCHITECTURES),
        seeds=seeds,
        steps=steps,
        resolution=size,
        real_images=len(real),
        test_images=len(test),
        scores=scored(planned, results, HeldOutImages.of(unseen.labels, thirds(tone)), len(real)),
    )


def scored(
    planned: Sequence[TrainingMix], results: Mapping[str, Sequence[NDArray[np.bool_]]], test: HeldOutImages, real: int
) -> tuple[MixScore, ...]:
    """Scores of each mix from what its runs got right, one [T] for each architecture and seed, architecture first."""
    reference = np.stack(results[REAL])
    comparisons = len(planned) - 1
    found = []
    for mix in planned:
        right = np.stack(results[mix.name])
        gains = {
            name: test.estimate(score(right) - score(reference), comparisons=comparisons) if mix.name != REAL else None
            for name, score in (("gain", test.balanced), ("worst_group_gain", test.worst))
        }
        balanced = test.balanced(right)
        found.append(
            MixScore(
                mix=mix,
                images=(real if mix.real else 0) + round(mix.amount * real),
                balanced=test.estimate(balanced),
                recalls=tuple(test.estimate(test.recall(right, label)) for label in np.unique(test.truth).tolist()),
                groups=tuple(test.estimate(test.balanced(right, group)) for group in np.unique(test.groups).tolist()),
                worst_group=test.estimate(test.worst(right)),
                of_architectures=tuple(float(each.mean()) for each in np.split(balanced[:, 0], len(ARCHITECTURES))),
                **gains,
            )
        )
    return tuple(found)


def _runs(planned: Sequence[TrainingMix], seeds: int) -> Iterator[tuple[TrainingMix, str, int]]:
    for mix in planned:
        for architecture in ARCHITECTURES:
            for seed in range(seeds):
                yield mix, architecture, seed


def _classified(images: DatasetImages, size: int) -> LabelledPixels:
    labels = images.labels
    if labels.shape[1] < 2 or not ((labels == 0) | (labels == 1)).all() or (labels.sum(axis=1) != 1).any():
        raise MetricError(f"{images.name} must be labelled with at least 2 classes, for a classifier to learn")
    return LabelledPixels(shrunk(all_pixels(images), size), labels.argmax(axis=1))


def _drawn(images: ImageSource, labels: NDArray[np.float32], size: int) -> LabelledPixels:
    pixels = np.concatenate([shrunk(batch.pixels, size) for batch in images.batches()])
    return LabelledPixels(pixels, labels.argmax(axis=1)[np.arange(len(pixels)) % len(labels)])


def _mixed(mix: TrainingMix, real: LabelledPixels, drawn: LabelledPixels) -> LabelledPixels:
    synthetic = drawn.first(round(mix.amount * len(real.pixels)))
    if not mix.real:
        return synthetic
    return real.with_others(synthetic) if mix.amount else real


def _check(real: DatasetImages, test: DatasetImages, known: LabelledPixels, unseen: LabelledPixels) -> None:
    """Raise MetricError unless real training set and test set have equally many classes, the test set has images of
    each, and no image is in both."""
    if real.labels.shape[1] != test.labels.shape[1]:
        raise MetricError(
            f"{real.name} and {test.name} must have the same classes, got {real.labels.shape[1]} and "
            f"{test.labels.shape[1]}"
        )
    missing = sorted(set(range(real.labels.shape[1])) - set(unseen.labels.tolist()))
    if missing:
        raise MetricError(f"{test.name} must hold images of every class, got none of class {missing[0]}")
    seen = {image.tobytes() for image in known.pixels}
    shared = [place for place, image in enumerate(unseen.pixels) if image.tobytes() in seen]
    if shared:
        raise MetricError(
            f"{len(shared)} of the images of {test.name} are in {real.name} too, such as "
            f"{test.images.name(test.chosen[shared[0]])}: test images must not be trained on"
        )
