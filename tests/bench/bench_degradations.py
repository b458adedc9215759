"""Worse images must rank worse: a perfect sampler of phantoms, made worse in five ways, under every metric.

    python -m tests.bench.bench_degradations [--faces N] [--out PAGE]

Exit code 1 if a metric moves against its theory.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter

from rosacea_model.metrics.encoders.choose import EncoderName, open_encoder
from rosacea_model.metrics.features import features
from rosacea_model.metrics.fidelity.frechet import frechet
from rosacea_model.metrics.fidelity.gap import holdout_gap
from rosacea_model.metrics.fidelity.kernel import kid
from rosacea_model.metrics.fidelity.neighbours import coverage
from rosacea_model.metrics.images import ArrayImages
from rosacea_model.phantom.series import Series, draw_series

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from rosacea_model.metrics.encoders.protocol import Encoder
    from rosacea_model.metrics.intervals import Estimate

    Pixels = NDArray[np.uint8]

PX = 64
SMALL_STEP, LARGE_STEP = "little", "much"
UP, DOWN, SAME = "up", "down", "same"
ARROWS = {UP: "↑", DOWN: "↓", SAME: "=", "": ""}
# What the theory of each metric says of each degradation; what is not listed may go either way.
WORSE = {"FID": UP, "KID x 1000": UP, "precision": DOWN, "density": DOWN, "coverage": DOWN}
THEORY = {
    "blur": WORSE,
    "noise": WORSE,
    "colour shift": WORSE,
    "mode dropping": {"FID": UP, "KID x 1000": UP, "recall": DOWN, "coverage": DOWN, "precision": SAME, "gap": SAME},
    "copying": {"FID": DOWN, "coverage": UP, "gap": UP, "FID to hold-out": SAME},
}
PAGE = """# Do worse images rank worse?

`make bench-degradations` takes phantoms of {px} px: {faces} as training data, {faces} held out, and {faces} fresh
ones as the output of a perfect generator. That output is made worse in five ways, a little and much, and measured with
the encoder `builtin` ({digest}). Values have their 95 % intervals; the arrow says where the metric's theory puts them
beside the perfect generator's: up, down, or `=` within both intervals.

Little and much are a blur of 0.8 and 1.6 px, noise of 8 and 24 levels, a shift of red against blue by 10 and 20 levels,
the severe quarter and the darkest quarter missing or more than the half of both, 20 % and 80 % of faces copied.

{table}

The command fails if a value under much degradation does not go where its theory says by more than the intervals, or
one under little goes the other way by more than them.

- FID and KID see a little of everything. Precision, density and coverage do not see a little blur or noise, which
  hardly moves an image beyond its neighbours.
- Copying looks like an improvement to every metric that compares with the training data. Only the gap between training
  and hold-out sees it, and the distance to the hold-out does not get better.
- Precision and density do not see that modes are missing; recall and coverage do.
- Recall is no measure of quality: blurred or discoloured images still surround some real ones.
"""


@dataclass(frozen=True)
class Case:
    """A degradation at one strength, and what was measured under it."""

    name: str
    strength: str
    found: dict[str, Estimate]


def main() -> int:
    """Draw, degrade, measure, write the page."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--faces", type=int, default=500, help="phantoms in each of the three sets")
    parser.add_argument("--out", type=Path, help="page to write; unset = print it")
    options = parser.parse_args()
    encoder = open_encoder(EncoderName.builtin)
    perfect, cases = measured(encoder, options.faces)
    page = PAGE.format(px=PX, faces=options.faces, digest=encoder.digest[:12], table=table(perfect, cases))
    if options.out:
        options.out.write_text(page)
    else:
        print(page)
    wrong = violations(perfect, cases)
    print("\n".join(wrong) or "every metric moves as its theory says")
    return bool(wrong)


def measured(encoder: Encoder, faces: int) -> tuple[Case, list[Case]]:
    """The perfect generator, and each degradation at both strengths."""
    train, _ = phantoms(0, faces)
    held, _ = phantoms(1, faces)
    fresh, grades = phantoms(2, faces)
    reals, others = (encoded(each, encoder) for each in (train, held))

    def case(name: str, strength: str, images: Pixels) -> Case:
        print(f"{name} {strength}: {len(images)} images", flush=True)
        return Case(name, strength, measure(reals, others, encoded(images, encoder)))

    worse = [case(*each) for each in degraded(fresh, grades, train)]
    return case("perfect generator", "", fresh), worse


def phantoms(seed: int, count: int) -> tuple[Pixels, NDArray[np.int64]]:
    """Images and severity grades of a series."""
    faces = list(draw_series(Series(seed=seed, count=count, resolution=PX, confounders=True), workers=1))
    grades = [int(str(face.attributes["severity"])) for face in faces]
    return np.stack([face.image for face in faces]), np.array(grades)


def degraded(fresh: Pixels, grades: NDArray[np.int64], train: Pixels) -> Iterator[tuple[str, str, Pixels]]:
    """Every degradation, at two strengths, of images from a perfect generator."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(fresh.shape)
    for strength, factor in ((SMALL_STEP, 1), (LARGE_STEP, 2)):
        yield "blur", strength, np.stack([blurred(image, 0.8 * factor) for image in fresh])
        yield "noise", strength, levels(fresh + 8.0 * (2 * factor - 1) * noise)
        yield "colour shift", strength, levels(fresh + 10.0 * factor * np.array([1, 0, -1]))
        # Those that are left are drawn more often, so that the number stays.
        left = fresh[grades < 4 - 1.5 * factor]
        left = left[brightness(left) > np.quantile(brightness(left), 0.25 * factor)]
        yield "mode dropping", strength, left[np.arange(len(fresh)) % len(left)]
        copied = fresh.copy()
        count = int(0.2 * factor**2 * len(fresh))
        copied[:count] = train[:count]
        yield "copying", strength, copied


def blurred(image: Pixels, radius: float) -> Pixels:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def levels(values: NDArray[np.float64]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def brightness(images: Pixels) -> NDArray[np.float64]:
    """Mean level of the middle of each image: light and dark skin."""
    quarter = PX // 4
    return np.asarray(images[:, quarter:-quarter, quarter:-quarter].mean(axis=(1, 2, 3)))


def encoded(images: Pixels, encoder: Encoder) -> NDArray[np.float32]:
    return features(ArrayImages(images), encoder)


def measure(
    reals: NDArray[np.float32], held_out: NDArray[np.float32], fakes: NDArray[np.float32]
) -> dict[str, Estimate]:
    """Every metric against the training data, and what a hold-out adds."""
    near = coverage(reals, fakes, seed=0)
    return {
        "FID": frechet(reals, fakes),
        "KID x 1000": kid(reals, fakes, seed=0),
        "precision": near.precision,
        "recall": near.recall,
        "density": near.density,
        "coverage": near.coverage,
        "FID to hold-out": frechet(held_out, fakes),
        "gap": holdout_gap(reals, held_out, fakes),
    }


def violations(perfect: Case, cases: list[Case]) -> list[str]:
    """Where a metric does not move from the perfect generator's value as THEORY says."""
    return [
        f"{metric} under {case.strength} {case.name}: {perfect.found[metric]} to {case.found[metric]}, must go {way}"
        for case in cases
        for metric, way in THEORY[case.name].items()
        if not moved(perfect.found[metric], case.found[metric], way, strictly=case.strength == LARGE_STEP)
    ]


def moved(before: Estimate, after: Estimate, way: str, *, strictly: bool) -> bool:
    """Whether a value went this way beyond both intervals; if not `strictly`, it may also stay within them."""
    up, down = after.low > before.high, after.high < before.low
    if way == SAME or not strictly:
        return not {UP: down, DOWN: up, SAME: up or down}[way]
    return up if way == UP else down


def table(perfect: Case, cases: list[Case]) -> str:
    """Markdown, a row for each case in the order of THEORY."""
    order = sorted(cases, key=lambda case: (list(THEORY).index(case.name), case.strength))
    metrics = list(perfect.found)
    lines = [f"| | {' | '.join(metrics)} |", "|---" * (len(metrics) + 1) + "|"]
    for case in (perfect, *order):
        cells = [cell(metric, case.found[metric], THEORY.get(case.name, {}).get(metric, "")) for metric in metrics]
        lines.append(f"| {case.name}{f', {case.strength}' if case.strength else ''} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(metric: str, estimate: Estimate, way: str) -> str:
    factor = 1000 if metric.endswith("1000") else 1
    value, low, high = (float(f"{factor * each:.3g}") for each in (estimate.value, estimate.low, estimate.high))
    return f"{value:g} [{low:g}, {high:g}] {ARROWS[way]}".rstrip()


if __name__ == "__main__":
    raise SystemExit(main())
