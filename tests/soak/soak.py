"""S31: everybody at once for half an hour, a worker killed every minute, a model swapped every five.

Warm-up first, with a kill and two swaps in it, so that whatever is made once is there. Then the service is left in
peace for a moment and asked what it holds; the same again at the end. Between them: the run that counts.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.faults.history import History, violations
from tests.faults.leaks import listing, settled
from tests.faults.processes import carriers
from tests.integration.service import gone

from .clients import EXCUSED, KINDS, Crowd, connection
from .growth import Growth, Samples
from .orders import Order, stale
from .report import POOLS, Row, held
from .scene import FLAGS, Models, Tormentor
from .watched import SHARED_MEMORY, Watched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

KILL_EVERY_SECONDS = 60.0
SWAP_EVERY_SECONDS = 300.0
SAMPLE_SECONDS = 2.0
TELL_SECONDS = 30.0
WARM_UP_SECONDS = 180.0
SETTLE_SECONDS = 180.0
LATE_SECONDS = 10.0  # beyond its deadline: the clients' machine is busy, too
LEAST_OK = 0.99  # of the calls of those who mean it
MEANING_IT = ("good", "client", "slow")
THREADS = 16
LINE = "{minutes:5.1f} min  {calls} calls: {ends}; {kills} kills, {swaps} swaps; RSS MiB {rss}"
# Allowed growth, the median of the last tenth beside that of the first: P8 for the gateway, but not less than it
# breathes by under these clients; for a worker what S24 allows it. S24 is the finer measure of both.
GATEWAY_MIB_PER_10K, GATEWAY_MIB_AT_LEAST = 1.0, 4.0
WORKER_MIB = 10.0


@dataclass
class Run:
    """One soak under way."""

    service: Watched
    models: Models
    history: History = field(default_factory=History)
    memory: dict[str, Samples] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    at_rest: list[tuple[int, float]] = field(default_factory=list)  # calls; MiB of the gateway

    def __post_init__(self) -> None:
        self.tormentor = Tormentor(self.service, self.models)

    def sample(self) -> None:
        """Memory by role; of several processes of one role, each on its own, the median."""
        calls = len(self.history.calls)
        for role, values in self.service.mebibytes().items():
            for value in values:
                self.memory.setdefault(role, Samples()).add(calls, value)

    def line(self) -> str:
        """How it stands."""
        ends = ", ".join(f"{name} {count}" for name, count in sorted(self.history.errors().items()))
        rss = self.service.mebibytes()
        return LINE.format(
            minutes=(time.monotonic() - self.began) / 60,
            calls=len(self.history.calls),
            ends=ends,
            kills=self.tormentor.events.kills,
            swaps=len(self.tormentor.events.swap_seconds),
            rss="; ".join(f"{role} {' '.join(f'{value:.0f}' for value in values)}" for role, values in rss.items()),
        )


def soak(folder: Path, minutes: float) -> list[Row]:
    """The rows of S31, after so many minutes and those that it takes to begin and to end."""
    models = Models.make(folder)
    print(f"{len(models.golden)} right answers drawn beforehand", flush=True)
    service = Watched([models.served], *FLAGS, "--grace-seconds", "120")
    with service:
        rows, before = asyncio.run(attend(Run(service, models), 60 * minutes))
        rows.append(end(service, before))
    return rows


async def attend(run: Run, seconds: float) -> tuple[list[Row], Counter[str]]:
    """Warm-up, the run, and what both have shown; and what the service held before it."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    async with crowded(run):
        await asyncio.sleep(WARM_UP_SECONDS)
        for disturb in (run.tormentor.kill, run.tormentor.swap):
            await asyncio.to_thread(disturb)
    before = await at_rest(run, Counter())
    print(f"warmed up: {run.line()}", flush=True)
    run.began = time.monotonic()
    async with crowded(run):
        await torment(run, seconds)
    print(f"all clients have gone: {run.line()}", flush=True)
    after = await at_rest(run, before)
    return judge(run, before, after), before


@asynccontextmanager
async def crowded(run: Run) -> AsyncIterator[None]:
    """Everybody is there while the block lasts, and has gone after it."""
    crowd = Crowd(run.service.address, run.history)
    async with asyncio.TaskGroup() as group:
        for each in crowd.everybody():
            group.create_task(each)
        try:
            yield
        finally:
            crowd.stop.set()


async def torment(run: Run, seconds: float) -> None:
    """Kill, swap, sample and tell, each in its own rhythm, for so long."""
    # Shorter runs see all of it as well: at least six kills and two swaps.
    rhythm: list[tuple[float, Callable[[], object]]] = [
        (min(KILL_EVERY_SECONDS, seconds / 6), run.tormentor.kill),
        (min(SWAP_EVERY_SECONDS, seconds / 3), run.tormentor.swap),
        (SAMPLE_SECONDS, run.sample),
        (TELL_SECONDS, lambda: print(run.line(), flush=True)),
    ]
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for period, action in rhythm:
            group.create_task(every(period, action, stop))
        await asyncio.sleep(seconds)
        stop.set()


async def every(seconds: float, action: Callable[[], object], stop: asyncio.Event) -> None:
    """Do it again and again, beginning so long after it began the last time, until the end."""
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), max(0.0, due - loop.time()))
        except TimeoutError:
            due = max(due + seconds, loop.time())
            await asyncio.to_thread(action)


async def at_rest(run: Run, before: Counter[str]) -> Counter[str]:
    """What the service holds with its first revision, after a little work, with nobody there."""
    await asyncio.to_thread(run.tormentor.back_to_the_first)
    await a_little_work(run.service.address)
    found = await settled(before and before | POOLS, SETTLE_SECONDS if before else 10.0, look=run.service.holdings)
    run.at_rest.append((len(run.history.calls), run.service.mebibytes()["gateway"][0]))
    return found


async def a_little_work(address: str) -> None:
    """The same each time: enough for all workers at once, so that each has had a job."""
    crowd = Crowd(address, History())
    async with connection(address) as stub:
        await asyncio.gather(*(crowd.ask(stub, Order([seed] * 8), "", timeout=600) for seed in range(32)))


# The verdict.


def judge(run: Run, before: Counter[str], after: Counter[str]) -> list[Row]:
    """What the run has shown, but for its end."""
    return [answers(run), events(run), meant(run), *memory(run), held("S31 leaks", before, after)]


def answers(run: Run) -> Row:
    """Every single outcome against the promises."""
    calls = run.history.calls
    broken = violations(run.history, run.models.golden, allowed=EXCUSED, late_seconds=LATE_SECONDS)
    broken += stale(calls, run.tormentor.events.served)
    faces = sum(len(call.got) for call in calls)
    measured = f"{len(broken)} violations in {len(calls):,} calls, {faces:,} faces compared; {ends(run)}"
    return Row("S31 answers", "0 wrong images, 0 lost or doubled answers, no unexpected status", measured, broken)


def ends(run: Run) -> str:
    """How the calls of each kind of client ended."""
    kinds = sorted({call.who for call in run.history.calls})
    return "; ".join(f"{kind}: {counted(run, kind)}" for kind in kinds)


def counted(run: Run, kind: str) -> str:
    found = Counter(call.error or "OK" for call in run.history.of(kind))
    return ", ".join(f"{count:,} {name}" for name, count in found.most_common())


def events(run: Run) -> Row:
    """Whether what was to happen has happened: without it, the run would prove nothing."""
    happened = run.tormentor.events
    broken = list(happened.trouble)
    broken += [f"nobody came who is {who}" for who in KINDS if not run.history.of(who)]
    if not happened.kills or not happened.swap_seconds:
        broken.append(f"{happened.kills} kills and {len(happened.swap_seconds)} swaps prove nothing")
    measured = (
        f"{happened.kills} kills, all workers back after {longest(happened.recovery_seconds)} s at most; "
        f"{len(happened.swap_seconds)} swaps, {longest(happened.swap_seconds)} s at most"
    )
    return Row("S31 faults", "every killed worker is replaced, every swap is done", measured, broken)


def longest(seconds: Sequence[float]) -> str:
    return f"{max(seconds):.1f}" if seconds else "-"


def meant(run: Run) -> Row:
    """How many of the calls of those who mean it went well."""
    calls = [call for who in MEANING_IT for call in run.history.of(who)]
    part = sum(call.ok for call in calls) / max(len(calls), 1)
    broken = [] if part >= LEAST_OK else [f"{part:.2%} of the calls of those who mean it were OK"]
    return Row("S31 goodput", f"at least {LEAST_OK:.0%} OK of good, client and slow", f"{part:.3%}", broken)


def memory(run: Run) -> list[Row]:
    """Gateway and workers, the last tenth beside the first; and the gateway with nobody there, before and after."""
    (calls, before), (more_calls, after) = run.at_rest
    limit = f"P8: {GATEWAY_MIB_PER_10K:g} MiB for 10,000 calls, or {GATEWAY_MIB_AT_LEAST:g} MiB"
    gateway = (GATEWAY_MIB_PER_10K, GATEWAY_MIB_AT_LEAST)
    return [
        grown("S31 gateway", limit, run.memory["gateway"].growth(), *gateway),
        grown("S31 gateway at rest", limit, Growth(before, after, more_calls - calls), *gateway),
        grown("S31 worker", f"{WORKER_MIB:g} MiB", run.memory["worker"].growth(), 0, WORKER_MIB),
    ]


def grown(name: str, limit: str, growth: Growth, per_10k: float, at_least: float) -> Row:
    broken = ["it grew"] if growth.beyond(per_10k, at_least) else []
    return Row(name, f"grows by at most {limit}", str(growth), broken)


def end(service: Watched, before: Counter[str]) -> Row:
    """Whether SIGTERM ends it well and leaves nothing."""
    family = service.family()
    code = service.stop()
    broken = [] if code == 0 else [f"the exit code must be 0, got {code}"]
    if not gone(family):
        broken.append("a process is left")
    broken += [f"process {each.pid} is left: {each.name()}" for each in carriers("TMPDIR", str(service.temporary))]
    broken += [f"{name} is left" for name in service.leftovers()]
    broken += [f"{name} is left" for name in listing(SHARED_MEMORY) - before]
    unhandled = [line for line in service.log().splitlines() if "Traceback" in line or "never retrieved" in line]
    broken += [f"the log says {line!r}" for line in unhandled]
    return Row("S31 end", "SIGTERM: exit code 0, nothing is left, no traceback in the log", f"code {code}", broken)
