"""S24: 20,000 calls after 2,000, and what gateway and workers have grown by. The same with a planted leak must show it.

Nothing dies and nothing is swapped, so every process is there from beginning to end.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from tests.faults.history import History, violations
from tests.faults.leaks import descriptors, settled

from .clients import PATIENCE_SECONDS, Crowd, connection
from .growth import Samples
from .orders import Order
from .report import POOLS, Row, held
from .scene import FLAGS, Models
from .watched import Watched, role, rss

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .growth import Growth

CALLS, WARM_UP_CALLS, CONTROL_CALLS = 20_000, 2_000, 5_000
LEAK_BYTES = 1024
CLIENTS = 16
SAMPLES = 100  # in a run
SETTLE_SECONDS = 60.0
TELL_SECONDS = 30.0
GATEWAY_MIB_PER_10K = 1.0  # P8
WORKER_MIB = 10.0


@dataclass
class Measured:
    """What a run has shown."""

    growth: dict[str, Growth]  # by process
    wrong: list[str]
    before: Counter[str]
    after: Counter[str]

    @property
    def gateway(self) -> Growth:
        return self.growth["gateway"]

    @property
    def worker(self) -> Growth:
        """The one that has grown most."""
        found = [growth for name, growth in self.growth.items() if name.startswith("worker")]
        return max(found, key=lambda growth: growth.mebibytes)


def memory(folder: Path) -> list[Row]:
    """The rows of S24."""
    models = Models.make(folder)
    with Watched([models.served], *FLAGS) as service:
        measured = asyncio.run(measure(service, models, CALLS))
    with Watched([models.served], *FLAGS, leak_bytes=LEAK_BYTES) as service:
        leaking = asyncio.run(measure(service, models, CONTROL_CALLS))
    return [*flat(measured), control(leaking)]


def flat(measured: Measured) -> list[Row]:
    """The service as it is."""
    gateway, worker = measured.gateway, measured.worker
    return [
        Row("S24 answers", "0 wrong in 20,000", f"{len(measured.wrong)} violations", measured.wrong),
        Row(
            "S24 gateway",
            f"at most {GATEWAY_MIB_PER_10K:g} MiB for 10,000 calls",
            f"{gateway}: {gateway.per_10k:+.2f} MiB for 10,000",
            ["it grew"] if gateway.beyond(GATEWAY_MIB_PER_10K) else [],
        ),
        Row(
            "S24 worker",
            f"at most {WORKER_MIB:g} MiB in all",
            f"{worker} (the one that grew most)",
            ["it grew"] if worker.beyond(0, WORKER_MIB) else [],
        ),
        Row("S24 TorchServe", "no limit is promised", str(measured.growth["java"])),
        held("S24 leaks", measured.before, measured.after),
    ]


def control(leaking: Measured) -> Row:
    """The same with a planted leak."""
    gateway = leaking.gateway
    return Row(
        "S24 control",
        f"{LEAK_BYTES} bytes leaked a call are found",
        f"{gateway}: {gateway.per_10k:+.2f} MiB for 10,000",
        [] if gateway.beyond(GATEWAY_MIB_PER_10K) else ["the leak was not found"],
    )


async def measure(service: Watched, models: Models, calls: int) -> Measured:
    """So many calls after the warm-up: growth of each process, wrong answers, and what was held before and after."""
    history = History()
    family = {f"{role(each)} {each.pid}".replace(f"java {each.pid}", "java"): each for each in service.family()}
    processes = {"gateway": psutil.Process(service.process.pid), **family}
    samples = {name: Samples() for name in processes}

    def sample() -> None:
        for name, process in processes.items():
            samples[name].add(len(history.calls), rss(process))

    def look() -> Counter[str]:
        found = service.holdings()
        for each in service.workers():
            found += Counter({f"worker's {name}": count for name, count in descriptors(each.pid).items()})
        return found

    await load(service.address, history, WARM_UP_CALLS)
    before = await settled(Counter(), 5.0, look)
    await load(service.address, history, WARM_UP_CALLS + calls, sample, calls // SAMPLES)
    after = await settled(before | POOLS, SETTLE_SECONDS, look)
    growth = {name: each.growth() for name, each in samples.items()}
    return Measured(growth, violations(history, models.golden), before, after)


async def load(
    address: str, history: History, until: int, sample: Callable[[], None] = lambda: None, every: int = 1000
) -> None:
    """Calls from several clients at once until there are so many in all, with a sample after every so many."""
    crowd, ended, told = Crowd(address, history), itertools.count(1), [time.monotonic()]

    async def client(number: int) -> None:
        rng = random.Random(number)
        async with connection(address) as stub:
            while len(history.calls) < until:
                await crowd.ask(stub, Order.random(rng, 1), "good", timeout=PATIENCE_SECONDS)
                if next(ended) % every == 0:
                    sample()
                    tell()

    def tell() -> None:
        if time.monotonic() - told[0] > TELL_SECONDS:
            told[0] = time.monotonic()
            print(f"{len(history.calls):,} calls: {history.errors()}", flush=True)

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
