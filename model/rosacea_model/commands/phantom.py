"""`rosacea data phantom`: write a data set of phantoms with their ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..data.progress import progress_on
from ..phantom.render import RESOLUTIONS
from ..phantom.series import MAX_COUNT, LabelKind, Series, write_series


def phantom(
    out: Annotated[Path, typer.Option("--out", metavar="ZIP", path_type=Path, help="Data set to write.")],
    count: Annotated[int, typer.Option(min=1, max=MAX_COUNT, help="How many faces.")] = 10_000,
    resolution: Annotated[int, typer.Option(min=16, max=512, help="Width and height: a power of two.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Which series of faces; the same seed gives the same bytes.")] = 0,
    labels: Annotated[LabelKind, typer.Option(help="What each face's label says.")] = LabelKind.both,
    confounders: Annotated[bool, typer.Option(help="Draw flush, make-up, glasses and beards, too.")] = True,
    maps: Annotated[Path | None, typer.Option(metavar="DIR", help="Write blood and face maps, too.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=64, help="Processes; unset = one a core.")] = None,
) -> None:
    """Draw faces, healthy and with rosacea, whose subtype, severity, melanin and form are known."""
    if resolution not in RESOLUTIONS:
        raise typer.BadParameter(f"must be one of {', '.join(map(str, RESOLUTIONS))}, got {resolution}")
    series = Series(seed, count, resolution, confounders)
    console = Console(stderr=True)
    with progress_on(console, "drawing faces") as progress:
        for done in write_series(out, series, labels, maps=maps, workers=workers):
            progress(done, count)
    typer.echo(f"{out}: {count} faces of {resolution} px, seed {seed}, labels {labels}")
