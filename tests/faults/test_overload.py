"""Admission under load, in virtual time: the scheduler with workers of known speed and callers that do not wait.

Rows S2, S12, S13 and S14 of the reliability table. Each has a twin without the policy, which must break the promise.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from rosacea.render.v1 import render_pb2
from rosacea_contract.errors import DeadlineExceeded, FaceError, Overloaded
from rosacea_serving.api.window import gather
from rosacea_serving.calls.caller import Caller
from rosacea_serving.lane import Lane
from rosacea_serving.scheduling.scheduler import Scheduler
from rosacea_serving.torchserve.errors import WorkerDied
from tests.serving.scheduling.test_scheduler import Bench

from .history import History, digest, percentile, violations
from .load import open_loop
from .virtual import virtual_time

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    Run = Callable[[Coroutine[Any, Any, Any]], Any]

JOB_SECONDS = 0.2
MAX_BATCH = 8
CAPACITY = MAX_BATCH / JOB_SECONDS  # images a second
GOLDEN: dict[object, str] = {seed: digest(str(seed).encode()) for seed in range(10_000)}
REFUSED = ("Overloaded", "DeadlineExceeded", "DEADLINE")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    with virtual_time(monkeypatch) as run:
        yield run


class Careless(Scheduler):
    """The negative control: takes everything, forgets nobody, knows no deadline and no principal."""

    def room(self, lane: Lane, caller: Caller) -> int:
        return 10**9

    def check_deadline(self, images: int, lane: Lane, caller: Caller, *, pictures: bool = True) -> None:
        pass

    def submit(
        self, items: Sequence[render_pb2.RenderItem], lane: Lane = Lane.INTERACTIVE, caller: Caller | None = None
    ) -> list[asyncio.Future[Any]]:
        return [asyncio.shield(future) for future in super().submit(items)]


class Load:
    """Callers on one scheduler, as the gateway would treat them, and the history of it."""

    def __init__(self, *, careless: bool = False, **limits: Any) -> None:
        self.bench = Bench(max_batch=MAX_BATCH, **limits)
        self.bench.workers.seconds = JOB_SECONDS
        if careless:
            self.bench.scheduler.__class__ = Careless
        self.history = History(asyncio.get_running_loop().time)
        self.seconds = 0.0

    async def call(
        self, seeds: Sequence[int], seconds: float | None = None, who: str = "", lane: Lane = Lane.INTERACTIVE
    ) -> None:
        """One call with a deadline, at which its caller goes away."""
        call = self.history.begin(seeds, who, seconds)
        now = asyncio.get_running_loop().time()
        caller = Caller(principal=who) if seconds is None else Caller(principal=who, deadline=now + seconds)
        scheduler = self.bench.scheduler
        try:
            async with asyncio.timeout(seconds):
                scheduler.check_deadline(len(seeds), lane, caller)
                items = [render_pb2.RenderItem(seed=seed) for seed in seeds]
                drawn = await gather(scheduler.submit(items, lane, caller))
        except FaceError as error:
            self.history.end(call, type(error).__name__, error.retry_after_seconds)
        except TimeoutError:
            self.history.end(call, "DEADLINE")
        else:
            call.got = [(int(each.image), digest(each.image)) for each in drawn]
            self.history.end(call)

    async def end(self) -> Load:
        """Let jobs under way end; nothing else is drawn."""
        self.seconds = asyncio.get_running_loop().time()
        self.bench.scheduler.refuse_all()
        await self.bench.scheduler.free()
        return self

    @property
    def goodput(self) -> float:
        """What was drawn for callers who got it, as a part of what the workers could have drawn in the meantime."""
        good = sum(len(call.wants) for call in self.history.calls if call.ok)
        return good / (CAPACITY * self.seconds)

    @property
    def wasted(self) -> int:
        """Images drawn for nobody."""
        return len(self.bench.workers.drawn) - sum(len(call.wants) for call in self.history.calls if call.ok)


async def overload(load: Load, factor: float, seconds: float) -> Load:
    await open_loop(factor * CAPACITY, seconds, lambda number: load.call([number % 10_000], 1.0))
    return load


async def storm(seconds: float, *, careless: bool = False) -> Load:
    """Ten times what the workers can do."""
    load = Load(careless=careless, queue_images=64)
    await overload(load, 10.0, seconds)
    return await load.end()


def test_at_ten_times_its_capacity_the_service_does_as_much_good_as_at_its_capacity(run: Run) -> None:
    load = run(storm(30.0))

    refusals = [call for call in load.history.calls if call.error == "Overloaded"]
    assert violations(load.history, GOLDEN, allowed=REFUSED) == []
    assert load.goodput > 0.9
    assert load.wasted <= MAX_BATCH
    assert len(refusals) > 0.8 * len(load.history.calls)
    assert {call.seconds for call in refusals} == {0.0}, "a refusal comes at once"
    assert all(call.retry_after_seconds for call in refusals)


@pytest.mark.slow
def test_without_admission_the_same_load_leaves_nothing_good(run: Run) -> None:
    load = run(storm(30.0, careless=True))

    assert load.goodput < 0.2


def test_when_the_overload_ends_service_is_normal_again_within_a_second(run: Run) -> None:
    async def storm_and_calm() -> Load:
        load = await overload(Load(queue_images=64), 10.0, 5.0)
        load.history.calls.clear()
        await overload(load, 0.5, 5.0)
        return await load.end()

    load = run(storm_and_calm())

    assert load.history.errors() == {"OK": len(load.history.calls)}
    assert max(call.seconds for call in load.history.calls) <= 2 * JOB_SECONDS + 0.01


def test_with_deadlines_shorter_than_the_queue_nobody_is_drawn_for_in_vain(run: Run) -> None:
    async def hundred() -> Load:
        load = Load(queue_images=200)
        load.bench.workers.seconds = 1.0
        await load.call([0])  # so that the pace is known
        await asyncio.gather(*(load.call([seed], 0.3) for seed in range(1, 101)))
        return await load.end()

    load = run(hundred())

    assert violations(load.history, GOLDEN, allowed=["DeadlineExceeded"]) == []
    assert load.history.errors() == {"OK": 1, "DeadlineExceeded": 100}
    assert {call.seconds for call in load.history.calls[1:]} == {0.0}
    assert load.bench.workers.drawn == [0]


def test_those_who_expire_in_the_queue_are_not_drawn_even_if_the_pace_is_unknown(run: Run) -> None:
    async def hundred() -> Load:
        load = Load(queue_images=200)
        load.bench.workers.seconds = 1.0
        await asyncio.gather(*(load.call([seed], 0.3) for seed in range(100)))
        await asyncio.sleep(5)
        return await load.end()

    load = run(hundred())

    assert load.history.errors() == {"DEADLINE": 100}
    assert load.bench.workers.jobs == [[0]], "only what was under way already"


async def greedy_and_modest(*, careless: bool = False, greedy: float = 10.0) -> Load:
    load = Load(careless=careless, queue_images=64)
    await asyncio.gather(
        open_loop(greedy * CAPACITY, 20.0, lambda number: load.call([number % 10_000], 5.0, "greedy")),
        open_loop(0.2 * CAPACITY, 20.0, lambda number: load.call([number], 5.0, "modest")),
    )
    return await load.end()


def modest_p99(load: Load) -> float:
    return percentile([call.seconds for call in load.history.of("modest")], 0.99)


def test_a_greedy_principal_takes_nothing_from_a_modest_one(run: Run) -> None:
    load = run(greedy_and_modest())

    assert violations(load.history, GOLDEN, allowed=REFUSED) == []
    assert all(call.ok for call in load.history.of("modest"))
    assert modest_p99(load) <= 2 * JOB_SECONDS + 0.01, "twice what a lone call takes"
    assert load.goodput > 0.9


@pytest.mark.slow
def test_without_fair_shares_the_greedy_one_has_it_all(run: Run) -> None:
    load = run(greedy_and_modest(careless=True))

    assert sum(call.ok for call in load.history.of("modest")) < 0.5 * len(load.history.of("modest"))


def test_bulk_goes_on_under_interactive_overload_and_the_other_way_round(run: Run) -> None:
    async def both() -> Load:
        load = Load(queue_images=64)
        await asyncio.gather(
            open_loop(5 * CAPACITY, 20.0, lambda number: load.call([number % 10_000], 5.0, "people")),
            open_loop(5 * CAPACITY, 20.0, lambda number: load.call([number % 10_000], 5.0, "night", Lane.BULK)),
        )
        return await load.end()

    load = run(both())

    good = {who: sum(call.ok for call in load.history.of(who)) for who in ("people", "night")}
    assert good["people"] / good["night"] == pytest.approx(3, rel=0.15)
    assert load.goodput > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("mixed_up", [False, True])
def test_ten_thousand_random_requests_get_their_own_faces_whatever_dies(run: Run, mixed_up: bool) -> None:
    rng = random.Random(1)

    async def many() -> Load:
        load = Load(queue_images=4000, jobs_in_flight=2)
        workers = load.bench.workers

        def sometimes(job: render_pb2.RenderJob) -> None:
            if mixed_up and len(job.items) > 1:  # the negative control: two faces of a job change places
                job.items[0].seed, job.items[1].seed = job.items[1].seed, job.items[0].seed
            if rng.random() < 0.02:
                raise WorkerDied("gone")

        workers.fail = sometimes

        async def one() -> None:
            seeds = [rng.randrange(10_000) for _ in range(rng.randint(1, 4))]
            await asyncio.sleep(rng.random() * 800)
            await load.call(seeds, rng.choice([None, 2.0, 20.0]), rng.choice("abc"), rng.choice(list(Lane)))

        await asyncio.gather(*(one() for _ in range(10_000)))
        return await load.end()

    load = run(many())

    broken = violations(load.history, GOLDEN, allowed=[*REFUSED, "ServerError"], late_seconds=0)
    assert len(load.history.calls) == 10_000
    assert bool(broken) == mixed_up, broken[:3]
    assert load.history.errors()["OK"] > 5_000
    assert load.bench.scheduler.queued == 0


def test_refusals_say_which(run: Run) -> None:
    load = run(storm(3.0))

    assert set(load.history.errors()) <= {"OK", Overloaded.__name__, DeadlineExceeded.__name__, "DEADLINE"}
