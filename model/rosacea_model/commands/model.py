"""`rosacea model`: import, export, inspect and make models. Only the commands that need torch load it."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rosacea_contract.install import missing

from ..behind import model_behind
from ..classes import class_number
from ..files.modelfile import ModelFile, name_classes, read_header, set_default_class, verify
from ..files.tensors import is_buffer
from .check import check_phantoms
from .roofline import roofline

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..importers.importer import ImportReport

app = typer.Typer(help="Import, export, inspect and make models.", no_args_is_help=True, add_completion=False)


class Format(StrEnum):
    """Output formats of `rosacea model export`."""

    archive = "archive"
    store = "store"
    onnx = "onnx"


class Noise(StrEnum):
    """How an exported ONNX file gets its noise: stored in it, or as an input."""

    const = "const"
    input = "input"


class Start(StrEnum):
    """The latent that an ONNX file takes."""

    z = "z"
    w = "w"
    ws = "ws"


class ModelPreset(StrEnum):
    """Presets of `rosacea model new`."""

    demo = "demo"
    full = "full"


ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder, run or checkpoint.")]
ModelFolder = Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder.")]
OutFolder = Annotated[Path, typer.Option("--out", metavar="DIR", help="Model folder to write.")]
Name = Annotated[str | None, typer.Option(help="Name of the model; unset = the name of the folder.")]


Classes = Annotated[
    str, typer.Option("--classes", metavar="NAMES", help="Names of classes 0, 1, ...: none,mild,severe; or a data set.")
]


@app.command("import")
def import_snapshot(
    snapshot: Annotated[Path, typer.Argument(metavar="SNAPSHOT", help="A .pkl or .pt checkpoint.")],
    out: OutFolder,
    name: Name = None,
    classes: Classes = "",
    force: Annotated[bool, typer.Option("--force", help="Replace the model that DIR holds.")] = False,
) -> None:
    """Convert a StyleGAN2 checkpoint to a model folder, without running any code in it."""
    from ..importers.importer import import_checkpoint

    with _working(f"reading {snapshot}"):
        report = import_checkpoint(snapshot, out, name or _folder_name(out), force=force, classes=class_names(classes))
    _print_table(_import_facts(report), title=f"imported {snapshot.name}")


@app.command("export")
def export_model(
    model: ModelPath,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="*.mar, *.onnx or a model store.")],
    format: Annotated[  # noqa: A002 (the option's name)
        Format | None, typer.Option("--format", help="What to write; unset = as the suffix of FILE says.")
    ] = None,
    noise: Annotated[Noise, typer.Option(help="Noise of an ONNX file: built in, or an input.")] = Noise.const,
    start: Annotated[
        Start, typer.Option("--input", help="Latent that an ONNX file takes: z, w, or ws with a row for each layer.")
    ] = Start.z,
    workers: Annotated[int, typer.Option(min=1, help="Workers that TorchServe starts for it.")] = 1,
) -> None:
    """Write a model as a TorchServe archive, into a TorchServe model store, or as ONNX."""
    kind = format or infer_format(out)
    with model_behind(model) as (folder, taken):
        if kind is Format.onnx:
            facts = _export_onnx(folder, out, noise, start)
        else:
            facts = _export_archive(folder, out, kind, workers)
    _print_table({**facts, **({"taken": taken} if taken else {})}, title=f"exported {model}")


@app.command("info")
def show_info(
    model: ModelPath,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object, not a table.")] = False,
) -> None:
    """Verify a model and describe it."""
    with model_behind(model) as (folder, taken):
        facts = {**model_facts(verify(folder)), **({"taken": taken} if taken else {})}
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        _print_table(_flat(facts), title=str(model))


@app.command("classes")
def show_classes(
    model: ModelFolder,
    names: Annotated[str, typer.Argument(metavar="[NAMES]", help="none,mild,severe; or a data set.")] = "",
    default: Annotated[
        str, typer.Option(metavar="CLASS", help="Class of requests without a label; `refuse` to refuse them.")
    ] = "",
) -> None:
    """Show or set a model's class names and its default class; the digest stays, a signature has to be renewed."""
    file = name_classes(model, class_names(names)) if names else verify(model)
    if default:
        file = set_default_class(model, _class_index(default, file))
    for number, name in enumerate(file.classes or map(str, range(file.config.c_dim))):
        typer.echo(f"{number} {name}" + (" (default)" if number == file.default_class else ""))


@app.command("sign")
def sign_model(
    model: ModelFolder,
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="Your private elliptic key, PEM, mode 0400.")],
) -> None:
    """Sign a model with your own key; `rosacea serve --model-public-key` then refuses others."""
    from ..files.signing import sign

    typer.echo(sign(model, key))


@app.command("verify")
def verify_model(
    model: ModelFolder,
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="The signer's public key, PEM.")],
) -> None:
    """Check a model's digest and signature."""
    from ..files.signing import check_signature

    file = verify(model)
    check_signature(file, key)
    typer.echo(f"{file.name} {file.digest} is signed by the owner of {key}")


@app.command("new")
def new_model(
    out: OutFolder,
    preset: Annotated[ModelPreset, typer.Option(help="demo: 128 x 128 and fast; full: 512 x 512.")] = ModelPreset.demo,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the weights.")] = 0,
    name: Name = None,
) -> None:
    """Create an untrained model, which draws coloured blobs, to try the system with."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} must be empty or absent")
    with _working("drawing weights"):
        from ..fresh import PRESETS, fresh_model

        file = fresh_model(out, PRESETS[preset](), seed=seed, name=name or _folder_name(out))
    _print_table(_flat(model_facts(file)), title=str(out))


app.command("check-phantoms")(check_phantoms)
app.command("roofline")(roofline)


def class_names(text: str) -> tuple[str, ...]:
    """Class names from an option's text, or those of a data set."""
    if not text or not Path(text).exists():
        return tuple(name.strip() for name in text.split(",") if name.strip())
    from ..data.source import open_source

    if not (names := open_source(Path(text)).classes):
        raise ValueError(f"{text}: the data set has no names for its classes")
    return names


def _class_index(text: str, file: ModelFile) -> int | None:
    """The class that `--default` means, by number or name; None for `refuse`."""
    if text == "refuse":
        return None
    return int(text) if text.isascii() and text.isdigit() else class_number(text, file.classes)


def infer_format(out: Path) -> Format:
    """Export format by path: *.mar an archive, *.onnx ONNX, a folder or no suffix a model store."""
    if out.suffix == ".mar":
        return Format.archive
    if out.suffix == ".onnx":
        return Format.onnx
    if out.is_dir() or not out.suffix:
        return Format.store
    raise ValueError(f"--out must end in .mar or .onnx or name a folder where --format is unset, got {out}")


def model_facts(file: ModelFile) -> dict[str, Any]:
    """What `info` prints of a verified model."""
    header = read_header(file.path)
    sizes = {name: math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    buffers = sum(size for name, size in sizes.items() if is_buffer(name))
    return {
        "name": file.name,
        "note": file.note,
        "digest": file.digest,
        "tensors": len(sizes),
        "parameters": sum(sizes.values()) - buffers,
        "buffers": buffers,
        **({"classes": ", ".join(file.classes)} if file.classes else {}),
        **({} if file.default_class is None else {"default class": file.default_class}),
        "config": asdict(file.config),
    }


def check_onnx_installed() -> None:
    """Raise ValueError, naming what to install, unless models can be exported as ONNX."""
    for package in ("onnx", "onnxruntime", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise ValueError(missing("ONNX export", package, "onnx"))


def _export_onnx(model: Path, out: Path, noise: Noise, start: Start) -> dict[str, Any]:
    check_onnx_installed()
    with _working("tracing and checking against torch"):
        from ..files.onnx_export import export_onnx
        from ..model import load

        report = export_onnx(load(model), out, noise=noise.value, start=start.value)
    return {
        "file": report.path,
        "bytes": report.file_bytes,
        "opset": report.opset,
        "inputs": ", ".join(report.inputs),
        "largest difference of an image": f"{report.image_difference:.2g}",
        "largest difference of ws": f"{report.ws_difference:.2g}",
    }


def _export_archive(model: Path, out: Path, kind: Format, workers: int) -> dict[str, Any]:
    from ..files.archive import WorkerOptions, write_archive, write_store_folder

    file = verify(model)
    options = WorkerOptions(workers=workers)
    with _working(f"writing {out}"):
        if kind is Format.archive:
            write_archive(file, out, options)
            return {"file": out, "bytes": out.stat().st_size, "name": file.name, "digest": file.digest}
        return {"folder": write_store_folder(file, out, options), "name": file.name, "digest": file.digest}


def _import_facts(report: ImportReport) -> dict[str, Any]:
    networks = {
        f"network {network.name}": f"{network.class_name}, {network.parameters:,} parameters"
        for network in report.networks
    }
    return {
        "kind": report.kind,
        "folder": report.folder,
        "digest": report.digest,
        "SHA-256 of the source": report.source_sha256,
        **asdict(report.config),
        **networks,
        "augment_p": report.augment_p,
        "notes": "\n".join(report.notes),
    }


def _folder_name(folder: Path) -> str:
    return folder.resolve().name


def _working(what: str) -> Any:
    # On stderr and only there, so that --json and redirected tables stay clean.
    return Console(stderr=True).status(_text(what))


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {**{key: value for key, value in facts.items() if key != "config"}, **facts["config"]}


def _print_table(facts: Mapping[str, Any], *, title: str) -> None:
    table = Table(title=_text(title), title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in facts.items():
        table.add_row(key, _text(value))
    Console().print(table)


def _text(value: object) -> Text:
    # Names and notes come out of files: no markup in them is obeyed, no control character gets to a terminal.
    if value in (None, ""):
        return Text("-")
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return Text("".join(char if char.isprintable() or char == "\n" else "?" for char in text))
