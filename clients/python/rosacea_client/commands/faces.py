"""The client's own commands: `rosacea generate`, `rosacea map`, `rosacea models`, `inspect` and `replay`."""

import contextlib
import dataclasses
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from rosacea_client.client import FaceClient
from rosacea_client.commands.inspection import Inspection, inspect_image
from rosacea_client.commands.options import (
    ClassIndex,
    ConnectionOptions,
    Cutoff,
    Format,
    LabelVector,
    ModelName,
    Noise,
    NoiseSeed,
    Psi,
    Quality,
    StyleMixes,
    given,
    numbers,
    style_mixes,
    with_connection,
)
from rosacea_client.commands.replay import CannotReplay, Replay, replay_image
from rosacea_client.errors import FaceError, Overloaded, Unavailable
from rosacea_client.files import read_bounded, write_atomically
from rosacea_client.labels import number_or_name
from rosacea_client.results.face import Face
from rosacea_client.results.modelinfo import ModelInfo
from rosacea_client.seeds import parse_seeds, read_seeds
from rosacea_contract.fields import full_name
from rosacea_contract.install import install_line
from rosacea_contract.spec import LatentSpace

MAX_NAMES_CHARS = 60  # of the names of a model's classes, in a row of `rosacea models`


def connect(to: ConnectionOptions, timeout: float) -> FaceClient:
    """Open the client that a command's options describe."""
    return FaceClient(to.address, timeout_seconds=timeout, tls=to.tls, api_key=to.api_key_file)


@with_connection
def generate(
    seeds: Annotated[str | None, typer.Option("--seeds", help="Seeds, such as 7 or 0-15,42.")] = None,
    seeds_file: Annotated[
        Path | None,
        typer.Option("--seeds-file", metavar="FILE", help="Seeds, one a line, as `rosacea curate` writes them."),
    ] = None,
    latents: Annotated[
        Path | None, typer.Option("--latents", metavar="FILE", help="NAME.npy of z, w or ws, instead of seeds.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the images.")] = Path("faces"),
    psi: Psi = None,
    cutoff: Cutoff = None,
    class_index: ClassIndex = None,
    label_vector: LabelVector = None,
    style_mix: StyleMixes = None,
    noise_mode: Noise = "const",
    noise_seed: NoiseSeed = None,
    image_format: Format = "png",
    quality: Quality = None,
    model: ModelName = "",
    grid: Annotated[bool, typer.Option("--grid", help="Also write grid.png, all on one sheet.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds for all of it.")] = 3600.0,
    *,
    connection: ConnectionOptions,
) -> None:
    """Draw faces from seeds or latents and save them, one file each."""
    check_folder(out)
    asked: dict[str, Any] = given(
        truncation_psi=psi,
        truncation_cutoff=cutoff,
        class_index=number_or_name(class_index),
        label_vector=numbers(label_vector),
        noise_seed=noise_seed,
        jpeg_quality=quality,
    )
    asked |= {"style_mixes": style_mixes(style_mix), "noise_mode": noise_mode, "format": image_format, "model": model}
    with connect(connection, timeout) as client:
        chosen, total = source(seeds, seeds_file, latents, lambda: client.model(full_name(model)))
        kept = save_faces(client.stream(**chosen, **asked), out, total=total, keep=grid)
    if grid:
        from rosacea_client.results.grid import contact_sheet, save_sheet

        save_sheet(contact_sheet(kept), out / "grid.png")
        typer.echo(out / "grid.png")


def check_folder(out: Path) -> None:
    """Raise ValueError if the output folder looks like a file or is one."""
    if out.suffix.lower() in (".png", ".jpg", ".jpeg") or out.is_file():
        raise ValueError(f"--out must be a folder, got {out}: every face becomes a file in it")


def source(
    seeds: str | None, seeds_file: Path | None, latents: Path | None, model: Callable[[], ModelInfo]
) -> tuple[dict[str, Any], int]:
    """The source of the faces as client arguments, and their number."""
    named = {"--seeds": seeds, "--seeds-file": seeds_file, "--latents": latents}
    if sum(each is not None for each in named.values()) != 1:
        stated = " and ".join(name for name, each in named.items() if each is not None) or "none of them"
        raise ValueError(f"give just one of --seeds, such as 0-15, --seeds-file and --latents, got {stated}")
    if latents is not None:
        return latents_of(latents, model())
    found = read_seeds(seeds_file) if seeds_file is not None else parse_seeds(seeds or "")
    return {"seeds": found}, len(found)


def latents_of(path: Path, model: ModelInfo) -> tuple[dict[str, Any], int]:
    """Load latents from a .npy file; returns them as a client argument (z, w or ws, by their shape) and their
    number."""
    try:
        array = np.load(io.BytesIO(read_bounded(path)), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not an array of numpy (.npy): {error}") from None
    # Where z and w are of one length, it is w, as `rosacea map` writes it.
    shapes = {(model.num_ws, model.w_dim): "ws", (model.z_dim,): "z", (model.w_dim,): "w"}
    name = shapes.get(array.shape[1:]) if isinstance(array, np.ndarray) else None
    if name is None or array.dtype.kind not in "fiu":
        rules = " or ".join(f"[N, {', '.join(map(str, shape))}] for {name}" for shape, name in shapes.items())
        raise ValueError(f"{path}: latents of {model.name} must have the shape {rules}, got {list(np.shape(array))}")
    return {name: array}, len(array)


@with_connection
def map_latents(
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds, such as 7 or 0-15,42.")],
    out: Annotated[Path, typer.Option("--out", help="File for the array, NAME.npy.")] = Path("w.npy"),
    space: Annotated[LatentSpace, typer.Option("--space", help="One row for each, or one for each layer.")] = "w",
    psi: Psi = None,
    cutoff: Cutoff = None,
    class_index: ClassIndex = None,
    label_vector: LabelVector = None,
    style_mix: StyleMixes = None,
    model: ModelName = "",
    timeout: Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds to wait.")] = 60.0,
    *,
    connection: ConnectionOptions,
) -> None:
    """Compute the intermediate latents of seeds and save them as one numpy array."""
    if out.suffix != ".npy":
        raise ValueError(f"--out must end in .npy, got {out.name}")
    asked: dict[str, Any] = given(
        truncation_psi=psi,
        truncation_cutoff=cutoff,
        class_index=number_or_name(class_index),
        label_vector=numbers(label_vector),
    )
    with connect(connection, timeout) as client:
        latents = client.map_latents(
            parse_seeds(seeds), space=space, style_mixes=style_mixes(style_mix), model=model, **asked
        )  # fmt: skip
    buffer = io.BytesIO()
    np.save(buffer, latents.array)
    write_atomically(out, buffer.getvalue())
    typer.echo(f"{latents.space} {list(latents.array.shape)} of {latents.model} in {out}")


@with_connection
def models(
    as_json: Annotated[bool, typer.Option("--json", help="Everything about them, as JSON.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds to wait.")] = 10.0,
    *,
    connection: ConnectionOptions,
) -> None:
    """List the models of the service."""
    with connect(connection, timeout) as client:
        found = client.models()
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(model) for model in found], indent=2))
        return
    rows = [("MODEL", "PIXELS", "CLASSES", "READY", "NOTE"), *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def inspect(
    file: Annotated[Path, typer.Argument(help="A PNG or JPEG image.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Everything that was found, as JSON.")] = False,
    trust: Annotated[Path | None, typer.Option("--trust", help="Certificates (PEM) of signers to trust.")] = None,
) -> None:
    """Read an image's marks: whether it is synthetic, how it was made, whether a signature is valid.

    Exit code 1 where it does not say that it is synthetic, or where its signature does not hold.
    """
    try:
        found = inspect_image(read_bounded(file), trust.read_text() if trust else "")
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    typer.echo(json.dumps(found.to_json(), indent=2) if as_json else "\n".join(_lines(found)))
    if not found.synthetic:
        typer.echo(f"{file}: does not say that it is synthetic", err=True)
    if not found.synthetic or (found.signature and found.signature.state == "invalid"):
        raise typer.Exit(1)


@with_connection
def replay(
    file: Annotated[Path, typer.Argument(help="A PNG or JPEG image.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="What came of it, as JSON.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds to wait.")] = 60.0,
    *,
    connection: ConnectionOptions,
) -> None:
    """Generate the face in a file again by its mark, and compare byte for byte.

    Exit code 0 where it is the same, 1 where it differs, 2 where that is unknown: an image without a mark, or of a
    latent, which is never in the file.
    """
    with connect(connection, timeout) as client:
        found = replayed(file, client)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
    else:
        typer.echo(f"{file}: " + _verdict(found))
        for each in found.differences:
            # A file can hold anything: as JSON, so that it cannot write on the terminal what it likes.
            typer.echo(f"  {each.part}: file {json.dumps(each.file)}, service {json.dumps(each.service)}")
    if not found.same:
        raise typer.Exit(1)


def _verdict(found: Replay) -> str:
    if not found.same:
        return "differs"
    return "the same but for the signature" if found.signed else "the same"


def replayed(file: Path, client: FaceClient) -> Replay:
    """Generate the face in a file again and compare; CannotReplay (exit code 2) if that fails, but Unavailable and
    Overloaded are raised as they are."""
    try:
        return replay_image(read_bounded(file), client)
    except (Unavailable, Overloaded):
        raise
    except (ValueError, OSError, FaceError) as error:
        raise CannotReplay(f"{file}: {error}") from None


def _lines(found: Inspection) -> Iterator[str]:
    """Yield the findings as lines of text, JSON-encoded so that a file cannot write control characters to the
    terminal."""
    facts = found.mark.facts() if found.mark else {"rosacea": "no mark of how it was made"}
    shown = {"synthetic": found.synthetic, "source_type": found.source_type, **facts}
    if found.signature is None:
        shown["signature"] = "none: anybody could have written or changed this"
    elif found.signature.state == "unchecked":
        shown["signature"] = f"unchecked: {install_line('c2pa')} to check it"
    else:
        shown["signature"] = " ".join([found.signature.state, *found.signature.problems])
        shown["signer"] = found.signature.signer
    width = max(map(len, shown))
    for name, value in shown.items():
        text = json.dumps(value)
        yield f"{json.dumps(name)[1:-1].ljust(width)}  {text[1:-1] if isinstance(value, str) else text}"


def name_of(face: Face) -> str:
    """File name of a face: its seed, or its index for latents."""
    return f"latent_{face.index:06d}{face.suffix}" if face.seed is None else f"face_{face.seed:06d}{face.suffix}"


def save_faces(faces: Iterator[Face], folder: Path, total: int, keep: bool) -> list[Face]:
    """Save the faces as they arrive and return them if they are to be kept; Ctrl-C keeps complete files."""
    folder.mkdir(parents=True, exist_ok=True)
    kept: list[Face] = []
    done = 0
    try:
        with _progress(total) as advance:
            for face in faces:
                face.save(folder / name_of(face))
                done += 1
                kept += [face] if keep else []
                advance()
    except KeyboardInterrupt:
        typer.echo(f"interrupted: {done} of {total} faces are in {folder}", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"{done} faces in {folder}")
    return kept


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Any]:
    """A progress bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("faces"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("faces", total=total)
        yield lambda: progress.advance(task)


def _row(model: ModelInfo) -> tuple[str, str, str, str, str]:
    ready = "yes" if model.ready else "no"
    return model.name, str(model.resolution), _classes(model), ready, _shown(model.note)


def _classes(model: ModelInfo) -> str:
    """The number of classes, with their names as far as there is room."""
    if not model.label_dim:
        return "-"
    names = _shown(", ".join(model.class_names))
    shown = names if len(names) <= MAX_NAMES_CHARS else f"{names[: MAX_NAMES_CHARS - 3]}..."
    return f"{model.label_dim}: {shown}" if shown else str(model.label_dim)


def _shown(text: str) -> str:
    # Somebody else's text: no control character of it gets to a terminal.
    return "".join(char if char.isprintable() else "?" for char in text)
