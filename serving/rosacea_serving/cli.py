"""`rosacea serve` and `rosacea demo`."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .models.shelf import Shelf
from .observe.logs import start_logging
from .scratch import Scratch, sweep
from .settings import CONFIG_VARIABLE, Settings, changed, unknown_variables

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rosacea_model.files.modelfile import ModelFile

CONFIG_HELP = "A TOML file of settings."
CHECK_HELP = "Check settings and models, print what would be in force, and start nothing."

log = logging.getLogger(__name__)


def describe(name: str) -> str | None:
    return Settings.model_fields[name].description


def flag(name: str) -> Any:
    """A command-line option for a setting, described as the setting is."""
    return typer.Option(help=describe(name), show_default=False)


def serve(
    models: Annotated[list[Path] | None, typer.Argument(help=describe("models"))] = None,
    config: Annotated[Path | None, typer.Option(envvar=CONFIG_VARIABLE, help=CONFIG_HELP)] = None,
    check: Annotated[bool, typer.Option("--check", help=CHECK_HELP)] = False,
    address: Annotated[str | None, flag("address")] = None,
    metrics_address: Annotated[str | None, flag("metrics_address")] = None,
    log_format: Annotated[str | None, flag("log_format")] = None,
    traces_endpoint: Annotated[str | None, flag("traces_endpoint")] = None,
    traces_ratio: Annotated[float | None, flag("traces_ratio")] = None,
    device: Annotated[str | None, flag("device")] = None,
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
    max_connections: Annotated[int | None, flag("max_connections")] = None,
    max_request_bytes: Annotated[int | None, flag("max_request_bytes")] = None,
    connection_age_seconds: Annotated[float | None, flag("connection_age_seconds")] = None,
    connection_grace_seconds: Annotated[float | None, flag("connection_grace_seconds")] = None,
    job_timeout_seconds: Annotated[float | None, flag("job_timeout_seconds")] = None,
    grace_seconds: Annotated[float | None, flag("grace_seconds")] = None,
    retire_seconds: Annotated[float | None, flag("retire_seconds")] = None,
    circuit_seconds: Annotated[float | None, flag("circuit_seconds")] = None,
    c2pa_certificates: Annotated[Path | None, flag("c2pa_certificates")] = None,
    c2pa_key: Annotated[Path | None, flag("c2pa_key")] = None,
    model_public_key: Annotated[Path | None, flag("model_public_key")] = None,
    tls_certificate: Annotated[Path | None, flag("tls_certificate")] = None,
    tls_key: Annotated[Path | None, flag("tls_key")] = None,
    tls_client_ca: Annotated[Path | None, flag("tls_client_ca")] = None,
    api_keys: Annotated[Path | None, flag("api_keys")] = None,
    oidc_issuer: Annotated[str | None, flag("oidc_issuer")] = None,
    oidc_audience: Annotated[str | None, flag("oidc_audience")] = None,
    oidc_jwks: Annotated[str | None, flag("oidc_jwks")] = None,
    failed_attempts_per_minute: Annotated[int | None, flag("failed_attempts_per_minute")] = None,
    insecure: Annotated[bool | None, flag("insecure")] = None,
    reflection: Annotated[bool | None, flag("reflection")] = None,
    channelz: Annotated[bool | None, flag("channelz")] = None,
    health_address: Annotated[str | None, flag("health_address")] = None,
    quota_images_per_second: Annotated[float | None, flag("quota_images_per_second")] = None,
    quota_burst_images: Annotated[int | None, flag("quota_burst_images")] = None,
    quota_calls: Annotated[int | None, flag("quota_calls")] = None,
    quota_streams: Annotated[int | None, flag("quota_streams")] = None,
    java: Annotated[Path | None, flag("java")] = None,
) -> None:
    """Serve models over gRPC: starts TorchServe and the gateway, and watches both until SIGTERM or Ctrl-C.

    SIGHUP reads the configuration and the models again and exchanges those that changed, without failing a call.
    """
    models = models or None
    flags = {name: value for name, value in locals().items() if name not in ("config", "check") and value is not None}
    from .gateway import serve as run

    settings = Settings.read(flags, config)
    logs = start_logging(settings.log_format)
    for name in unknown_variables(os.environ):
        log.warning("%s is no setting", name)
    with Scratch("rosacea-models-") as scratch:
        read = reader(Shelf(scratch.path, settings.model_public_key), settings, lambda: Settings.read(flags, config))
        if check:
            print(report(settings, read([])))
        else:
            sweep()
            asyncio.run(run(read, settings, logs))


def reader(
    shelf: Shelf, settings: Settings, again: Callable[[], Settings]
) -> Callable[[Sequence[ModelFile]], list[ModelFile]]:
    """The function that reads the models, now and at every SIGHUP; it gets those that are in use."""
    from rosacea_model.demo import folder as demo_folder

    def read(in_use: Sequence[ModelFile]) -> list[ModelFile]:
        now = again()
        if others := [name for name in changed(settings, now) if name != "models"]:
            log.warning("only the models are read again; a restart is needed for %s", ", ".join(others))
        return shelf.take(now.models or [demo_folder()], in_use)

    return read


def report(settings: Settings, files: Sequence[ModelFile]) -> str:
    """What would be in force, one setting and one model a line. Raises what would keep the service from starting."""
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
        tracing.close()
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
