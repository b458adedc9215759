"""Turns a trained snapshot into the demo model: weights, manifest and card. Used by `model/runs/demo-64.sh`.

Usage:

    python -m rosacea_model.demo.ship SNAPSHOT --figures figures.json --command 'rosacea train ...'
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..classes import classes_fact, default_class_fact
from ..files.modelfile import WEIGHTS_NAME, ModelFile, read_manifest, verify, write_atomically, write_manifest
from . import CARD_NAME, DEFAULT_CLASS, MAX_BYTES, SEVERITIES

SOURCE = Path("model/rosacea_model/demo")  # in a checkout
NOTE = "trained on drawn faces, none of them a person; label = severity of rosacea, 0 to 3"


def ship(
    snapshot: Annotated[Path, typer.Argument(metavar="SNAPSHOT", help="Model folder that a run wrote.")],
    figures: Annotated[Path, typer.Option(metavar="JSON", help="What `rosacea model check-phantoms` found of it.")],
    command: Annotated[list[str], typer.Option(help="A training command, for the card; again for the next.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where it goes.")] = SOURCE,
    least: Annotated[float, typer.Option(help="Refuse a model that follows severity less than this.")] = 0.7,
    least_variety: Annotated[
        float, typer.Option(help="Refuse a model whose faces differ less than this part of what phantoms do.")
    ] = 0.5,
) -> None:
    """Write the demo model's folder; ValueError if the model follows severity too loosely, varies too little or is too
    large."""
    file = verify(snapshot)
    found = json.loads(figures.read_bytes())
    check(file, found, least, least_variety)
    kimg = read_manifest(file.path.with_name("model.json")).get("kimg", "0")
    facts = {
        "note": NOTE,
        "kimg": f"{float(kimg):g}",
        "data": found["data"],
        "training": " && ".join(command),
        "severity_spearman_at_least": f"{least:g}",
        "variety_at_least": f"{least_variety:g}",
    }
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / WEIGHTS_NAME, file.path.read_bytes())
    write_manifest(
        out,
        name="demo",
        digest=file.digest,
        **facts,
        **classes_fact(SEVERITIES),
        **default_class_fact(DEFAULT_CLASS, len(SEVERITIES)),
    )
    write_atomically(out / CARD_NAME, card(verify(out), facts, found).encode())
    typer.echo(f"{out}: {file.digest}")


def check(file: ModelFile, figures: dict[str, Any], least: float, least_variety: float) -> None:
    """Raise ValueError unless the figures belong to this model and it is small, good and varied enough."""
    measured = figures["model"]["digest"]
    if measured != file.digest:
        raise ValueError(f"the figures must be of the model {file.digest}, got those of {measured}")
    if (size := file.path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"the demo model must have at most {MAX_BYTES} bytes, got {size}")
    if (spearman := figures["generated"]["severity"]["contrast"]) < least:
        raise ValueError(f"the demo model must follow severity with a Spearman of at least {least}, got {spearman:.3f}")
    variety = figures["generated"]["variety"] / figures["fresh_phantoms"]["variety"]
    if variety < least_variety:
        raise ValueError(
            f"the demo model's faces must differ at least {least_variety} times as much as phantoms, got {variety:.3f}"
        )


def card(file: ModelFile, facts: dict[str, str], figures: dict[str, Any]) -> str:
    """Text of the demo model's card, in Markdown."""
    own, real = figures["generated"], figures["fresh_phantoms"]
    return CARD.format(
        size=file.config.img_resolution,
        digest=file.digest,
        classes=", ".join(f"{label} {name}" for label, name in enumerate(SEVERITIES)),
        default=f"{file.default_class} {SEVERITIES[DEFAULT_CLASS]}",
        contrast=own["severity"]["contrast"],
        ceiling=real["severity"]["contrast"],
        pooled=own["severity"]["pooled"],
        pooled_ceiling=real["severity"]["pooled"],
        same=own["same_latent"]["spearman"],
        same_ceiling=real["same_latent"]["spearman"],
        variety=own["variety"],
        variety_ceiling=real["variety"],
        near=own["nearest"]["below_training"],
        near_control=real["nearest"]["below_training"],
        copies=own["nearest"]["ratio_below_training"],
        copies_control=real["nearest"]["ratio_below_training"],
        samples=figures["samples"],
        **{**facts, "training": facts["training"].replace(" && ", "\n    ")},
    )


CARD = """# The demo model

A StyleGAN2-ADA generator of faces, {size} px, conditional on the severity of rosacea. It shows what the package does,
on any machine and with nobody's leave to ask for.

- Labels: {classes}
- SHA-256 of the weights: `{digest}`

## What for

- **For** trying out the commands, the service and the clients, and for teaching.
- **Not for** diagnosis, nor for any claim about real skin or about real patients. It learnt from a renderer, and what
  that renderer simplifies, it simplifies too; at {size} px fine vessels and single papules are beyond it.
- **Nobody is in it.** Its training set was drawn by a program; no photograph was used, and no other network was it
  started from. Weights and data are under the package's licence, Apache-2.0.
- **Its people resemble one another a little more than phantoms do**, as the fourth row below says, and neither are
  people's photographs. Do not train a classifier on it.
- **It draws class {default} where it is asked without a label.** A vector of zeros is taken as well, but the generator
  never saw it in training: what it draws then means nothing.

## Made by

`model/runs/demo-64.sh`, which runs

    {data} --out train.zip
    {training}

and ships the last run's snapshot at {kimg} thousand images. `docs/demo-model/` has every setting in `train.json` and
the curves in `report.html`.

## Measured

On {samples} seeds by fixed rules, beside fresh phantoms under the same program (`docs/demo-model/` has the method, the
sheets and the rest):

| | demo model | phantoms |
|---|---|---|
| Spearman of severity with redness above the face's own calm skin | {contrast:.2f} | {ceiling:.2f} |
| the same with bare redness, all skin tones together | {pooled:.2f} | {pooled_ceiling:.2f} |
| the same with one latent at the four severities | {same:.2f} | {same_ceiling:.2f} |
| distance to the nearest other face of the kind, median, levels of 255 | {variety:.1f} | {variety_ceiling:.1f} |
| faces nearer to the training set than 1 % of it is to itself | {near:.1%} | {near_control:.1%} |
| faces that are far nearer to one training face than to any other | {copies:.1%} | {copies_control:.1%} |

For whatever ships here the first figure is at least {severity_spearman_at_least} (a test draws a hundred faces and
measures), and the fourth at least {variety_at_least} times the phantoms'.
"""


if __name__ == "__main__":
    typer.run(ship)
