"""`rosacea serve` and `rosacea demo`."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rosacea_model.commands.sources import unknown_variables

from .flags import described, with_settings
from .models.shelf import Shelf
from .observe.logs import start_logging
from .scratch import Scratch, sweep
from .settings import CONFIG_VARIABLE, PREFIX, Settings, changed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rosacea_model.files.modelfile import ModelFile

CONFIG_HELP = "TOML file of settings by their names, such as `workers = 2`."
CHECK_HELP = "Check settings and models, print what would be in effect, and start nothing."

log = logging.getLogger(__name__)


@with_settings
def serve(
    models: Annotated[list[Path] | None, typer.Argument(help=described("models"))] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", envvar=CONFIG_VARIABLE, help=CONFIG_HELP)] = None,
    check: Annotated[bool, typer.Option("--check", help=CHECK_HELP)] = False,
    **flags: Any,
) -> None:
    """Serve models over gRPC: starts TorchServe and the gateway, and watches both until SIGTERM or Ctrl-C.

    SIGHUP reads the configuration and the models again and replaces those that changed, without failing a call.
    Variables such as ROSACEA_SERVE_WORKERS and a TOML file set the same; flags beat variables, variables the file.
    """
    from .gateway import serve as run

    stated = {name: value for name, value in {"models": models or None, **flags}.items() if value is not None}
    settings = Settings.read(stated, config)
    logs = start_logging(settings.log_format)
    for name in unknown_variables(os.environ, PREFIX, [*Settings.model_fields, "config"]):
        log.warning("%s is no setting", name)
    with Scratch("rosacea-models-") as scratch:
        read = reader(Shelf(scratch.path, settings.model_public_key), settings, lambda: Settings.read(stated, config))
        if check:
            print(report(settings, read([])))
        else:
            sweep()
            asyncio.run(run(read, settings, logs))


def reader(
    shelf: Shelf, settings: Settings, again: Callable[[], Settings]
) -> Callable[[Sequence[ModelFile]], list[ModelFile]]:
    """Make the function that reads the models at start and at every SIGHUP; its argument is the model files in use."""
    from rosacea_model.demo import folder as demo_folder

    def read(in_use: Sequence[ModelFile]) -> list[ModelFile]:
        now = again()
        if others := [name for name in changed(settings, now) if name != "models"]:
            log.warning("only the models are read again; a restart is needed for %s", ", ".join(others))
        return shelf.load(now.models or [demo_folder()], in_use)

    return read


def report(settings: Settings, files: Sequence[ModelFile]) -> str:
    """List the effective settings and models, one per line. Raises whatever would keep the service from starting."""
    from prometheus_client import CollectorRegistry

    from .access.access import Access
    from .api.signing import signer_of
    from .catalog import Catalog
    from .gateway import devices_of
    from .models.deployment import torchserve_options
    from .observe.record import tracing_of
    from .torchserve.java import find_java

    Access(settings, CollectorRegistry())
    if tracing := tracing_of(settings):
        tracing.export_remaining()
    devices = devices_of(settings)
    for model in Catalog(files).revisions:
        torchserve_options(model.file, settings, devices)
    signer_of(settings)
    rows = [f"{name} = {value}" for name, value in settings if name not in ("models", "java")]
    rows.append(f"java = {find_java(settings.java)}")
    rows.append(f"draws on {devices}")
    rows += [f"model {file.name} {file.digest} ({file.config.img_resolution} px)" for file in files]
    return "\n".join(rows)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the faces and their contact sheet.")] = Path("build/demo"),
) -> None:
    """Draw sixteen faces through the whole system: model, TorchServe, gateway, client, contact sheet."""
    from .demo import run

    start_logging("text")
    print(run(out))
