"""Command-line options shared by several commands.

What is asked for has the names of the API's fields, and short ones beside them.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from rosacea_client.errors import InvalidSpec
from rosacea_client.rpc.address import DEFAULT_ADDRESS
from rosacea_client.rpc.connection import Tls
from rosacea_contract import spec
from rosacea_contract.reasons import show
from rosacea_contract.spec import NoiseMode


def image_format(text: str) -> str:
    """Parse an image format: png, jpeg (or jpg) or raw, in any case."""
    try:
        return spec.image_format(text)
    except InvalidSpec as error:
        raise typer.BadParameter(str(error)) from None


def numbers(text: str | None) -> list[float] | None:
    """Parse numbers such as `0,0.5,0.5`; None stays None."""
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        rule = "--label-vector must be numbers with commas between, such as 0,0.5,0.5"
        raise ValueError(f"{rule}, got {show(text)}") from None


def style_mixes(texts: list[str] | None) -> list[dict[str, int]]:
    """Parse style mixes such as `7:0-4`: rows 0 to 3 of seed 7."""
    return [_style_mix(text) for text in texts or ()]


def _style_mix(text: str) -> dict[str, int]:
    seed, _, rows = text.partition(":")
    first, _, end = rows.partition("-")
    if not all(part.isascii() and part.isdigit() for part in (seed, first, end)):
        rule = "--style-mix must be SEED:FIRST-END, such as 7:0-4 for rows 0 to 3 of seed 7"
        raise ValueError(f"{rule}, got {show(text)}")
    return {"seed": int(seed), "first_row": int(first), "end_row": int(end)}


def given(**options: Any) -> dict[str, Any]:
    """The options that have a value."""
    return {name: value for name, value in options.items() if value is not None}


Psi = Annotated[float | None, typer.Option("--truncation-psi", "--psi", help="Truncation from -2 to 2; 1 is none.")]
Cutoff = Annotated[
    int | None, typer.Option("--truncation-cutoff", "--cutoff", help="Truncate only the first N rows of ws.")
]
ClassIndex = Annotated[
    str | None, typer.Option("--class-index", "--label", help="Class of a conditional model: its number or its name.")
]
LabelVector = Annotated[
    str | None, typer.Option("--label-vector", metavar="W,W,...", help="Weights of the classes; zeros for none.")
]
StyleMixes = Annotated[
    list[str] | None, typer.Option("--style-mix", metavar="SEED:FIRST-END", help="Take rows of ws from another seed.")
]
Noise = Annotated[NoiseMode, typer.Option("--noise-mode", "--noise", help="Per-pixel noise.")]
NoiseSeed = Annotated[int | None, typer.Option("--noise-seed", help="Seed of random noise.")]
Format = Annotated[str, typer.Option("--format", parser=image_format, metavar="png|jpeg|raw", help="Image format.")]
Quality = Annotated[int | None, typer.Option("--jpeg-quality", "--quality", help="JPEG quality, 1 to 100.")]
ModelName = Annotated[str, typer.Option("--model", help="Name of a model; else the default model.")]

Address = Annotated[
    str, typer.Option("--address", envvar="ROSACEA_ADDRESS", help="Where the service listens, HOST:PORT or unix:PATH.")
]
UseTls = Annotated[bool, typer.Option("--tls", envvar="ROSACEA_TLS", help="Use TLS with grpc's own roots.")]
CaFile = Annotated[
    Path | None, typer.Option("--ca-file", envvar="ROSACEA_CA_FILE", help="Use TLS with these roots (PEM).")
]
ClientCert = Annotated[
    Path | None, typer.Option("--client-cert", envvar="ROSACEA_CLIENT_CERT", help="Certificate to show (PEM).")
]
ClientKey = Annotated[
    Path | None, typer.Option("--client-key", envvar="ROSACEA_CLIENT_KEY", help="Its private key (PEM).")
]
ApiKeyFile = Annotated[
    Path | None, typer.Option("--api-key-file", envvar="ROSACEA_API_KEY_FILE", help="File that holds your API key.")
]


CONNECTION = {
    "address": (Address, DEFAULT_ADDRESS), "tls": (UseTls, False), "ca_file": (CaFile, None),
    "client_cert": (ClientCert, None), "client_key": (ClientKey, None), "api_key_file": (ApiKeyFile, None),
}  # fmt: skip


@dataclass(frozen=True)
class ConnectionOptions:
    """Connection options of a command: address, TLS, API key."""

    address: str
    tls: Tls | None  # None for plain text
    api_key_file: Path | None


def with_connection(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator that replaces a command's last parameter, `connection`, by the connection options."""
    *own, last, _ = inspect.signature(command).parameters.values()
    added = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind)
        for name, (kind, default) in CONNECTION.items()
    ]

    @wraps(command)
    def run(**options: Any) -> None:
        connection = _connection(**{name: options.pop(name) for name in CONNECTION})
        command(**options, connection=connection)

    run.__signature__ = inspect.Signature([*own, *added, last])  # type: ignore[attr-defined]  # typer reads it
    return run


def _connection(
    address: str, tls: bool, ca_file: Path | None, client_cert: Path | None, client_key: Path | None,
    api_key_file: Path | None,
) -> ConnectionOptions:  # fmt: skip
    return ConnectionOptions(address, wanted_tls(tls, ca_file, client_cert, client_key), api_key_file)


def wanted_tls(tls: bool, ca_file: Path | None, cert: Path | None, key: Path | None) -> Tls | None:
    """TLS settings from the options; None for plain text."""
    return Tls(ca_file=ca_file, certificate_file=cert, key_file=key) if tls or ca_file or cert or key else None
