"""`rosacea audit`: does a model copy its training images? Planted copies show first whether that would be seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ...behind import is_run
from ...data.progress import progress_on
from ...files.modelfile import write_atomically
from ...metrics.encoders.choose import EncoderName
from ..check import rounded
from .generated import HoldOut, MeasuredModel, TrainingImages, generated, held_out

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...metrics.audit.membership import Membership
    from ...metrics.audit.spaces import Space
    from ...metrics.images import DatasetImages

FIGURES_NAME, SHEET_NAME = "audit.json", "nearest.png"
STRICT_EXIT = 2


def audit(
    model: MeasuredModel,
    data: TrainingImages,
    holdout: HoldOut = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help=f"Also write {FIGURES_NAME} and {SHEET_NAME} there.")
    ] = None,
    encoder: Annotated[
        list[EncoderName] | None, typer.Option(help="Spaces to look in beside pixels and detail; may be repeated.")
    ] = None,
    samples: Annotated[int, typer.Option(min=50, help="Generated images, of seeds 0, 1, ...")] = 500,
    psi: Annotated[float, typer.Option(min=0, max=1, help="Truncation of the generated images.")] = 1.0,
    false_alarms: Annotated[float, typer.Option(min=0.001, max=0.2, help="Rate of false alarms.")] = 0.01,
    planted: Annotated[int, typer.Option(min=10, help="Training images that are copied in each of six ways.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the planted copies.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON, not words.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help=f"Exit with {STRICT_EXIT} unless the audit finds no copies.")
    ] = False,
) -> None:
    """Look for copies of training images among what a model draws, in several spaces.

    Copies are planted first, exact and altered: how many are found, at which rate of false alarms, stands before every
    verdict. With a training run and a hold-out, the discriminator is asked as well whom it knows.
    """
    from ...metrics.audit.audit import Audit
    from ...metrics.audit.report import DESCRIPTION, lines, pair_sheet
    from ...metrics.audit.report import as_json as figures
    from ...metrics.audit.verdict import Conclusion
    from ...metrics.images import DatasetImages
    from ...phantom.check.sheets import save

    training = DatasetImages(data)
    aside = held_out(data, holdout)
    others = DatasetImages(aside) if aside else None
    with generated(model, samples, training, truncation_psi=psi) as fakes:
        with progress_on(Console(stderr=True), "images drawn and compared") as progress:
            settings = Audit(spaces=spaces(encoder), rate=false_alarms, planted=planted, seed=seed, progress=progress)
            found = settings.run(fakes, training, others)
        known = known_to(model, training, others, seed) if others else None
        results = rounded(figures(found, known))
        text = json.dumps(results, indent=2) + "\n"
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            write_atomically(out / FIGURES_NAME, text.encode())
            save(pair_sheet(found, fakes, training, others), out / SHEET_NAME, DESCRIPTION)
    if as_json:
        typer.echo(text, nl=False)
    else:
        for line in [*lines(found, known), *([str(out / SHEET_NAME)] if out else [])]:
            typer.echo(line)
    if strict and found.verdict.conclusion != Conclusion.none_found:
        raise typer.Exit(STRICT_EXIT)


def spaces(encoders: Iterable[EncoderName] | None) -> list[Space]:
    """Pixel and perceptual space, and those of the encoders; None = the one that ships."""
    from ...metrics.audit.spaces import EncoderSpace, PerceptualSpace, PixelSpace
    from ...metrics.encoders.choose import open_encoder

    named = dict.fromkeys(encoders or [EncoderName.builtin])
    return [PixelSpace(), PerceptualSpace(), *(EncoderSpace(open_encoder(name)) for name in named)]


def known_to(model: Path, training: DatasetImages, holdout: DatasetImages, seed: int) -> Membership | None:
    """What the discriminator of a training run knows; None for a model without one."""
    if not is_run(model):
        return None
    from ...metrics.audit.membership import membership

    return membership(model, training, holdout, seed=seed)
