"""A network of one's own to spoil: this process in a network namespace, where packets of one port are lost or slowed.

    subprocess.run([*PRIVATELY, sys.executable, "-m", ...])     # the namespace ends with the process
    bring_up()                                                  # in there, before anything else
    with Wire(port) as wire:
        wire.lose(10)                                           # percent of all packets, each way
        wire.cut()                                              # all of them
        wire.refuse()                                           # answered with RST
        wire.heal()

Needs root, nft and tc. There is no delay: the kernel's netem is often not there; `proxy` can delay.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Self

from .cgroup import NotPermittedError

PRIVATELY = ("unshare", "--net")
MTU = 1500  # as on a wire: over loopback a packet has 64 kB
TABLE = "rosacea"
BOTH_WAYS = ("sport", "dport")


class Wire:
    """The loopback interface of a namespace, as far as one TCP port goes."""

    def __init__(self, port: int) -> None:
        self._port = port

    def __enter__(self) -> Self:
        run(f"nft add table inet {TABLE}")
        run(f"nft add chain inet {TABLE} arriving {{ type filter hook input priority 0; }}")
        run("tc qdisc add dev lo root handle 1: htb")
        return self

    def __exit__(self, *exception: object) -> None:
        run(f"nft delete table inet {TABLE}")
        run("tc qdisc del dev lo root")

    def lose(self, percent: int) -> None:
        self._rule(f"numgen random mod 100 < {percent} counter drop")

    def cut(self) -> None:
        self._rule("counter drop")

    def refuse(self) -> None:
        # On the way there only: on the way back it would meet its own resets.
        self._rule("counter reject with tcp reset", "dport")

    def slow(self, kilobits: int) -> None:
        """A rate for both ways together."""
        run(f"tc class add dev lo parent 1: classid 1:10 htb rate {kilobits}kbit burst 16k")
        for side in BOTH_WAYS:
            run(f"tc filter add dev lo parent 1: protocol ip u32 match ip {side} {self._port} 0xffff flowid 1:10")

    def heal(self) -> int:
        """No more of it; how many packets it has met."""
        listed = json.loads(run(f"nft --json list table inet {TABLE}"))["nftables"]
        rules = [entry["rule"]["expr"] for entry in listed if "rule" in entry]
        met: int = sum(part["counter"]["packets"] for rule in rules for part in rule if "counter" in part)
        run(f"nft flush chain inet {TABLE} arriving")
        run("tc qdisc del dev lo root")
        run("tc qdisc add dev lo root handle 1: htb")
        return met

    def _rule(self, what: str, *sides: str) -> None:
        for side in sides or BOTH_WAYS:
            run(f"nft add rule inet {TABLE} arriving tcp {side} {self._port} {what}")


def bring_up() -> None:
    """Loopback is down in a new namespace."""
    run(f"ip link set lo up mtu {MTU} gso_max_size {MTU}")


def check_permitted() -> None:
    """Raise NotPermittedError where there can be no such network here."""
    for tool in ("unshare", "ip", "nft", "tc"):
        if shutil.which(tool) is None:
            raise NotPermittedError(f"{tool} is not installed")
    tried = subprocess.run([*PRIVATELY, "ip", "link", "set", "lo", "up"], capture_output=True, text=True, check=False)
    if tried.returncode:
        raise NotPermittedError(f"a network namespace: {tried.stderr.strip()}")


def run(command: str) -> str:
    """What it prints. Raises NotPermittedError with what it complains of."""
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotPermittedError(f"{command}: {done.stderr.strip()}")
    return done.stdout
