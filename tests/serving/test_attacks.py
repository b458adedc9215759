"""Whatever arrives at the port, the gateway lives, lets go of it, and goes on answering honest callers.

Each attack is also made on a server with grpc's defaults, or with its defence taken away, where that one must suffer:
otherwise the attack proves nothing.
"""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import grpc
import h2.config
import h2.connection
import h2.errors
import h2.exceptions
import pytest

from rosacea.v1 import faces_pb2 as pb
from tests.faults.garbage import garbage

from ..waiting import HANG_SECONDS, wait_for
from .fake_service import METHOD, Victim

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

SOCKETS = 500
RESETS = 10_000
BURST = 500
MIB = 2**20


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    with Victim() as running:
        for seed in range(20):
            running.probe(seed)
        yield running


@pytest.fixture(scope="module")
def bare() -> Iterator[Victim]:
    with Victim("bare") as running:
        yield running


def connected(victim: Victim, stack: ExitStack) -> dict[int, socket.socket]:
    """Connections to it, by their ports here."""
    made = [socket.create_connection(("127.0.0.1", victim.port), timeout=HANG_SECONDS) for _ in range(SOCKETS)]
    return {stack.enter_context(each).getsockname()[1]: each for each in made}


def test_garbage_on_500_sockets_is_let_go_and_costs_nobody_an_answer(victim: Victim) -> None:
    kinds = garbage()
    began = time.monotonic()
    with ExitStack() as stack:
        attackers = connected(victim, stack)
        for number, attacker in enumerate(attackers.values()):
            with suppress(OSError):  # it has already been shown the door
                attacker.sendall(kinds[number % len(kinds)])
        probes = [victim.probe(seed) for seed in range(10)]  # whose turn comes when all attackers have been let in
        wait_for(lambda: victim.held(attackers) <= SOCKETS // len(kinds) + 1)
        seconds, left = time.monotonic() - began, victim.held(attackers)
    wait_for(lambda: not victim.held(attackers))

    print(f"S19: let go in {seconds:.1f} s, {left} left that speak HTTP/2, slowest probe {max(probes) * 1000:.0f} ms")


def test_idle_connections_are_let_go(victim: Victim, bare: Victim) -> None:
    with ExitStack() as stack:
        idle, idle_at_bare = connected(victim, stack), connected(bare, stack)
        wait_for(lambda: bare.held(idle_at_bare) == SOCKETS)
        began = time.monotonic()
        probe = victim.probe()  # whose turn comes when all others have been let in
        wait_for(lambda: not victim.held(idle))
        seconds = time.monotonic() - began

        assert bare.held(idle_at_bare) == SOCKETS, "a server with grpc's defaults would do as well"

    print(f"S21: {SOCKETS} idle sockets let go in {seconds:.1f} s, probe {probe * 1000:.0f} ms")


def test_rapid_reset_costs_little_memory_and_nobody_an_answer(victim: Victim, bare: Victim) -> None:
    before, bare_before = victim.mebibytes, bare.mebibytes
    rapid_reset(bare, RESETS, probe=False)
    bare_grown = bare.mebibytes - bare_before
    sent, slowest = rapid_reset(victim, RESETS)
    after = victim.mebibytes
    answered = [victim.probe(seed) for seed in range(5)]

    assert sent == RESETS
    assert after - before <= 16 < bare_grown, "a server with grpc's defaults would do as well"
    slowest = max([slowest, *answered])
    print(f"S20: RSS +{after - before:.1f} MiB (bare +{bare_grown:.1f}), slowest probe {slowest * 1000:.0f} ms")


def test_the_measure_of_memory_can_fail(victim: Victim, bare: Victim) -> None:
    """200 MiB in one message, which only a server without a limit takes in. It may let go of it at once: the peak."""
    before, bare_before = victim.peak_mebibytes, bare.peak_mebibytes

    assert victim.call(bytes(200 * MIB)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert bare.call(bytes(200 * MIB)) is grpc.StatusCode.OK
    assert bare.peak_mebibytes - bare_before > 100 > 16 >= victim.peak_mebibytes - before


def rapid_reset(victim: Victim, resets: int, *, probe: bool = True) -> tuple[int, float]:
    """HEADERS and RST_STREAM, over and over, in bursts that come faster than anybody looks at them; how many, and the
    slowest honest call meanwhile."""
    sent, slowest = 0, 0.0
    headers = [
        (":method", "POST"), (":scheme", "http"), (":path", METHOD), (":authority", "x"),
        ("content-type", "application/grpc"), ("te", "trailers"),
    ]  # fmt: skip
    while sent < resets:
        with socket.create_connection(("127.0.0.1", victim.port), timeout=HANG_SECONDS) as raw:
            http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
            http.initiate_connection()
            raw.sendall(http.data_to_send())
            try:
                while sent < resets:
                    for _ in range(BURST):
                        stream = http.get_next_available_stream_id()
                        http.send_headers(stream, headers)
                        http.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
                    raw.sendall(http.data_to_send())
                    sent += BURST
                    if probe and sent % 1000 == 0:
                        slowest = max(slowest, victim.probe(sent))
            except (OSError, h2.exceptions.H2Error):
                continue  # thrown out: come again
    return sent, slowest


MANY = pb.GenerateFacesRequest(spec=pb.FaceSpec(seeds=pb.Seeds(values=[1] * 1_000_000))).SerializeToString()
WRONG_LAST = pb.StreamFacesRequest(spec=pb.FaceSpec(seeds=pb.Seeds(values=[*[1] * 200_000, 2**40]))).SerializeToString()
STREAM = {"path": METHOD.replace("Generate", "Stream")}
DEEP = b"\x0b" * 20_000 + b"\x0c" * 20_000  # groups within groups, of a field that nobody knows


@pytest.mark.parametrize(
    ("data", "options", "status", "most"),
    [
        (bytes(5 * MIB), {}, grpc.StatusCode.RESOURCE_EXHAUSTED, 8),
        (bytes(256 * MIB), {"compression": grpc.Compression.Gzip}, grpc.StatusCode.RESOURCE_EXHAUSTED, 8),
        (b"", {"metadata": [("x", "a" * 60_000)]}, grpc.StatusCode.RESOURCE_EXHAUSTED, 8),
        (DEEP, {}, grpc.StatusCode.INVALID_ARGUMENT, 8),
        # grpc keeps a refusal, and everything that hangs on it, until garbage is collected.
        (MANY, {}, grpc.StatusCode.INVALID_ARGUMENT, 32),
        (WRONG_LAST, STREAM, grpc.StatusCode.INVALID_ARGUMENT, 32),
        (bytes(4 * MIB - 1), STREAM, grpc.StatusCode.INVALID_ARGUMENT, 32),
    ],
    ids=["5 MiB", "gzip bomb", "60 kB of metadata", "20,000 deep", "a million seeds", "last seed wrong", "4 MiB"],
)
def test_what_is_too_large_is_refused_and_costs_no_memory(
    victim: Victim, data: bytes, options: dict[str, Any], status: grpc.StatusCode, most: int
) -> None:
    calls = 5 if len(data) > 4 * MIB else 100
    for _ in range(2):
        victim.call(data, **options)  # before it is measured: allocators keep what they had
    before = victim.mebibytes

    statuses = {victim.call(data, **options) for _ in range(calls)}

    grown = victim.mebibytes - before
    assert statuses == {status}
    assert grown <= most
    assert victim.probe() > 0
    print(f"S22: {status.name}, RSS +{grown:.1f} MiB")


@pytest.mark.parametrize(
    ("data", "options"),
    [(bytes(5 * MIB), {}), (bytes(256 * MIB), {"compression": grpc.Compression.Gzip})],
    ids=["5 MiB", "gzip bomb"],
)
def test_without_its_limit_a_server_takes_them(bare: Victim, data: bytes, options: dict[str, Any]) -> None:
    assert bare.call(data, **options) is grpc.StatusCode.OK


def test_the_victim_still_lives(victim: Victim) -> None:
    assert victim.process.poll() is None
    began = time.monotonic()
    assert victim.probe(7) <= time.monotonic() - began
