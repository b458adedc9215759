"""One attack on a gateway of its own: what its memory does, and how its honest callers fare meanwhile."""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rosacea.v1 import faces_pb2 as pb
from rosacea.v1 import faces_pb2_grpc
from tests.serving.credentials import add_key, as_bearer
from tests.serving.fake_service import Victim

from .attacks import repeat

if TYPE_CHECKING:
    from collections.abc import Callable

AFTERWARDS_SECONDS = 3.0
PAUSE_SECONDS = 0.02
WARM_UP_CALLS = 200
HEAD = (
    "| attack | connections | thrown out | MiB at the end | at most | after | own calls | failed | p99 ms | most ms |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Growth of the resident memory in MiB, and the honest calls."""

    attack: str
    connections: int
    thrown_out: int
    at_the_end: float
    at_most: float
    after: float
    seconds: list[float]
    failed: int

    @property
    def p99(self) -> float:
        return sorted(self.seconds)[int(0.99 * len(self.seconds))] if self.seconds else 0.0


class Honest:
    """A client with a key, and a probe over a new connection for every tenth call."""

    def __init__(self, victim: Victim, key: str) -> None:
        self._victim = victim
        self._channel = grpc.insecure_channel(victim.address, [("grpc.use_local_subchannel_pool", 1)])
        self._stub: Any = faces_pb2_grpc.FaceServiceStub(self._channel)
        self._key = as_bearer(key)
        self.seconds: list[float] = []
        self.failed = 0

    def call(self, number: int) -> None:
        """One face, or one probe, timed."""
        began = time.perf_counter()
        try:
            self._probe() if number % 10 == 9 else self._draw(number)
        except grpc.RpcError:
            self.failed += 1
        else:
            self.seconds.append(time.perf_counter() - began)

    def run(self, over: threading.Event) -> None:
        number = 0
        while not over.wait(PAUSE_SECONDS):
            self.call(number)
            number += 1

    def forget(self) -> None:
        self.seconds, self.failed = [], 0

    def _draw(self, seed: int) -> None:
        request = pb.GenerateFacesRequest(spec=pb.FaceSpec(seeds=pb.Seeds(values=[seed])))
        self._stub.GenerateFaces(request, timeout=20, metadata=self._key)

    def _probe(self) -> None:
        with grpc.insecure_channel(self._victim.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            stub.Check(health_pb2.HealthCheckRequest(service="live"), timeout=20)


def measure(
    attack: Callable[[int, Callable[[], bool]], None], connections: int, seconds: float, at: str = "main"
) -> Outcome:
    """Attack a fresh gateway for so long, from so many connections, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys"
        key = add_key(keys, "honest")
        with Victim("guarded", str(keys)) as victim:
            return _attacked(victim, key, attack, connections, seconds, at)


def _attacked(victim: Victim, key: str, attack: Any, connections: int, seconds: float, at: str) -> Outcome:
    honest = Honest(victim, key)
    for number in range(WARM_UP_CALLS):
        honest.call(number)
    honest.forget()
    before, over = victim.mebibytes, threading.Event()
    calling = threading.Thread(target=honest.run, args=(over,))
    calling.start()
    port = victim.port if at == "main" else victim.health_port
    with multiprocessing.get_context("spawn").Pool(connections) as attackers:
        began = [attackers.apply_async(repeat, (attack, port, seconds)) for _ in range(connections)]
        most = victim.mebibytes
        while not all(each.ready() for each in began):
            time.sleep(0.05)
            at_the_end = victim.mebibytes
            most = max(most, at_the_end)
        thrown_out = sum(each.get() for each in began)
    time.sleep(AFTERWARDS_SECONDS)
    over.set()
    calling.join()
    return Outcome(
        attack=attack.__name__.replace("_", " "), connections=connections, thrown_out=thrown_out,
        at_the_end=at_the_end - before, at_most=most - before, after=victim.mebibytes - before,
        seconds=honest.seconds, failed=honest.failed,
    )  # fmt: skip


def row(outcome: Outcome) -> str:
    """The outcome as a line of a table."""
    cells = [
        outcome.attack, outcome.connections, outcome.thrown_out, f"{outcome.at_the_end:.1f}", f"{outcome.at_most:.1f}",
        f"{outcome.after:.1f}", len(outcome.seconds), outcome.failed, f"{outcome.p99 * 1000:.0f}",
        f"{max(outcome.seconds, default=0.0) * 1000:.0f}",
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"
