"""Ports for servers that tests start at an address that was chosen before."""

from __future__ import annotations

import random
import socket
from pathlib import Path

FIRST = 20_000
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")  # from which Linux takes ports for connections and for port 0


def free_port() -> int:
    """A port where nothing listens, and which stays free for as long as this process lives: it is not handed out again,
    here or in another process, and lies below those that Linux chooses by itself."""
    lowest = int(RANGE.read_text().split()[0]) if RANGE.exists() else 0
    if lowest < FIRST + 1000:  # another system, or one that leaves us no room
        return _port_of_the_system()
    return next(port for port in iter(lambda: random.randrange(FIRST, lowest), None) if _claimed(port))


def _claimed(port: int) -> bool:
    """Whether nobody has the port yet; it is then ours, by a socket whose name no other process can take."""
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0rosacea-tests-port-{port}")
        with socket.socket() as probe:
            probe.bind(("", port))
    except OSError:
        claim.close()
        return False
    claim.detach()  # open until this process ends
    return True


def _port_of_the_system() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
