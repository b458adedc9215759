"""Options that several commands have: where the service is, and how it is spoken to."""

from pathlib import Path
from typing import Annotated

import typer

from rosacea_client.connection import Tls

Address = Annotated[
    str, typer.Option("--address", envvar="ROSACEA_ADDRESS", help="Where the service listens, HOST:PORT or unix:PATH.")
]
UseTls = Annotated[
    bool, typer.Option("--tls", envvar="ROSACEA_TLS", help="Use TLS with grpc's own roots.")
]
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


def wanted_tls(tls: bool, ca_file: Path | None, cert: Path | None, key: Path | None) -> Tls | None:
    """What those options ask for; None for plain text."""
    return Tls(ca_file=ca_file, certificate_file=cert, key_file=key) if tls or ca_file or cert or key else None
