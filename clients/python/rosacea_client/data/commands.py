"""`rosacea dataset`: writes faces to disk in shards that can be resumed and split among machines."""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from rosacea_client.commands.options import (
    ConnectionOptions,
    Cutoff,
    ModelName,
    Noise,
    NoiseSeed,
    Psi,
    Quality,
    with_connection,
)
from rosacea_client.commands.options import image_format as parse_format
from rosacea_client.data.bulk import DatasetFolder, make
from rosacea_client.data.dataset_spec import DatasetSpec
from rosacea_client.data.feed import Feed
from rosacea_client.data.plan import Labels, Plan
from rosacea_client.data.request import Look
from rosacea_client.data.service import Service
from rosacea_client.data.shards import Form
from rosacea_client.labels import class_number, number_or_name
from rosacea_client.seeds import parse_seeds, read_seeds
from rosacea_contract.fields import full_name
from rosacea_contract.install import missing
from rosacea_contract.spec import ImageFormat


@with_connection
def dataset(
    out: Annotated[Path, typer.Option("--out", help="Folder for the data set.")],
    count: Annotated[int | None, typer.Option("--count", min=1, help="Images in all, of seeds that are drawn.")] = None,
    seeds: Annotated[str, typer.Option("--seeds", help="These seeds instead, in order, such as 0-999.")] = "",
    seeds_file: Annotated[
        Path | None,
        typer.Option("--seeds-file", metavar="FILE", help="Or these, one a line, as `rosacea curate` writes them."),
    ] = None,
    shard_size: Annotated[int, typer.Option("--shard-size", min=1, help="Images in a shard.")] = 1000,
    form: Annotated[Form, typer.Option("--format", help="How shards are laid out.")] = "webdataset",
    shards: Annotated[str, typer.Option("--shards", help="Only these, such as 0-99; the others elsewhere.")] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the data set.")] = 0,
    labels: Annotated[
        str,
        typer.Option("--labels", help="fixed:severe, fixed:2, drawn:0.7,0.3, balanced:4, quota:3,1; unset = balanced."),
    ] = "",
    psi: Psi = None,
    cutoff: Cutoff = None,
    noise_mode: Noise = "const",
    noise_seed: NoiseSeed = None,
    image_format: Annotated[
        str, typer.Option("--image-format", parser=parse_format, metavar="png|jpeg", help="Image format.")
    ] = "png",
    quality: Quality = None,
    model: ModelName = "",
    patience: Annotated[float, typer.Option("--patience", min=0, help="Seconds that the service may be away.")] = 300.0,
    timeout: Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds for one request.")] = 600.0,
    *,
    connection: ConnectionOptions,
) -> None:
    """Make a data set of faces in shards; run it again to resume, check and repair it."""
    faces = chosen_faces(count, seeds, seeds_file)
    name = named_class(labels)
    plan = Plan(seed=seed, labels=Labels.parse(labels) if labels and not name else None, **faces.as_plan())
    service = Service(connection.address, timeout, {"tls": connection.tls, "api_key": connection.api_key_file})
    look = Look(truncation_psi=psi, truncation_cutoff=cutoff, noise_mode=noise_mode, noise_seed=noise_seed,
                format=cast("ImageFormat", image_format), jpeg_quality=quality)  # fmt: skip
    feed = Feed(service, look, patience_seconds=patience)
    found = feed.model(full_name(model))
    if name:
        plan = replace(plan, labels=Labels.fixed(class_number(name, found)))
    spec = DatasetSpec(revision=found.revision, count=faces.count, shard_size=shard_size, form=form, look=look,
                       plan=plan.settled(found.label_dim), classes=found.label_dim)  # fmt: skip
    numbers = parse_shards(shards, spec.shards)
    check_form(form)
    try:
        with _progress(sum(len(spec.indices(shard)) for shard in numbers)) as advance:
            drawn = make(feed, DatasetFolder(out, spec, found.class_names), numbers, advance)
    except KeyboardInterrupt:
        typer.echo(f"interrupted: complete shards are in {out}, the same command goes on", err=True)
        raise typer.Exit(130) from None
    finally:
        service.close()
    typer.echo(f"{len(numbers)} shards in {out}, {drawn} images drawn")


def named_class(labels: str) -> str | None:
    """The class name in `fixed:NAME`; None for labels without a name."""
    kind, _, rest = labels.partition(":")
    name = number_or_name(rest)
    return name if kind == "fixed" and isinstance(name, str) and name else None


@dataclass(frozen=True)
class ChosenFaces:
    """Which faces a data set holds: `count` of seeds that are drawn, or those of `seeds`."""

    count: int
    seeds: range | list[int] | None = None

    def as_plan(self) -> dict[str, Any]:
        """Arguments of Plan; a range is stated by its start, so that a spec stays short."""
        if isinstance(self.seeds, range):
            return {"first_face": self.seeds.start}
        return {} if self.seeds is None else {"faces": tuple(self.seeds)}


def chosen_faces(count: int | None, seeds: str, seeds_file: Path | None = None) -> ChosenFaces:
    """The faces that the options name; ValueError unless just one of them does."""
    named = {"--count": count is not None, "--seeds": bool(seeds), "--seeds-file": seeds_file is not None}
    if sum(named.values()) != 1:
        given = " and ".join(name for name, there in named.items() if there) or "none of them"
        raise ValueError(f"give just one of --count, --seeds such as 0-999, and --seeds-file, got {given}")
    if count is not None:
        return ChosenFaces(count)
    found = read_seeds(seeds_file) if seeds_file else parse_seeds(seeds)
    return ChosenFaces(len(found), found)


def parse_shards(text: str, shards: int) -> range:
    """Parse shards such as `0-99` or `7`; all shards if empty."""
    if not text:
        return range(shards)
    first, dash, last = text.partition("-")
    last = last if dash else first
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last) < shards):
        raise ValueError(f"--shards must be FIRST-LAST within 0-{shards - 1}, got {text[:80]!r}")
    return range(int(first), int(last) + 1)


def check_form(form: Form) -> None:
    """Raise ValueError before anything is drawn if the output format needs a package that is not installed."""
    assert form in get_args(Form), form
    if form == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ValueError(missing("--format parquet", "pyarrow", "parquet"))


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Any]:
    """A progress bar with the time that is left on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda images: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("images", total=total)
        yield lambda images: progress.advance(task, images)
