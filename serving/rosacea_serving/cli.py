"""`rosacea serve` and `rosacea demo`."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rosacea_model.modelfile import ModelFile

MODEL_HELP = "Model folders, .safetensors files or .mar archives; the first is the default model."


def flag(name: str) -> Any:
    """A command-line option for a setting, described as the setting is."""
    return typer.Option(help=Settings.model_fields[name].description, show_default=False)


def serve(
    models: Annotated[list[Path], typer.Argument(help=MODEL_HELP, exists=True)],
    address: Annotated[str | None, flag("address")] = None,
    metrics_address: Annotated[str | None, flag("metrics_address")] = None,
    workers: Annotated[int | None, flag("workers")] = None,
    worker_threads: Annotated[int | None, flag("worker_threads")] = None,
    max_batch: Annotated[int | None, flag("max_batch")] = None,
    jobs_per_worker: Annotated[int | None, flag("jobs_per_worker")] = None,
    queue_images: Annotated[int | None, flag("queue_images")] = None,
    max_images_per_request: Annotated[int | None, flag("max_images_per_request")] = None,
    max_images_per_stream: Annotated[int | None, flag("max_images_per_stream")] = None,
    stream_lookahead: Annotated[int | None, flag("stream_lookahead")] = None,
    stream_message_bytes: Annotated[int | None, flag("stream_message_bytes")] = None,
    answer_bytes: Annotated[int | None, flag("answer_bytes")] = None,
    max_request_bytes: Annotated[int | None, flag("max_request_bytes")] = None,
    job_timeout_seconds: Annotated[float | None, flag("job_timeout_seconds")] = None,
    grace_seconds: Annotated[float | None, flag("grace_seconds")] = None,
    java: Annotated[Path | None, flag("java")] = None,
) -> None:
    """Serve models over gRPC: starts TorchServe and the gateway, and watches both until SIGTERM or Ctrl-C."""
    flags = {name: value for name, value in locals().items() if name != "models" and value is not None}
    from .gateway import serve as run

    log_to_terminal()
    settings = Settings.read(flags)
    with tempfile.TemporaryDirectory(prefix="rosacea-models-") as scratch:
        asyncio.run(run(open_models(models, Path(scratch)), settings))


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the faces and their contact sheet.")] = Path("build/demo"),
) -> None:
    """Draw sixteen faces through the whole system: model, TorchServe, gateway, client, contact sheet."""
    from .demo import run

    log_to_terminal()
    print(run(out))


def open_models(paths: Sequence[Path], scratch: Path) -> list[ModelFile]:
    """Verify every model. Archives give up their weights and manifest, never their code."""
    from rosacea_model.archive import read_archive
    from rosacea_model.modelfile import verify

    return [
        read_archive(path, scratch / str(index)) if path.suffix == ".mar" else verify(path)
        for index, path in enumerate(paths)
    ]


def log_to_terminal() -> None:
    """Plain log lines on standard error."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
