"""The queue of one model: micro-batches of whatever has arrived, bounded, without work that nobody waits for."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from rosacea.render.v1 import render_pb2
from rosacea.v1 import faces_pb2
from rosacea_contract.errors import DeadlineExceeded, Overloaded, ServerError, Unavailable
from rosacea_contract.reasons import Reason
from rosacea_model import GeneratorConfig
from rosacea_model.files.modelfile import ModelFile
from rosacea_serving.calls.caller import Caller
from rosacea_serving.catalog import ServedModel
from rosacea_serving.lane import Lane
from rosacea_serving.observe.metrics import Metrics
from rosacea_serving.scheduling.metrics import ModelMetrics
from rosacea_serving.scheduling.pace import FORGET_SECONDS
from rosacea_serving.scheduling.scheduler import Drawn, QueueLimits, Scheduler
from rosacea_serving.torchserve import TorchServeOptions
from rosacea_serving.torchserve.errors import BackendDown, WorkerDied
from rosacea_serving.worker.segments import Segment, SegmentPool

from ...virtual_time import loop_seconds
from ..fakes import FakeWorkers

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = pytest.mark.virtual_time

CLOCKS = ("rosacea_serving.scheduling.scheduler.time", "rosacea_serving.calls.caller.time")
MODEL = ModelFile(name="demo", path=Path("generator.safetensors"), digest="0" * 64, config=GeneratorConfig())


@pytest.fixture(autouse=True)
def clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines and the pace of jobs go by the loop's time."""
    for clock in CLOCKS:
        monkeypatch.setattr(clock, SimpleNamespace(monotonic=loop_seconds))


class CountingPool(SegmentPool):
    """Counts what becomes of the segments."""

    released = discarded = 0

    def release(self, segment: Segment) -> None:
        self.released += 1
        super().release(segment)

    def discard(self, segment: Segment) -> None:
        self.discarded += 1
        super().discard(segment)


class Bench:
    """A scheduler over fake workers."""

    def __init__(self, **limits: Any) -> None:
        defaults = {"max_batch": 8, "jobs_in_flight": 1, "queue_images": 256, "job_timeout_seconds": 60.0}
        self.segments = CountingPool(slots=8, slot_bytes=64)
        self.workers = FakeWorkers(TorchServeOptions(models=[MODEL]), lambda state: None)
        self.metrics = Metrics()
        settings = QueueLimits(**(defaults | limits))
        self.scheduler = Scheduler(ServedModel(MODEL), self.workers, settings, self.metrics, self.segments)

    def submit(
        self,
        seeds: Iterable[int],
        lane: Lane = Lane.INTERACTIVE,
        principal: str = "",
        deadline: float = math.inf,
    ) -> list[asyncio.Future[Drawn]]:
        items = [render_pb2.RenderItem(seed=seed) for seed in seeds]
        return self.scheduler.submit(items, lane, Caller(principal=principal, deadline=deadline))

    def count(self, outcome: str) -> float:
        labels = {"model": "demo", "outcome": outcome}
        return self.metrics.registry.get_sample_value("rosacea_images_total", labels) or 0.0


def images(drawn: Iterable[Drawn]) -> list[int]:
    return [int(each.image) for each in drawn]


async def test_a_lone_image_is_sent_at_once() -> None:
    bench = Bench()

    (future,) = bench.submit([7])
    await asyncio.sleep(0)

    assert bench.workers.jobs == [[7]]
    assert images([await future]) == [7]


async def test_what_arrives_behind_a_busy_worker_becomes_one_batch_in_order() -> None:
    bench = Bench(max_batch=8)
    bench.workers.seconds = 0.01

    futures = bench.submit([0])
    await asyncio.sleep(0)
    for seed in range(1, 12):
        futures += bench.submit([seed])

    assert images(await asyncio.gather(*futures)) == list(range(12))
    assert bench.workers.jobs == [[0], [1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11]]


async def test_the_next_job_is_at_a_worker_before_the_images_of_the_last_are_handed_out() -> None:
    bench = Bench(max_batch=1)
    sent: list[int] = []

    first, second = bench.submit([1, 2])
    first.add_done_callback(lambda _: sent.append(len(bench.workers.jobs)))
    await asyncio.gather(first, second)

    assert sent == [2]


async def test_no_more_jobs_are_under_way_than_allowed() -> None:
    bench = Bench(max_batch=2, jobs_in_flight=3)
    bench.workers.seconds = 0.005

    await asyncio.gather(*bench.submit(range(20)))

    assert bench.workers.most_running == 3


async def test_a_full_queue_refuses_the_whole_call_with_a_hint() -> None:
    bench = Bench(queue_images=4, max_batch=1)
    bench.workers.seconds = 0.01
    futures = bench.submit(range(4))

    with pytest.raises(Overloaded) as refusal:
        bench.submit([10, 11])

    assert refusal.value.reason is Reason.QUEUE_FULL
    assert refusal.value.metadata["max_queued"] == "4"
    assert refusal.value.retry_after_seconds is not None
    await asyncio.gather(*futures)
    assert 10 not in bench.workers.drawn


async def test_the_queue_is_shown_as_it_is_and_without_room_once_it_is_closed() -> None:
    bench = Bench(queue_images=8, max_batch=1)

    def shown(name: str) -> float | None:
        return bench.metrics.registry.get_sample_value(name, {"model": "demo", "lane": "interactive"})

    bench.workers.seconds = 30
    futures = bench.submit(range(4))
    assert (shown("rosacea_queue_depth"), shown("rosacea_queue_capacity")) == (bench.scheduler.queued, 8)
    waiting = bench.scheduler.queued
    assert waiting > 0

    bench.scheduler.refuse_all()

    assert (shown("rosacea_queue_depth"), shown("rosacea_queue_capacity")) == (0, 0)
    refused = bench.metrics.registry.get_sample_value("rosacea_images_total", {"model": "demo", "outcome": "failed"})
    assert refused == waiting
    for future in futures:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)


async def test_who_has_its_share_is_refused_as_such_while_others_are_let_in() -> None:
    bench = Bench(queue_images=16, max_batch=1)
    bench.workers.seconds = 0.01
    futures = bench.submit(range(14), principal="greedy")
    await asyncio.sleep(0)
    futures += bench.submit([14], principal="greedy")

    with pytest.raises(Overloaded) as own:
        bench.submit([20, 21], principal="greedy")
    futures += bench.submit([15, 16], principal="modest")
    with pytest.raises(Overloaded) as full:
        bench.submit([20, 21], principal="modest")

    assert own.value.reason is Reason.QUOTA_EXCEEDED
    assert [quota.subject for quota in own.value.quotas] == ["clientip"]
    assert (own.value.metadata["held"], own.value.metadata["max_queued"]) == ("14", "16")
    assert (full.value.reason, full.value.quotas) == (Reason.QUEUE_FULL, ())
    await asyncio.gather(*futures)


async def test_a_cancelled_image_leaves_the_queue_and_never_reaches_a_worker() -> None:
    bench = Bench(max_batch=1)
    bench.workers.seconds = 0.01
    first, second, third = bench.submit([1, 2, 3])
    await asyncio.sleep(0)

    second.cancel()
    await asyncio.sleep(0)

    assert bench.scheduler.queued == 1
    assert images(await asyncio.gather(first, third)) == [1, 3]
    assert bench.workers.drawn == [1, 3]
    assert bench.count("cancelled") == 1


async def test_a_bad_face_fails_alone() -> None:
    bench = Bench()
    bench.workers.poisoned = {2}

    outcomes = await asyncio.gather(*bench.submit([1, 2, 3]), return_exceptions=True)

    assert isinstance(outcomes[1], ServerError)
    assert outcomes[1].reason is Reason.OUTPUT_NOT_FINITE
    assert images([outcomes[0], outcomes[2]]) == [1, 3]  # type: ignore[list-item]
    assert (bench.count("ok"), bench.count("failed")) == (2, 1)


async def test_the_images_of_a_worker_that_died_go_first_and_one_to_a_job() -> None:
    bench = Bench(max_batch=2)
    deaths = iter([WorkerDied("gone")])

    def die_once(job: render_pb2.RenderJob) -> None:
        if error := next(deaths, None):
            raise error

    bench.workers.fail = die_once

    assert images(await asyncio.gather(*bench.submit([1, 2, 3]))) == [1, 2, 3]
    assert bench.workers.jobs == [[1, 2], [1], [2], [3]]
    assert bench.count("retried") == 2


async def test_a_face_that_kills_its_worker_twice_fails_for_good_and_alone() -> None:
    bench = Bench()

    def die_of_two(job: render_pb2.RenderJob) -> None:
        if 2 in [item.seed for item in job.items]:
            raise WorkerDied("gone")

    bench.workers.fail = die_of_two

    first, killer, last = await asyncio.gather(*bench.submit([1, 2, 3]), return_exceptions=True)

    assert isinstance(killer, ServerError), "a status that clients retry would kill more workers"
    assert images([first, last]) == [1, 3]  # type: ignore[list-item]
    assert bench.workers.jobs == [[1, 2, 3], [1], [2], [3]]


async def test_memory_goes_back_after_a_good_job_and_away_after_a_bad_one() -> None:
    bench = Bench()
    assert images([await bench.submit([1])[0]]) == [1]
    assert (bench.segments.released, bench.segments.discarded) == (1, 0)

    def down(job: render_pb2.RenderJob) -> None:
        raise BackendDown("gone")

    bench.workers.fail = down
    with pytest.raises(Unavailable):
        await bench.submit([2])[0]

    assert (bench.segments.released, bench.segments.discarded) == (1, 1)


async def test_images_come_inline_where_there_is_no_shared_memory() -> None:
    bench = Bench()

    def no_memory() -> Segment:
        raise OSError(24, "Too many open files")

    bench.segments.acquire = no_memory  # type: ignore[method-assign]

    assert images(await asyncio.gather(*bench.submit([1, 2]))) == [1, 2]
    assert bench.metrics.registry.get_sample_value("rosacea_images_inline_total", {"model": "demo"}) == 2


async def test_streams_leave_the_queue_to_those_who_wait_for_an_answer() -> None:
    bench = Bench(queue_images=8, max_batch=1)
    bench.workers.seconds = 0.01
    futures = bench.submit(range(4), Lane.BULK)
    await asyncio.sleep(0)
    futures += bench.submit([4], Lane.BULK)  # one is under way, four wait

    assert bench.scheduler.room(Lane.BULK, Caller()) == 0
    with pytest.raises(Overloaded):
        bench.submit([10], Lane.BULK)

    everything = [*futures, *bench.submit(range(11, 19))]

    assert images(await asyncio.gather(*everything)) == [*range(5), *range(11, 19)]


async def test_cancelled_images_do_not_pile_up() -> None:
    bench = Bench(queue_images=8)
    bench.workers.seconds = 60.0
    bench.submit([0])
    await asyncio.sleep(0)
    for _ in range(100):
        for future in bench.submit(range(8)):
            future.cancel()
        await asyncio.sleep(0)

    assert bench.scheduler.queued == 0
    assert bench.count("cancelled") == 800


async def test_a_backend_that_is_down_is_not_asked_twice() -> None:
    bench = Bench()

    def down(job: render_pb2.RenderJob) -> None:
        raise BackendDown("starting")

    bench.workers.fail = down
    (future,) = bench.submit([1])

    with pytest.raises(Unavailable):
        await future
    assert bench.workers.jobs == [[1]]


async def test_an_answer_from_another_model_is_never_passed_on() -> None:
    bench = Bench()
    bench.workers.digests["demo"] = "1" * 64
    (future,) = bench.submit([1])

    with pytest.raises(Exception, match="draws with 111111111111, not with 000000000000"):
        await future


async def test_closing_refuses_what_waits_and_what_comes_and_lets_jobs_end() -> None:
    bench = Bench(max_batch=1)
    bench.workers.seconds = 0.01
    first, second = bench.submit([1, 2])
    await asyncio.sleep(0)

    bench.scheduler.refuse_all()
    with pytest.raises(Unavailable):
        bench.submit([3])
    await bench.scheduler.free()

    assert images([first.result()]) == [1]
    error = second.exception()
    assert isinstance(error, Unavailable)
    assert error.reason is Reason.SHUTTING_DOWN


async def test_a_worker_that_dies_while_closing_starts_nothing_new() -> None:
    bench = Bench()

    def die(job: render_pb2.RenderJob) -> None:
        raise WorkerDied("gone")

    bench.workers.fail = die
    (future,) = bench.submit([1])
    await asyncio.sleep(0)

    bench.scheduler.refuse_all()
    await bench.scheduler.free()

    assert isinstance(future.exception(), Unavailable)
    assert bench.workers.jobs == [[1]]


async def test_room_comes_back_even_if_everything_queued_was_cancelled() -> None:
    bench = Bench(max_batch=1, queue_images=3)
    bench.workers.seconds = 0.01
    running, *queued = bench.submit([1, 2, 3])
    room = asyncio.create_task(bench.scheduler.wait_for_room())
    await asyncio.sleep(0)
    for future in queued:
        future.cancel()

    await asyncio.wait_for(room, 1)
    assert images([await running]) == [1]


async def test_an_image_whose_deadline_came_while_it_waited_never_reaches_a_worker() -> None:
    bench = Bench(max_batch=1)
    bench.workers.seconds = 0.05
    (running,) = bench.submit([1])
    (late,) = bench.submit([2], deadline=loop_seconds() + 0.01)
    (patient,) = bench.submit([3])

    with pytest.raises(DeadlineExceeded):
        await late
    assert images([await running, await patient]) == [1, 3]
    assert bench.workers.drawn == [1, 3]
    assert bench.count("expired") == 1


async def test_an_image_that_a_dead_worker_had_is_not_tried_again_after_its_deadline() -> None:
    bench = Bench()
    bench.workers.seconds = 0.05

    def die(job: render_pb2.RenderJob) -> None:
        raise WorkerDied("gone")

    bench.workers.fail = die
    (future,) = bench.submit([1], deadline=loop_seconds() + 0.01)

    with pytest.raises(DeadlineExceeded):
        await future
    assert bench.workers.jobs == [[1]]


async def test_a_hopeless_deadline_is_refused_and_a_feasible_one_is_not() -> None:
    bench = Bench(max_batch=1)
    bench.workers.seconds = 0.05
    bench.scheduler._pace.note(1, 0.05, loop_seconds())
    futures = bench.submit(range(100))

    def caller(seconds: float) -> Caller:
        return Caller(principal="other", deadline=loop_seconds() + seconds)

    with pytest.raises(DeadlineExceeded):
        bench.scheduler.check_deadline(1, Lane.INTERACTIVE, caller(0.01))
    with pytest.raises(Overloaded) as refusal:
        bench.scheduler.check_deadline(20, Lane.INTERACTIVE, caller(1.5))
    bench.scheduler.check_deadline(20, Lane.INTERACTIVE, caller(60.0))
    bench.scheduler.check_deadline(20, Lane.INTERACTIVE, Caller())

    hint = refusal.value.retry_after_seconds
    assert hint is not None
    assert hint * 1000 == pytest.approx(round(hint * 1000)), "the hint is in whole milliseconds"
    for future in futures:
        future.cancel()


async def test_mapping_is_judged_by_the_pictures_before_it_and_tells_nothing_of_how_long_those_take() -> None:
    bench = Bench(max_batch=1)
    bench.scheduler._pace.note(1, 60.0, loop_seconds())
    caller = Caller(principal="other", deadline=loop_seconds() + 30.0)
    item = render_pb2.RenderItem(seed=1, output=faces_pb2.LATENT_SPACE_W)

    bench.scheduler.check_deadline(20, Lane.INTERACTIVE, caller, pictures=False)
    await asyncio.gather(*bench.scheduler.submit([item] * 20, Lane.INTERACTIVE, caller))
    with pytest.raises(DeadlineExceeded):
        bench.scheduler.check_deadline(1, Lane.INTERACTIVE, caller)
    bench.workers.seconds = 0.05
    futures = bench.submit(range(3))
    with pytest.raises(Overloaded):
        bench.scheduler.check_deadline(1, Lane.INTERACTIVE, caller, pictures=False)
    await asyncio.gather(*futures)


async def test_a_service_that_was_slow_is_tried_again() -> None:
    bench = Bench()
    bench.scheduler._pace.note(1, 60.0, loop_seconds() - FORGET_SECONDS - 1)

    bench.scheduler.check_deadline(1, Lane.INTERACTIVE, Caller(deadline=loop_seconds() + 1.0))


async def test_how_long_jobs_take_is_not_forgotten_while_one_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    for clock in CLOCKS:
        monkeypatch.setattr(clock, SimpleNamespace(monotonic=lambda: now))
    bench = Bench(max_batch=1)

    def slow(job: render_pb2.RenderJob) -> None:
        nonlocal now
        now += 2 * FORGET_SECONDS

    bench.workers.fail = slow
    await bench.submit([1])[0]
    bench.workers.seconds = 60.0
    (running,) = bench.submit([2])
    await asyncio.sleep(0)
    now += 1.5 * FORGET_SECONDS

    with pytest.raises(DeadlineExceeded):
        bench.scheduler.check_deadline(1, Lane.INTERACTIVE, Caller(deadline=now + 1.0))
    running.cancel()


async def test_the_hint_of_a_refusal_is_about_when_there_will_be_room() -> None:
    bench = Bench(max_batch=1, queue_images=40)
    bench.workers.seconds = 0.05
    bench.scheduler._pace.note(1, 0.05, loop_seconds())
    futures = bench.submit(range(40))

    with pytest.raises(Overloaded) as refusal:
        bench.submit(range(40))

    assert refusal.value.retry_after_seconds is not None
    assert refusal.value.retry_after_seconds == pytest.approx(1.0, rel=0.05), "half of 40 images of 50 ms"
    for future in futures:
        future.cancel()


async def test_an_error_that_nobody_foresaw_fails_the_images_of_its_job_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()

    def odd(*facts: object, **more: object) -> None:
        raise ArithmeticError("a number of the wrong kind")

    with monkeypatch.context() as broken:
        broken.setattr(ModelMetrics, "drawn", odd)
        with pytest.raises(ArithmeticError):
            await asyncio.wait_for(bench.submit([1])[0], 120)
    labels = {"task": "job"}

    assert bench.metrics.registry.get_sample_value("rosacea_background_failures_total", labels) == 1
    assert images([await bench.submit([2])[0]]) == [2]
