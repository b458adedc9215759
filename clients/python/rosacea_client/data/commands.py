"""`rosacea dataset`: faces as a data set on the disk, in shards that can be resumed and shared out among hosts."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from rosacea_client.address import DEFAULT_ADDRESS
from rosacea_client.data.bulk import DatasetFolder, DatasetSpec, make
from rosacea_client.data.feed import Feed
from rosacea_client.data.plan import Labels, Plan
from rosacea_client.data.request import Look
from rosacea_client.data.service import Service
from rosacea_client.data.shards import Form
from rosacea_client.options import Address, ApiKeyFile, CaFile, ClientCert, ClientKey, UseTls, wanted_tls
from rosacea_client.spec import ImageFormat, NoiseMode


def dataset(
    count: Annotated[int, typer.Option("--count", min=1, help="Images in all.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the data set.")],
    shard_size: Annotated[int, typer.Option("--shard-size", min=1, help="Images in a shard.")] = 1000,
    form: Annotated[Form, typer.Option("--format", help="How shards are laid out.")] = "webdataset",
    shards: Annotated[str, typer.Option("--shards", help="Only these, such as 0-99; the others elsewhere.")] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the data set.")] = 0,
    labels: Annotated[
        str, typer.Option("--labels", help="none, fixed:2, drawn:0.7,0.3, balanced:4 or quota:3,1.")
    ] = "none",
    psi: Annotated[float | None, typer.Option("--psi", help="Truncation from -2 to 2; 1 is none.")] = None,
    cutoff: Annotated[int | None, typer.Option("--cutoff", help="Truncate only so many rows.")] = None,
    noise: Annotated[NoiseMode, typer.Option("--noise", help="Per-pixel noise.")] = "const",
    noise_seed: Annotated[int | None, typer.Option("--noise-seed", help="Seed of random noise.")] = None,
    image_format: Annotated[ImageFormat, typer.Option("--image-format", help="png or jpeg.")] = "png",
    quality: Annotated[int | None, typer.Option("--quality", help="JPEG quality, 1 to 100.")] = None,
    model: Annotated[str, typer.Option("--model", help="models/NAME; else the default model.")] = "",
    patience: Annotated[float, typer.Option("--patience", min=0, help="Seconds that the service may be away.")] = 300.0,
    address: Address = DEFAULT_ADDRESS,
    tls: UseTls = False,
    ca_file: CaFile = None,
    client_cert: ClientCert = None,
    client_key: ClientKey = None,
    api_key_file: ApiKeyFile = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds for one request.")] = 600.0,
) -> None:
    """Make a data set of faces in shards; run it again to resume, check and repair it."""
    plan = Plan(seed=seed, labels=Labels.parse(labels))
    wanted = wanted_tls(tls, ca_file, client_cert, client_key)
    service = Service(address, timeout, {"tls": wanted, "api_key": api_key_file})
    look = Look(truncation_psi=psi, truncation_cutoff=cutoff, noise_mode=noise, noise_seed=noise_seed,
                format=image_format, jpeg_quality=quality)    # fmt: skip
    feed = Feed(service, look, patience_seconds=patience)
    found = feed.model(model)
    spec = DatasetSpec(revision=found.revision, count=count, shard_size=shard_size, form=form, look=look,
                       plan=plan, classes=found.label_dim)    # fmt: skip
    numbers = parse_shards(shards, spec.shards)
    check_form(form)
    try:
        with _progress(sum(len(spec.indices(shard)) for shard in numbers)) as advance:
            drawn = make(feed, DatasetFolder(out, spec), numbers, advance)
    except KeyboardInterrupt:
        typer.echo(f"interrupted: complete shards are in {out}, the same command goes on", err=True)
        raise typer.Exit(130) from None
    finally:
        service.close()
    typer.echo(f"{len(numbers)} shards in {out}, {drawn} images drawn")


def parse_shards(text: str, shards: int) -> range:
    """The shards that a text such as `0-99` or `7` names; all of them where it is empty."""
    if not text:
        return range(shards)
    first, _, last = text.partition("-")
    if not (first.isdecimal() and (last or first).isdecimal() and int(first) <= int(last or first) < shards):
        raise ValueError(f"--shards must be FIRST-LAST within 0-{shards - 1}, got {text[:80]!r}")
    return range(int(first), int(last or first) + 1)


def check_form(form: Form) -> None:
    """ModuleNotFoundError where the form needs what is not installed, before anything is drawn."""
    assert form in get_args(Form), form
    if form == "parquet":
        import pyarrow.parquet  # noqa: F401


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
