"""`rosacea data`: prepares photographs for training and shows data sets. Needs no torch."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from PIL import ImageColor
from rich.console import Console

from ..data import show as showing
from ..data.errors import DataRejected, Unusable, printable
from ..data.pictures.decode import DecodeOptions
from ..data.pictures.resize import Filter, Fit
from ..data.prepare import (
    Finding,
    NothingLeft,
    PrepareOptions,
    Result,
    Spool,
    astray_labels,
    check_out,
    class_names,
    found_counts,
    holdout_path,
    named,
)
from ..data.prepare import prepare as run_prepare
from ..data.progress import progress_on
from ..data.report import findings_sheet, report_json, report_path, sheet_path
from ..data.screening.faces import FaceFinder
from ..data.worker import WorkOptions
from ..files.modelfile import write_atomically
from .faces import FaceSurvey, faces, look, people_of, people_sheet, tell
from .phantom import phantom

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

app = typer.Typer(
    help="Prepare photographs, look at data sets, draw phantoms.", no_args_is_help=True, add_completion=False
)

app.command("phantom")(phantom)
app.command("faces")(faces)

STRICT_EXIT = 2
DEFAULT_MIN_SIZE = 250
LISTED = 20  # unusable files named on the terminal; the report has them all


@app.command()
def prepare(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="Folder (class per sub-folder, or dataset.json) or zip.")
    ],
    out: Annotated[Path, typer.Option(metavar="ZIP", help="Data set to write.")],
    resolution: Annotated[int, typer.Option(min=4, max=4096, help="Pixels a side, a power of two.")] = 512,
    fit: Annotated[Fit, typer.Option(help="What to do with a picture that is not square.")] = Fit.crop,
    resize_filter: Annotated[Filter, typer.Option("--filter", help="How to resample.")] = Filter.lanczos,
    channels: Annotated[int, typer.Option(min=1, max=3, help="3 for colour, 1 for grey.")] = 3,
    background: Annotated[str, typer.Option(help="Colour behind transparency and around padded pictures.")] = "#ffffff",
    min_size: Annotated[
        int | None, typer.Option(min=1, help="Shortest side to accept; unset = 250, or the resolution if smaller.")
    ] = None,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, help="Most pixels to accept, however small the file (default 64 million).")
    ] = None,
    exclude: Annotated[str, typer.Option(help="Findings to leave out: duplicates,bars,upscaled.")] = "",
    holdout: Annotated[float, typer.Option(min=0, max=0.99, help="Share to set aside in a second zip.")] = 0.0,
    subjects: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Columns file,subject: a person stays on one side.")
    ] = None,
    people: Annotated[
        bool,
        typer.Option("--people", help="Find faces: one person stays on one side (extra faces)."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Chooses what is set aside.")] = 0,
    labels: Annotated[bool, typer.Option(help="Take classes from dataset.json or sub-folders.")] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first unusable picture (exit code 2).")] = False,
    hash_names: Annotated[bool, typer.Option("--hash-names", help="No file names in the report, only hashes.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; unset = one per core.")] = None,
) -> None:
    """Turn photographs into the zip that StyleGAN tools train on, and report problems with them.

    Unusable pictures are left out, listed and counted, and the exit code stays 0. Findings (near duplicates, bars
    over eyes, enlarged pictures) are reported, and left out only if `--exclude` names them.
    """
    decoding = DecodeOptions(
        channels=channels,
        background=_colour(background),
        **_pixel_limits(max_pixels),
        min_size=min(DEFAULT_MIN_SIZE, resolution) if min_size is None else min_size,
    )
    work = WorkOptions(resolution=resolution, fit=fit, filter=resize_filter, decode=decoding)
    options = PrepareOptions(
        work=work,
        exclude=_findings(exclude),
        holdout=holdout,
        seed=seed,
        subjects=subjects,
        people={} if people else None,
        labels=labels,
        strict=strict,
        hash_names=hash_names,
        **({} if workers is None else {"workers": workers}),
    )
    console = Console(stderr=True, highlight=False)
    survey = _survey(console, source, out) if people else None
    if survey:
        options = replace(options, people=people_of(survey))
    sheets: list[Image.Image | None] = []

    def draw(result: Result, spool: Spool) -> None:
        sheets.append(findings_sheet(result, spool))

    try:
        with progress_on(console, "pictures") as progress:
            result = run_prepare(source, out, options, progress=progress, after=draw)
    except NothingLeft as error:
        write_atomically(report_path(out), report_json(error.result, out))
        raise DataRejected(f"{error}; report: {report_path(out)}") from error
    except Unusable as error:
        console.print(f"stopped: {error}", style="red", markup=False)
        raise typer.Exit(STRICT_EXIT) from error
    write_atomically(report_path(out), report_json(result, out))
    sheet = next(iter(sheets), None)
    if sheet is not None:
        write_atomically(sheet_path(out), _png(sheet))
    _tell(console, result, out, sheet is not None)
    if survey and survey.groups:
        write_atomically(people_path(out), _png(people_sheet(survey)))
        typer.echo(str(people_path(out)))


def _survey(console: Console, source: Path, out: Path) -> FaceSurvey:
    """Check that `out` may be written, find and group the faces in the source's pictures, and print a summary."""
    check_out(source, out, holdout=True)
    finder = FaceFinder()
    with progress_on(console, "faces") as progress:
        found = look(source, finder, progress)
    tell(console, found)
    return found


def people_path(out: Path) -> Path:
    """Where the sheet of people lies, beside the data set."""
    return out.with_name(f"{out.stem}-people.png")


@app.command()
def show(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Data set, folder or zip.")],
    out: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Sheet to write; unset = beside the data set.")
    ] = None,
    tiles: Annotated[int, typer.Option(min=1, max=32, help="Pictures along each side of the sheet.")] = 8,
) -> None:
    """Show a data set: a picture sheet, classes, sizes, colours."""
    named = data.resolve()  # `.` has no name
    target = out or named.with_name(f"{named.stem}-sheet.png")
    if not target.parent.is_dir():
        raise DataRejected(f"{target}: there is no folder {target.parent}")
    numbers, sheet = showing.overview(data, tiles)
    write_atomically(target, _png(sheet))
    console = Console(highlight=False)
    console.print(showing.as_table(named.name, numbers))
    console.print(str(target), markup=False, soft_wrap=True)


def _tell(console: Console, result: Result, out: Path, has_sheet: bool) -> None:
    """Print a summary; the report has the details."""
    if result.unusable:
        for picture, problem in result.unusable[:LISTED]:
            name = named(picture, problem.sha256, hashed=result.options.hash_names)
            console.print(f"left out {printable(name)}: {problem}", markup=False, soft_wrap=True)
        if len(result.unusable) > LISTED:
            console.print(f"... and {len(result.unusable) - LISTED} more, see the report")
    for line in _label_lines(result):
        console.print(printable(line), markup=False, soft_wrap=True)
    found = {name: count for name, count in found_counts(result).items() if count}
    console.print(
        f"{len(result.source.pictures)} files: {len(result.training())} for training, {len(result.held_out)} held out, "
        f"{len(result.excluded)} excluded, {len(result.unusable)} unusable; "
        f"found: {', '.join(f'{count} {name}' for name, count in found.items()) or 'nothing'}",
        soft_wrap=True,
    )
    if result.options.subjects:
        console.print(
            f"{result.without_subject} without a subject in {printable(result.options.subjects.name)}",
            markup=False,
            soft_wrap=True,
        )
    written = [out, *([holdout_path(out)] if result.options.holdout else []), report_path(out)]
    for path in [*written, *([sheet_path(out)] if has_sheet else [])]:
        typer.echo(str(path))


def _label_lines(result: Result) -> Iterator[str]:
    """Output lines that list the classes with index and count, and labels whose file names matched only approximately
    or not."""
    names = class_names(result)
    per_class = Counter(kept.picture.label for kept in result.kept)
    if names:
        listed = [f"{number} = {name} ({per_class[number]})" for number, name in enumerate(names[:LISTED])]
        yield "classes: " + ", ".join([*listed, *(["..."] if len(names) > LISTED else [])])
    if result.source.renamed:
        yield f"{result.source.renamed} labels name their picture in another case or with another suffix"
    if (astray := astray_labels(result.source)) and not result.options.hash_names:
        yield astray.removeprefix("; ")


def _pixel_limits(max_pixels: int | None) -> dict[str, Any]:
    """Decode options for `--max-pixels`: a stated limit replaces the default one, and removes the limit of pixels per
    byte of file."""
    return {} if max_pixels is None else {"max_pixels": max_pixels, "max_ratio": None}


def _findings(text: str) -> frozenset[Finding]:
    try:
        return frozenset(Finding(name.strip()) for name in text.split(",") if name.strip())
    except ValueError as error:
        raise ValueError(f"exclude must name some of {', '.join(Finding)}, got {text!r}") from error


def _colour(text: str) -> tuple[int, int, int]:
    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError as error:
        raise ValueError(f"background must be a colour such as white or #ffffff, got {text!r}") from error
    return red, green, blue


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
