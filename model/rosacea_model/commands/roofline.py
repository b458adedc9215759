"""`rosacea model roofline`: how near each layer comes to what the device can do."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from ..engine.roofline.report import Roofline, Row


def roofline(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder, run or checkpoint.")],
    device: Annotated[str, typer.Option(help="Where to draw: cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of a CPU; unset = all cores.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Images drawn; the medians are shown.")] = 9,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON, not a table.")] = False,
) -> None:
    """Measure each layer against the fastest convolution and copy of this machine.

    Run it on an otherwise idle machine: the rates are measured first, then an image is drawn again and again.
    """
    with Console(stderr=True).status("measuring the device and the layers"):
        import torch

        from ..behind import model_behind
        from ..engine.roofline.report import roofline as measure
        from ..memory import keep_freed_memory
        from ..model import load

        keep_freed_memory()
        if threads is not None:
            torch.set_num_threads(threads)
        with model_behind(model) as (folder, _):
            found = measure(load(folder, device=device), repeats)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    console = Console(highlight=False)
    console.print(heading(found), markup=False)
    console.print(table(found))


def heading(found: Roofline) -> str:
    """The device, and its limits."""
    where = f"{found.device}, {found.threads} threads" if found.device == "cpu" else found.device
    return f"{where}: {found.rates.operations / 1e9:.0f} GFLOP/s, {found.rates.bytes / 1e9:.1f} GB/s"


def table(found: Roofline) -> Table:
    """A row for each layer, and their sum."""
    shown = Table()
    shown.add_column("layer", no_wrap=True)
    for name in ("GFLOP", "MB", "least ms", "ms", "of the limit"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in found.layers:
        shown.add_row(*cells(row))
    shown.add_section()
    shown.add_row(*cells(found.total))
    return shown


def cells(row: Row) -> tuple[str, ...]:
    """One row of the table."""
    work = f"{row.operations / 1e9:.3f}", f"{row.bytes / 1e6:.2f}"
    return row.name, *work, f"{row.floor_seconds * 1e3:.3f}", f"{row.seconds * 1e3:.3f}", f"{row.share:.0%}"
