"""Service addresses, and balancing calls over several."""

from __future__ import annotations

import ipaddress
import json
import socket
from typing import TYPE_CHECKING, Any

from rosacea_client.convert import MAX_MESSAGE_BYTES
from rosacea_client.rpc.address import SOCKETS
from rosacea_client.rpc.channels import channel_options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rosacea_client.rpc.channels import Options

# Each call goes to the next machine that is well. A single one is asked as it is: what it says of itself when it is
# not well tells more than gRPC's "no healthy address".
_SPREAD: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
_HEALTH: dict[str, Any] = {"healthCheckConfig": {"serviceName": ""}}


def service_options(target: str, server_name: str | None = None) -> Options:
    """Channel arguments for `target`; `server_name` is the name to verify in certificates, if not the host.

    The host of a socket is localhost.
    """
    config = _SPREAD | (_HEALTH if several(target) else {})
    name = server_name or ("localhost" if target.startswith(SOCKETS) else None)
    named = [("grpc.ssl_target_name_override", name)] if name else []
    common = channel_options(target, max_message_bytes=MAX_MESSAGE_BYTES)
    return [("grpc.service_config", json.dumps(config)), *common, *named]


def several(target: str) -> bool:
    """Whether a target may have several machines."""
    return "," in target or target.startswith("dns:")


def grpc_target(target: str) -> str:
    """The gRPC target; for several HOST:PORT, their IP addresses, resolved now.

    Names that change what they stand for are better left to gRPC: dns:///NAME:PORT is looked up again and again.
    Raises ValueError for what is no HOST:PORT, OSError for a name that cannot be found.
    """
    if "," not in target or "://" in target or target.startswith(("ipv4:", "ipv6:", *SOCKETS)):
        return target
    found = [_looked_up(address.strip()) for address in target.split(",")]
    for version, scheme in ((4, "ipv4"), (6, "ipv6")):
        chosen = [next((each for each in addresses if each[0].version == version), None) for addresses in found]
        if None not in chosen:
            return f"{scheme}:" + ",".join(_joined(each) for each in chosen if each)
    raise ValueError(f"several addresses must all be IPv4 or all be IPv6, got {target!r}")


Found = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]


def _looked_up(address: str) -> list[Found]:
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit()):
        raise ValueError(f"several addresses must be HOST:PORT each, with commas between, got {address!r}")
    hits: Iterable[Any] = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    return [(ipaddress.ip_address(hit[4][0].partition("%")[0]), int(port)) for hit in hits]


def _joined(found: Found) -> str:
    ip, port = found
    return f"{ip}:{port}" if ip.version == 4 else f"[{ip}]:{port}"
