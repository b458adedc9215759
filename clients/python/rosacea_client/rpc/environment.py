"""Connection settings from environment variables, as the command line uses them.

Variables:

    ROSACEA_ADDRESS         HOST:PORT, several with commas between, or dns:///NAME:PORT
    ROSACEA_TLS             1 for TLS with grpc's own roots
    ROSACEA_CA_FILE         TLS with these roots (PEM)
    ROSACEA_SERVER_NAME     whom certificates must name, if not the host
    ROSACEA_CLIENT_CERT     certificate to show (PEM), with
    ROSACEA_CLIENT_KEY      its private key (PEM)
    ROSACEA_API_KEY_FILE    file that holds your API key; or
    ROSACEA_API_KEY         the key itself, which every process of yours can read there
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from rosacea_client.rpc.address import DEFAULT_ADDRESS
from rosacea_client.rpc.connection import Tls

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "ROSACEA_"
NO, YES = ("", "0", "false", "no", "off"), ("1", "true", "yes", "on")


class Stated(TypedDict):
    """Client arguments that the environment may set."""

    target: str
    tls: Tls | bool
    api_key: str | Path | None


def stated(environment: Mapping[str, str]) -> Stated:
    """Read the variables; ValueError for invalid ones. An empty variable counts as unset."""
    given = {name.removeprefix(PREFIX): value for name, value in environment.items() if name.startswith(PREFIX)}
    switch = given.get("TLS", "").lower()
    if switch not in NO + YES:
        raise ValueError(f"ROSACEA_TLS must be 1 or 0, got {switch[:80]!r}")
    key, key_file = given.get("API_KEY"), given.get("API_KEY_FILE")
    if key and key_file:
        raise ValueError("ROSACEA_API_KEY and ROSACEA_API_KEY_FILE cannot both be set: which key is meant?")
    files = {
        "ca_file": given.get("CA_FILE") or None,
        "certificate_file": given.get("CLIENT_CERT") or None,
        "key_file": given.get("CLIENT_KEY") or None,
        "server_name": given.get("SERVER_NAME") or None,
    }
    return {
        "target": given.get("ADDRESS") or DEFAULT_ADDRESS,
        "tls": Tls(**files) if switch in YES or any(files.values()) else False,
        "api_key": Path(key_file) if key_file else key or None,
    }
