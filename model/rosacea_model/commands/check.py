"""`rosacea model check-phantoms`: measures a model trained on phantoms and draws sheets of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ..files.modelfile import write_atomically

if TYPE_CHECKING:
    from ..phantom.series import Series

FIGURES_NAME = "figures.json"
PAGE_NAME = "README.md"
DIGITS = 6


def check_phantoms(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder, or the weights file in it.")],
    data: Annotated[Path, typer.Option(metavar="ZIP", help="The phantoms it was trained on, labelled by severity.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for figures, page and sheets.")],
    samples: Annotated[int, typer.Option(min=16, help="Faces to measure, a multiple of four.")] = 500,
) -> None:
    """Measure whether a model draws the severity of its label, and whether it copies its training set."""
    with Console(stderr=True).status("drawing and measuring"):
        from ..engine import Engine
        from ..phantom.check.check import check, figures
        from ..phantom.check.report import page, write_sheets

        engine = Engine.load(model)
        found = check(engine, data, samples=samples)
        file = engine.model.file
        results = {
            "model": {"name": file.name, "digest": file.digest, "note": file.note},
            "data": phantom_command(found.series),
            **figures(found),
        }
        out.mkdir(parents=True, exist_ok=True)
        write_sheets(engine, found, out)
    results = rounded(results)
    write_atomically(out / FIGURES_NAME, (json.dumps(results, indent=2) + "\n").encode())
    write_atomically(out / PAGE_NAME, page(results, "rosacea model check-phantoms").encode())
    severity, closest = results["generated"]["severity"], results["generated"]["nearest"]
    typer.echo(
        f"{out / PAGE_NAME}: severity {severity['contrast']:.2f} "
        f"(phantoms {results['fresh_phantoms']['severity']['contrast']:.2f}), "
        f"nearer than the training 1 %: {closest['below_training']:.1%}"
    )


def phantom_command(series: Series) -> str:
    """The command line that draws a series again, without its output path."""
    confounders = "" if series.confounders else " --no-confounders"
    return (
        f"rosacea data phantom --count {series.count} --resolution {series.resolution} --seed {series.seed} "
        f"--labels severity{confounders}"
    )


def rounded(figures: Any) -> Any:
    """Copy of a JSON value with all floats rounded to readable precision."""
    if isinstance(figures, dict):
        return {name: rounded(value) for name, value in figures.items()}
    if isinstance(figures, (list, tuple)):
        return [rounded(value) for value in figures]
    return round(figures, DIGITS) if isinstance(figures, float) else figures
