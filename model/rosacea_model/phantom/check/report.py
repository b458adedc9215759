"""Results of checking a model trained on phantoms, for people: sheets of faces, and a Markdown page of its figures
beside those of fresh phantoms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..redness import CALM_WEIGHT
from ..series import LabelKind, class_names
from .check import draw
from .redness import GRADES
from .sheets import labelled, save

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ...engine import Engine
    from .check import CheckResult

PSI = 0.7
SHEET_COLUMNS = 8
LADDER_SEEDS = 12
PAIRS = 8
CLASSES = [f"{grade} {name}" for grade, name in enumerate(class_names(LabelKind.severity))]
MEASURES = (
    "**above the face's own calm skin (primary)**",
    "bare index, all skin tones together",
    "bare index within thirds of skin tone: dark, middle, light",
    "same latent at the four severities, less its own mean",
    "share of steps up in severity that redden",
    "mean redness above calm skin at 0, 1, 2, 3",
    "severity with skin tone (typology angle of calm skin); 0 = independent",
    "spread of skin tone over faces, standard deviation in degrees",
)


def write_sheets(engine: Engine, found: CheckResult, folder: Path) -> None:
    """Write the picture sheets `seeds.png`, `severities.png` and `nearest.png`."""
    size = engine.config.img_resolution
    rows = 2 * GRADES
    seeds = [(seed, seed // (2 * SHEET_COLUMNS)) for seed in range(rows * SHEET_COLUMNS)]
    faces = draw(engine, seeds, PSI).reshape(rows, SHEET_COLUMNS, size, size, 3)
    save(labelled(faces, CLASSES, [""] * SHEET_COLUMNS), folder / "seeds.png")

    rungs = [(seed, grade) for grade in range(GRADES) for seed in range(LADDER_SEEDS)]
    faces = draw(engine, rungs, PSI).reshape(GRADES, LADDER_SEEDS, size, size, 3)
    save(labelled(faces, CLASSES, [f"seed {seed}" for seed in range(LADDER_SEEDS)]), folder / "severities.png")

    closest = np.argsort(found.generated.nearest.distance, kind="stable")[:PAIRS]
    originals = found.known[found.generated.nearest.index[closest]]
    flipped = found.generated.nearest.mirrored[closest]
    originals[flipped] = originals[flipped][:, :, ::-1]
    words = [f"{distance:.1f}" for distance in found.generated.nearest.distance[closest]]
    save(
        labelled(np.stack([found.images[closest], originals]), ["generated", "nearest phantom"], words),
        folder / "nearest.png",
    )


def page(figures: Mapping[str, Any], command: str) -> str:
    """Text of the result page, in Markdown."""
    return PAGE.format(
        command=command,
        samples=figures["samples"],
        last=figures["samples"] - 1,
        latents=figures["samples"] // GRADES,
        variety=figures["generated"]["variety"],
        variety_ceiling=figures["fresh_phantoms"]["variety"],
        faces=figures["training_phantoms"],
        name=figures["model"]["name"],
        digest=figures["model"]["digest"],
        note=figures["model"]["note"] or "no note",
        data=figures["data"],
        weight=CALM_WEIGHT,
        severity_rows=severity_rows(figures),
        nearest_rows=nearest_rows(figures),
        psi=PSI,
        last_rung=LADDER_SEEDS - 1,
        pairs=PAIRS,
        pooled=figures["fresh_phantoms"]["severity"]["pooled"],
    )


def severity_rows(figures: Mapping[str, Any]) -> str:
    """Table rows with measures of severity, for generated faces and for phantoms."""
    columns = (_severity_cells(figures["generated"]), _severity_cells(figures["fresh_phantoms"]))
    return "\n".join(f"| {' | '.join(row)} |" for row in zip(MEASURES, *columns, strict=True))


def _severity_cells(one: Mapping[str, Any]) -> list[str]:
    """Table cells of one kind of face, one for each measure in MEASURES."""
    severity, same = one["severity"], one["same_latent"]
    return [
        f"**{severity['contrast']:.2f}**",
        f"{severity['pooled']:.2f}",
        ", ".join(f"{value:.2f}" for value in severity["tone_thirds"]),
        f"{same['spearman']:.2f}",
        f"{same['rising']:.1%}",
        ", ".join(f"{value:.3f}" for value in severity["mean_contrast"]),
        f"{severity['tone']:.2f}",
        f"{severity['tone_spread']:.0f}",
    ]


def nearest_rows(figures: Mapping[str, Any]) -> str:
    """Table rows with distances to the nearest training image: training phantoms among themselves, fresh phantoms,
    generated faces."""
    kinds = {
        "training phantoms among themselves": "training_among_themselves",
        "fresh phantoms (control)": "fresh_phantoms",
        "**generated**": "generated",
    }
    rows = []
    for name, key in kinds.items():
        one = figures[key]["nearest"]
        cells = [f"{one[number]:.1f}" for number in ("smallest", "percentile_1", "median")]
        cells += [f"{one[share]:.1%}" for share in ("below_training", "ratio_below_training")]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


PAGE = """# Does it draw what its label asks, and faces of its own?

Written by `{command}`; every number is in [figures.json](figures.json).

- Model `{name}`, digest `{digest}` ({note}).
- Training set: `{data}`.
- Generated faces: seeds 0 to {last}, no truncation, seed i at severity i mod 4; none left out, none chosen.
- Fresh phantoms: {samples} faces of the next seed of the renderer, which training never saw, through the same program.
  They are the ceiling: what a perfect model would reach.

## Severity

Spearman's rank correlation between the severity that was asked for and measured redness (log10 R - log10 G in linear
light, over where the central face is on average, since a generated face has no ground truth).

| | generated | phantoms |
|---|---|---|
{severity_rows}

The primary figure is redness of the central face above the face's own calm skin (index less {weight} times that of the
sides of the forehead), because that is what a reader of a face goes by, and because melanin alone moves the bare index:
with all skin tones together even phantoms reach only {pooled:.2f}. A model that goes beyond that has fewer skin tones
than its training set, or gives the severities different ones: the last two rows tell. The weight {weight} was chosen on
phantoms, never on generated faces. "Same latent": {latents} latents at each severity; of a phantom the severity is
changed and nothing else.

![64 seeds](seeds.png)

Seeds 0 to 63 at psi {psi}, sixteen of each severity.

![The same seeds at each severity](severities.png)

Seeds 0 to {last_rung} at psi {psi}: a column is one latent.

## Variety

From a face to the nearest other among the {samples} of its kind, in the median and as measured below: {variety:.1f} for
generated faces, {variety_ceiling:.1f} for phantoms. Far less for generated faces means that they repeat themselves.

## Memorisation

Distance of each image to the nearest of {faces} training phantoms and their mirror images: root mean square over pixels
and channels, in levels of 255. Training phantoms are compared with the others, themselves and their own mirror images
left out. A perfect sampler that copies nothing would have about 1 % of its faces nearer than the 1st percentile of the
training phantoms, as the control has. Smooth images are near to everything, so the last column asks for more: a copy is
far nearer to its original than to the second nearest phantom; it counts faces whose ratio of the two distances is below
the 1st percentile of the training phantoms'.

| | nearest of all | 1st percentile | median | nearer than the training 1 % | ratio below the training 1 % |
|---|---|---|---|---|---|
{nearest_rows}

![The nearest pairs](nearest.png)

The {pairs} generated faces that are nearest to a training phantom, by distance, and that phantom below.
"""
