"""Where the service listens, unless somebody says otherwise."""

from __future__ import annotations

import ipaddress

DEFAULT_PORT = 7433
DEFAULT_ADDRESS = f"127.0.0.1:{DEFAULT_PORT}"


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT, or HOST, cannot be reached from other machines. A name that is not localhost may be."""
    host = address.rpartition(":")[0] if ":" in address and not address.endswith("]") else address
    host = host.strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
