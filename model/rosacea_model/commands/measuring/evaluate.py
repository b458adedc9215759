"""`rosacea evaluate`: how near a model's images are to the data it was trained on."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ...data.progress import progress_on
from ...files.modelfile import write_atomically
from ...metrics.encoders.choose import EncoderName
from ..check import rounded
from .generated import HoldOut, MeasuredModel, TrainingImages, generated, held_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...metrics.erythema.panel import RednessComparison
    from ...metrics.fidelity.evaluation import Comparison, Evaluation
    from ...metrics.intervals import Estimate

FORMAT = "rosacea-evaluation/1"
NOTE = "for research and education, not for diagnosis"


class Convention(StrEnum):
    """Rules for FID and KID."""

    unbiased = "unbiased"
    reference = "reference"


def evaluate(
    model: MeasuredModel,
    data: TrainingImages,
    holdout: HoldOut = None,
    encoder: Annotated[EncoderName, typer.Option(help="What turns images into features.")] = EncoderName.builtin,
    weights: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of inception.onnx and dinov2.onnx; unset = the user's.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Generated images, of seeds 0, 1, ...; unset = as many as in the data.")
    ] = None,
    psi: Annotated[float, typer.Option(min=0, max=1, help="Truncation of the generated images.")] = 1.0,
    convention: Annotated[
        Convention,
        typer.Option(help="reference: population covariance and 50,000 images, as published numbers have it."),
    ] = Convention.unbiased,
    path_pairs: Annotated[int, typer.Option(min=0, help="Pairs for the perceptual path length; 0 = without.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed of splits, subsets and path lengths.")] = 0,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where features are kept; unset = the user's cache.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="JSON", help="File for all numbers.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON, not a table.")] = False,
    device: Annotated[str, typer.Option(help="Where to draw: cpu or cuda.")] = "cpu",
) -> None:
    """Measure fidelity and diversity: FID, KID, precision, recall, density, coverage, path length.

    Each number has its confidence interval and says what it was computed from. Beside the model stands what a perfect
    one would reach with as few images: one half of the data against the other.
    """
    from ...metrics.encoders.choose import open_encoder
    from ...metrics.features import default_cache
    from ...metrics.fidelity.evaluation import REFERENCE_SAMPLES, EvaluateOptions
    from ...metrics.fidelity.evaluation import evaluate as run_evaluation
    from ...metrics.images import DatasetImages

    reference = convention is Convention.reference
    options = EvaluateOptions(seed=seed, reference=reference, path_pairs=path_pairs, cache=cache or default_cache())
    training = DatasetImages(data)
    aside = held_out(data, holdout)
    others = DatasetImages(aside) if aside else None
    number = samples or (REFERENCE_SAMPLES if reference else len(training))
    network = open_encoder(encoder, weights, device=device)
    with (
        generated(model, number, training, truncation_psi=psi, device=device) as fakes,
        progress_on(Console(stderr=True, highlight=False), "images") as progress,
    ):
        found = run_evaluation(fakes, training, network, options, holdout=others, progress=progress)
    text = json.dumps(as_facts(found), indent=2) + "\n"
    if out is not None:
        write_atomically(out, text.encode())
    if as_json:
        typer.echo(text, nl=False)
    else:
        show(found)


def as_facts(found: Evaluation) -> dict[str, Any]:
    """Everything that was found and measured, as values for JSON."""
    stated = {name: value for name, value in asdict(found.options).items() if name != "cache"}
    facts: dict[str, Any] = {
        "format": FORMAT,
        "note": NOTE,
        "model": found.model,
        "data": found.data,
        "holdout": found.holdout,
        "encoder": found.encoder,
        "options": stated,
        "comparisons": [asdict(row) for row in found.rows],
        "holdout_gap": asdict(found.gap) if found.gap else None,
        "path_length": asdict(found.path) if found.path else None,
        "erythema": found.erythema.to_json(),
    }
    made: dict[str, Any] = rounded(facts)
    return made


def show(found: Evaluation) -> None:
    """Print what was measured, a table of it, and what stands for itself."""
    console = Console(highlight=False)
    for line in heading(found):
        console.print(line, markup=False, soft_wrap=True)
    console.print(table(found.rows))
    for line in remarks(found):
        console.print(line, markup=False, soft_wrap=True)


def heading(found: Evaluation) -> Iterator[str]:
    """Which images were compared, and by which encoder."""
    model, data, encoder = found.model, found.data, found.encoder
    psi = f", psi {model['truncation_psi']:g}" if "truncation_psi" in model else ""
    yield f"model {model['name']} ({model.get('model_digest', model['digest'])[:12]}){psi}"
    aside = f"hold-out {found.holdout['name']}, {found.holdout['images']} images" if found.holdout else "no hold-out"
    yield f"data {data['name']} ({data['digest'][:12]}), {data['images']} images of {data['resolution']} px; {aside}"
    comparable = "" if encoder["comparable"] else "; its numbers compare with one another only"
    yield f"encoder {encoder['name']} ({encoder['digest'][:12]}), {encoder['resize']}{comparable}"


def remarks(found: Evaluation) -> Iterator[str]:
    """What is not in the table, and how to read it."""
    if found.gap:
        yield f"gap between training and hold-out: {found.gap} nats per dimension; above 0 = nearer to training"
    if found.path:
        yield f"perceptual path length: {found.path}"
    for each in found.erythema.comparisons:
        if each.measure == "contrast":
            yield redness_line(each)
    perfect = "" if found.options.reference else "the last column is what a perfect model would reach; "
    yield f"95 % intervals in brackets; {perfect}{NOTE}"


def redness_line(found: RednessComparison) -> str:
    """Redness above calm skin for one label."""
    return (
        f"redness, {found.label} ({found.fakes} : {found.reals}): shift {found.shift}, divergence {found.divergence} "
        f"bits, up to {found.chance:.2g} by chance"
    )


def table(rows: list[Comparison]) -> Table:
    """One column for each comparison, one row for each metric, intervals below the values."""
    shown = Table(show_header=True, header_style="bold")
    shown.add_column("metric", min_width=10, no_wrap=True)
    for row in rows:
        name = row.name.replace(" against ", "\nagainst\n")
        shown.add_column(f"{name}\n{row.fakes} : {row.reals}", justify="right", no_wrap=True)
    metrics = [("FID", 1.0, [row.fid for row in rows]), ("KID x 1000", 1000.0, [row.kid for row in rows])]
    for name in ("precision", "recall", "density", "coverage"):
        metrics.append((name, 1.0, [getattr(row.near, name) for row in rows]))
    for name, factor, values in metrics:
        shown.add_row(name, *(cell(value, factor) for value in values))
    return shown


def cell(estimate: Estimate, factor: float) -> str:
    """A value with its interval."""
    value, low, high = (factor * each for each in (estimate.value, estimate.low, estimate.high))
    return f"{value:.3g}\n\\[{low:.3g}, {high:.3g}]"
