"""The command `rosacea bench`."""

import asyncio
import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from rosacea_client.async_client import AsyncFaceClient
from rosacea_client.bench.load import Load, MeasurementWindow, Spacing, closed_loads, open_loads
from rosacea_client.bench.report import markdown, plot, to_json
from rosacea_client.bench.sweep import Question, Sweep
from rosacea_client.client import FaceClient
from rosacea_client.commands.options import (
    ClassIndex,
    ConnectionOptions,
    Format,
    ModelName,
    Psi,
    with_connection,
)
from rosacea_client.files import write_atomically
from rosacea_client.labels import class_number, number_or_name
from rosacea_contract.fields import full_name
from rosacea_contract.spec import ImageFormat

INTERRUPTED = 130
DEFAULT_SWEEP = "1,2,4,8,16"


@with_connection
def bench(
    concurrency: Annotated[str, typer.Option("--concurrency", help="Closed loop: callers, such as 1,2,4.")] = "",
    rate: Annotated[str, typer.Option("--rate", help="Open loop: calls a second, such as 10,50.")] = "",
    spacing: Annotated[Spacing, typer.Option("--spacing", help="Of an open loop: by chance or even.")] = "poisson",
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="Time that counts, for each load.")] = 10.0,
    warmup: Annotated[float, typer.Option("--warmup", min=0, help="Time before that, which does not.")] = 2.0,
    images: Annotated[int, typer.Option("--images", min=1, help="Images in a call.")] = 1,
    psi: Psi = None,
    class_index: ClassIndex = None,
    image_format: Format = "png",
    model: ModelName = "",
    as_json: Annotated[str, typer.Option("--json", metavar="FILE", help="Figures as JSON; - for stdout.")] = "",
    picture: Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw them.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds for each call.")] = 60.0,
    *,
    connection: ConnectionOptions,
) -> None:
    """Measure latency and throughput under closed and open loops, and print a Markdown table.

    A closed loop has a fixed number of callers that each call again once answered; an open loop calls at a fixed rate,
    and its latency includes the time that calls were late. Calls are not retried: failures are counted by reason.
    """
    if picture and picture.suffix.lower() != ".png":
        raise ValueError(f"--plot must end in .png, got {picture.name}")
    number = number_or_name(class_index)
    if isinstance(number, str):
        with FaceClient(connection.address, timeout, tls=connection.tls, api_key=connection.api_key_file) as client:
            number = class_number(number, client.model(full_name(model)))
    sweep = Sweep(
        Question(
            images_per_call=images,
            truncation_psi=psi,
            class_index=number,
            format=cast("ImageFormat", image_format),
            model=model,
        ),
        closed_loads(concurrency) + open_loads(rate, spacing) or closed_loads(DEFAULT_SWEEP),
        MeasurementWindow(warmup_seconds=warmup, seconds=seconds),
    )

    def connect() -> AsyncFaceClient:
        return AsyncFaceClient(
            connection.address, timeout, tls=connection.tls, api_key=connection.api_key_file, retries=False
        )

    interrupted = False
    try:
        with _progress(len(sweep.loads)) as announce:
            asyncio.run(sweep.run(connect, announce))
    except KeyboardInterrupt:
        interrupted = True
    write(sweep, {"target": connection.address, "spacing": spacing}, interrupted, as_json, picture)
    if interrupted:
        typer.echo(f"interrupted: {len(sweep.steps)} of {len(sweep.loads)} loads are complete", err=True)
        raise typer.Exit(INTERRUPTED)


def write(sweep: Sweep, facts: dict[str, Any], interrupted: bool, as_json: str, picture: Path | None) -> None:
    """Print the table on stdout (on stderr if stdout has the JSON) and write the requested files."""
    facts_of_run = {"revision": sweep.revision, "warmup_seconds": sweep.window.warmup_seconds}
    asked = {**facts, **facts_of_run, **asdict(sweep.question)}
    text = json.dumps(to_json(sweep.steps, asked, interrupted=interrupted), indent=2) + "\n"
    if as_json == "-":
        typer.echo(text, nl=False)
    elif as_json:
        write_atomically(Path(as_json), text.encode())
    if sweep.steps:
        typer.echo(markdown(sweep.steps), err=as_json == "-")
    if picture and sweep.steps:
        buffer = io.BytesIO()
        title = f"{sweep.revision[:40]}, {sweep.question.images_per_call} {sweep.question.format} a call"
        plot(sweep.steps, title).save(buffer, "PNG")
        write_atomically(picture, buffer.getvalue())


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[Load], None]]:
    """Show the current load on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda load: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("connecting", total=total)
        begun = iter(range(total))
        yield lambda load: progress.update(task, description=str(load), completed=next(begun))
