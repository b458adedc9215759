"""Runs the check: which faces are drawn, what they are compared with, and the resulting figures."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...data.dataset import LabelledImages
from ...data.source import open_source
from ...sample import FaceSample, one_hot
from ..identity import Subtype, sample_phantom
from ..redness import Regions, mean_regions, measure
from ..render import render
from ..series import LabelKind, Series, draw_series
from ..sheet import with_severity
from .nearest import Nearest, closeness, nearest
from .redness import GRADES, Agreement, Ladder, agreement, ladder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from ...engine import Engine

DISEASED = tuple(Subtype)[1:]


@dataclass(frozen=True, kw_only=True)
class Set:
    """Figures of one kind of face (generated, or fresh phantoms): agreement with severity, variation, closeness to
    training images."""

    agreement: Agreement
    ladder: Ladder
    nearest: Nearest
    variety: float  # median distance of a face to the nearest other of its kind, levels of 255


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """All results of comparing a model with its training phantoms."""

    series: Series  # the training set
    samples: int  # faces of each kind
    generated: Set
    fresh: Set  # phantoms of the next seed
    training: Nearest  # of the training phantoms among themselves
    images: NDArray[np.uint8]  # [samples, size, size, 3] generated
    known: NDArray[np.uint8]  # [M, size, size, 3] training phantoms


def check(engine: Engine, data: Path, *, samples: int) -> CheckResult:
    """Compare a model with the phantoms it was trained on.

    Generated faces are seeds 0 to samples - 1 without truncation, face i at severity i % 4, none left out; the ladder
    takes the first quarter of the seeds at each severity. Fresh phantoms go through the same program.
    """
    if samples < 4 * GRADES or samples % GRADES:
        raise ValueError(f"samples must be a multiple of {GRADES} and at least {4 * GRADES}, got {samples}")
    series = series_of(data)
    _check_fit(engine, series)
    regions = mean_regions(series.resolution, seed=series.seed)
    known = training_images(data)
    images = draw(engine, ((seed, seed % GRADES) for seed in range(samples)))
    fresh = list(draw_series(replace(series, seed=series.seed + 1, count=samples), workers=1))
    grades = np.array([int(str(face.attributes["severity"])) for face in fresh])
    return CheckResult(
        series=series,
        samples=samples,
        generated=_set(images, np.arange(samples) % GRADES, ladder_of_model(engine, samples), regions, known),
        fresh=_set(
            np.stack([face.image for face in fresh]), grades, ladder_of_phantoms(series, samples), regions, known
        ),
        training=nearest(known, known, own=True),
        images=images,
        known=known,
    )


def figures(found: CheckResult) -> dict[str, Any]:
    """The figures as plain values, ready for JSON."""

    def plain(one: Set) -> dict[str, Any]:
        return {
            "severity": asdict(one.agreement),
            "same_latent": asdict(one.ladder),
            "variety": one.variety,
            "nearest": asdict(closeness(one.nearest, found.training)),
        }

    own = asdict(closeness(found.training, found.training))
    return {
        "samples": found.samples,
        "training_phantoms": found.series.count,
        "generated": plain(found.generated),
        "fresh_phantoms": plain(found.fresh),
        "training_among_themselves": {"nearest": own},
    }


def series_of(data: Path) -> Series:
    """The phantom series of a data set, from its datasheet."""
    stated = (open_source(data, labels=False).datasheet or {}).get("phantoms")
    if not isinstance(stated, dict) or stated.get("labels") != LabelKind.severity:
        raise ValueError(
            f"{data} must hold phantoms labelled by severity, as `rosacea data phantom --labels severity` writes them"
        )
    return Series(**{name: stated[name] for name in ("seed", "count", "resolution", "confounders")})


def training_images(data: Path) -> NDArray[np.uint8]:  # => [M, size, size, 3]
    """Load all training images of a data set."""
    images = LabelledImages(data, labels=False)
    return np.stack([images[place][0].transpose(1, 2, 0) for place in range(len(images))])


def draw(
    engine: Engine, faces: Iterable[tuple[int, int]], truncation_psi: float = 1.0
) -> NDArray[np.uint8]:  # => [N, size, size, 3]
    """Draw faces for (seed, severity) pairs."""
    labels = [one_hot(grade, GRADES) for grade in range(GRADES)]
    return engine.render(
        [FaceSample(seed=seed, label=labels[grade], truncation_psi=truncation_psi) for seed, grade in faces]
    )


def ladder_of_model(engine: Engine, samples: int) -> NDArray[np.uint8]:
    """Generated images of the first quarter of the seeds, each drawn at every severity in turn."""
    return draw(engine, ((seed, grade) for seed in range(samples // GRADES) for grade in range(GRADES)))


def ladder_of_phantoms(series: Series, samples: int) -> NDArray[np.uint8]:
    """Images of fresh phantoms, each drawn at every severity in turn; a healthy one gets a subtype by its index."""
    images = []
    for index in range(samples // GRADES):
        spec = sample_phantom(series.seed + 1, index, confounders=series.confounders)
        kind = DISEASED[index % len(DISEASED)] if spec.condition.grade == 0 else spec.condition.subtype
        images += [render(with_severity(spec, kind, float(grade)), series.resolution).image for grade in range(GRADES)]
    return np.stack(images)


def _set(
    images: NDArray[np.uint8],
    severity: NDArray[np.int64],
    rungs: NDArray[np.uint8],
    regions: Regions,
    known: NDArray[np.uint8],
) -> Set:
    return Set(
        agreement=agreement(measure(images, regions), severity),
        ladder=ladder(measure(rungs, regions).index.reshape(-1, GRADES)),
        nearest=nearest(images, known),
        variety=float(np.median(nearest(images, images, own=True).distance)),
    )


def _check_fit(engine: Engine, series: Series) -> None:
    config = engine.config
    if (config.c_dim, config.img_channels, config.img_resolution) != (GRADES, 3, series.resolution):
        raise ValueError(
            f"the model must have {GRADES} classes, 3 channels and {series.resolution} px like the data, "
            f"got {config.c_dim}, {config.img_channels} and {config.img_resolution}"
        )
