"""The whole evaluation of a model: which images are compared, and every number with what it was computed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..encoders.joint import JointEncoder
from ..errors import MetricError
from ..erythema.encoder import RednessEncoder, redness_of
from ..erythema.panel import compare as compare_redness
from ..features import features
from ..images import DatasetImages, ModelImages, check_alike
from .frechet import frechet
from .gap import holdout_gap
from .kernel import SUBSET_SIZE, kid
from .neighbours import Coverage, coverage
from .path import path_length

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from ..encoders.protocol import Encoder
    from ..erythema.panel import ErythemaPanel
    from ..images import ImageSource
    from ..intervals import Estimate

REFERENCE_SAMPLES = 50_000
LEAST = 24  # images on each side: half of them must have neighbours


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What to compare and how."""

    seed: int = 0  # of splits, subsets and path lengths
    reference: bool = False  # rules of the reference implementation: population covariance, subsets of any size
    path_pairs: int = 200  # 0 = no path length
    cache: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All metrics of one set of images against another."""

    name: str
    reals: int
    fakes: int
    fid: Estimate
    kid: Estimate
    near: Coverage


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model was found to be worth, and what was measured."""

    options: EvaluateOptions
    model: dict[str, Any]
    data: dict[str, Any]
    holdout: dict[str, Any] | None
    encoder: dict[str, Any]
    rows: list[Comparison]
    gap: Estimate | None  # None without a hold-out
    path: Estimate | None  # None for pictures, and where none was asked for
    erythema: ErythemaPanel


def evaluate(
    fakes: ImageSource,
    data: DatasetImages,
    encoder: Encoder,
    options: EvaluateOptions,
    *,
    holdout: DatasetImages | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Compare generated images with those that their model was trained on, and with a hold-out where there is one.

    Raises MetricError for images that cannot be compared: too few, another resolution, features that are not finite.
    """
    sources: list[ImageSource] = [fakes, data, *([holdout] if holdout is not None else [])]
    for each in sources:
        if len(each) < LEAST:
            raise MetricError(f"{each.name}: an evaluation needs at least {LEAST} images on each side, got {len(each)}")
        check_alike(fakes, each)
    steps = _Steps(progress, sum(map(len, sources)) + 2 * options.path_pairs)
    both = JointEncoder(encoder, RednessEncoder(fakes.resolution))
    rows = [features(each, both, cache=options.cache, progress=steps.next(len(each))) for each in sources]
    found = [each[:, : encoder.dimension] for each in rows]
    return Evaluation(
        options=options,
        model=_described(fakes) | _model_facts(fakes),
        data=_described(data),
        holdout=_described(holdout) if holdout is not None else None,
        encoder={name: getattr(encoder, name) for name in ("name", "digest", "resize", "dimension", "comparable")},
        rows=comparisons(found[1], found[0], found[2] if holdout is not None else None, options),
        gap=holdout_gap(found[1], found[2], found[0]) if holdout is not None else None,
        path=_path_length(fakes, encoder, options, steps),
        erythema=_erythema(data, rows[1][:, encoder.dimension :], fakes, rows[0][:, encoder.dimension :], options.seed),
    )


def comparisons(
    reals: NDArray[np.float32],
    fakes: NDArray[np.float32],
    held_out: NDArray[np.float32] | None,
    options: EvaluateOptions,
) -> list[Comparison]:
    """The rows of the table. Numbers of different sizes do not compare, so the halves of the reals have a row each way.

    With the reference's rules there is the model's row alone.
    """
    found = [compare("model against data", reals, fakes, options)]
    if options.reference:
        return found
    if held_out is not None:
        found.append(compare("model against hold-out", held_out, fakes[: len(held_out)], options))
    order = np.random.default_rng(options.seed).permutation(len(reals))
    half, other = reals[np.sort(order[: len(order) // 2])], reals[np.sort(order[len(order) // 2 :])]
    found.append(compare("model against half of data", half, fakes[: len(other)], options))
    found.append(compare("half of data against other half", half, other, options))
    return found


def compare(name: str, reals: NDArray[np.float32], fakes: NDArray[np.float32], options: EvaluateOptions) -> Comparison:
    """All metrics of fakes [M, D] against reals [N, D]."""
    # The reference draws subsets that may hold every image of the smaller side.
    size = min(len(reals), len(fakes), SUBSET_SIZE) if options.reference else None
    return Comparison(
        name=name,
        reals=len(reals),
        fakes=len(fakes),
        fid=frechet(reals, fakes, population=options.reference),
        kid=kid(reals, fakes, seed=options.seed, size=size),
        near=coverage(reals, fakes, seed=options.seed),
    )


class _Steps:
    """One progress out of several."""

    def __init__(self, progress: Callable[[int, int], None], total: int) -> None:
        self.progress, self.total, self.begun = progress, total, 0

    def next(self, size: int) -> Callable[[int, int], None]:
        """The progress of the next part, which counts as `size`."""
        begun, self.begun = self.begun, self.begun + size
        return lambda done, total: self.progress(begun + size * done // max(total, 1), self.total)


def _path_length(fakes: ImageSource, encoder: Encoder, options: EvaluateOptions, steps: _Steps) -> Estimate | None:
    if not (options.path_pairs and encoder.unrounded and isinstance(fakes, ModelImages)):
        return None
    return path_length(
        fakes.engine.model,
        encoder,
        pairs=options.path_pairs,
        seed=options.seed,
        labels=fakes.labels if fakes.engine.config.c_dim else None,
        progress=steps.next(2 * options.path_pairs),
    )


def _erythema(
    data: DatasetImages,
    reals: NDArray[np.float32],
    fakes: ImageSource,
    drawn: NDArray[np.float32],
    seed: int,
) -> ErythemaPanel:
    """Redness of the fakes beside that of the reals, by label where both have the same ones."""
    labels = data.labels.argmax(axis=1) if data.labels.shape[1] else None
    asked = fakes.labels.argmax(axis=1) if isinstance(fakes, ModelImages) and fakes.labels.shape[1] else None
    return compare_redness(
        redness_of(reals),
        redness_of(drawn),
        real_labels=labels,
        fake_labels=None if asked is None else asked[np.arange(len(fakes)) % len(asked)],
        classes=data.images.classes,
        seed=seed,
    )


def _described(images: ImageSource) -> dict[str, Any]:
    return {"name": images.name, "images": len(images), "resolution": images.resolution, "digest": images.digest}


def _model_facts(fakes: ImageSource) -> dict[str, Any]:
    """Which weights drew them and how; nothing for pictures that are there already."""
    if not isinstance(fakes, ModelImages):
        return {}
    seeds = [int(fakes.seeds[0]), int(fakes.seeds[-1])]
    return {"model_digest": fakes.engine.digest, "seeds": seeds, "truncation_psi": fakes.truncation_psi}
