"""Faults that only the kernel can bring about do what they say, where they are permitted."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

from .cgroup import NotPermittedError, memory_group
from .netns import PRIVATELY, check_permitted

MIB = 2**20
# Waits for a line, then takes 64 MiB and touches all of it.
GREEDY = f"input(); print(len(b'x' * {64 * MIB}))"
# A server and its client in a namespace: what a connection attempt comes to, under each fault and after it.
IN_A_NAMESPACE = """
import socket
from tests.faults.netns import Wire, bring_up

bring_up()
server = socket.create_server(("127.0.0.1", 0))
port = server.getsockname()[1]

def attempt():
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
        return "OK"
    except OSError as error:
        return type(error).__name__

with Wire(port) as wire:
    seen = [attempt()]
    for fault in (wire.cut, wire.refuse, lambda: wire.slow(1000)):
        fault()
        seen.append(attempt())
        seen.append(str(wire.heal() > 0))
        seen.append(attempt())
    print(" ".join(seen))
"""


def greedy() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", GREEDY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_who_takes_more_memory_than_its_group_has_is_killed() -> None:
    try:
        with memory_group(16 * MIB) as group, greedy() as inside, greedy() as outside:
            group.add(inside.pid)
            inside.communicate("\n")
            outside.communicate("\n")
            kills = group.kills
    except NotPermittedError as error:
        pytest.skip(str(error))

    assert (inside.returncode, kills) == (-9, 1)
    assert outside.returncode == 0


def test_a_wire_can_be_cut_refused_slowed_and_healed() -> None:
    try:
        check_permitted()
    except NotPermittedError as error:
        pytest.skip(str(error))
    done = subprocess.run(
        [*PRIVATELY, sys.executable, "-c", IN_A_NAMESPACE], cwd=ROOT, capture_output=True, text=True, check=True
    )

    cut, refuse, slow = ["TimeoutError", "True", "OK"], ["ConnectionRefusedError", "True", "OK"], ["OK", "False", "OK"]
    assert done.stdout.split() == ["OK", *cut, *refuse, *slow]
