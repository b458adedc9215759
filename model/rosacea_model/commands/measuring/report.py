"""`rosacea report`: a page about a training run, or the full report on a model with its card."""

from __future__ import annotations

import json
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ...behind import is_run, model_behind
from ...data.progress import progress_on
from ...files.modelfile import verify, write_atomically
from ...metrics.encoders.choose import EncoderName
from ..check import rounded
from .audit import spaces
from .generated import generated, held_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ...files.modelfile import ModelFile
    from ...metrics.report.facts import ReportInputs

PATH_PAIRS = 100
PAGE_NAME, FIGURES_NAME, CARD_NAME, PAIRS_NAME = "report.html", "report.json", "README.md", "nearest.png"


def report(
    model: Annotated[Path, typer.Argument(metavar="RUN|MODEL", help="Training run; with --data also a model folder.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="PATH", help="File for a run's page, folder for a report.")
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="ZIP", help="The images that it was trained on.")] = None,
    holdout: Annotated[
        Path | None, typer.Option(metavar="ZIP", help="Images that it was not trained on; unset = ZIP's own, if any.")
    ] = None,
    groups: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Groups that people stated: columns file and group.")
    ] = None,
    encoder: Annotated[EncoderName, typer.Option(help="What turns images into features.")] = EncoderName.builtin,
    samples: Annotated[
        int | None, typer.Option(min=50, help="Generated images; unset = as many as in the data.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of splits, subsets and planted copies.")] = 0,
) -> None:
    """Write a page about a run, or with --data the full report on a model and its card.

    The report has fidelity and diversity, the memorisation audit, redness beside the data, and how well each group of
    the data is covered, worst group first.
    """
    if data is None:
        from ...training.reporting.report import write_report

        if not is_run(model) and not (model / "train.json").exists():
            raise ValueError(
                f"{model} is no training run: a report on a model needs --data, the images that it was trained on"
            )
        typer.echo(write_report(model, out))
        return
    if out is None:
        raise ValueError("a report on a model needs --out, the folder for its page, figures, card and pictures")
    out.mkdir(parents=True, exist_ok=True)
    with _inputs(model, data, holdout, groups, encoder, samples, seed) as (given, file):
        for path in _write(given, file, model, out):
            typer.echo(path)


@contextmanager
def _inputs(
    model: Path,
    data: Path,
    holdout: Path | None,
    groups: Path | None,
    encoder: EncoderName,
    samples: int | None,
    seed: int,
) -> Iterator[tuple[ReportInputs, ModelFile]]:
    """What the report is made from, and the model's verified file."""
    from ...metrics.encoders.choose import open_encoder
    from ...metrics.features import default_cache
    from ...metrics.fidelity.evaluation import EvaluateOptions
    from ...metrics.images import DatasetImages
    from ...metrics.report.facts import ReportInputs

    training, aside = DatasetImages(data), held_out(data, holdout)
    with (
        model_behind(model) as (folder, _),
        generated(folder, samples or len(training), training) as fakes,
        _rounds() as rounds,
    ):
        given = ReportInputs(
            fakes=fakes,
            training=training,
            holdout=DatasetImages(aside) if aside else None,
            encoder=open_encoder(encoder),
            spaces=spaces([encoder]),
            options=EvaluateOptions(seed=seed, path_pairs=PATH_PAIRS, cache=default_cache()),
            stated_groups=groups,
            rounds=rounds,
        )
        yield given, verify(folder)


@contextmanager
def _rounds() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Progress of one step after another."""
    console = Console(stderr=True, highlight=False)
    open_now: list[Any] = []

    def begin(step: str) -> Callable[[int, int], None]:
        if open_now:
            open_now.pop().__exit__(None, None, None)
        open_now.append(progress_on(console, f"images, {step}"))
        shown: Callable[[int, int], None] = open_now[-1].__enter__()
        return shown

    try:
        yield begin
    finally:
        if open_now:
            open_now.pop().__exit__(None, None, None)


def _write(given: ReportInputs, file: ModelFile, model: Path, out: Path) -> Iterator[Path]:
    """Write figures, pictures and page, then the card, which fails where a field is empty; yields the paths."""
    from ...metrics.audit.report import DESCRIPTION, pair_sheet
    from ...metrics.report.card import model_card
    from ...metrics.report.facts import gather
    from ...metrics.report.page import report_page
    from ...phantom.check.sheets import save

    found = gather(given)
    figures: dict[str, Any] = rounded(found.to_json())
    write_atomically(out / FIGURES_NAME, (json.dumps(figures, indent=2) + "\n").encode())
    yield out / FIGURES_NAME
    save(pair_sheet(found.audit, given.fakes, given.training, given.holdout), out / PAIRS_NAME, DESCRIPTION)
    yield out / PAIRS_NAME
    pictures = {"Generated images nearest to training images, above these": out / PAIRS_NAME}
    write_atomically(out / PAGE_NAME, report_page(found, file, pictures, _curves(model)).encode())
    yield out / PAGE_NAME
    write_atomically(out / CARD_NAME, model_card(found, file, f"rosacea {version('rosacea')}").encode())
    yield out / CARD_NAME


def _curves(model: Path) -> str:
    """Curves of the training run; empty for a model without one."""
    if not is_run(model):
        return ""
    from ...training.reporting.records import read_stats
    from ...training.reporting.report import curves

    return f"<h2>Training</h2>{curves(read_stats(model))}"
