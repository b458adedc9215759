"""The queue of one model: micro-batches of whatever has arrived, bounded, without work that nobody waits for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rosacea.render.v1 import render_pb2
from rosacea_client.reasons import Reason
from rosacea_model import GeneratorConfig
from rosacea_model.modelfile import ModelFile
from rosacea_serving.catalog import ServedModel
from rosacea_serving.errors import FaceFailed, Overloaded, Unavailable
from rosacea_serving.metrics import Metrics
from rosacea_serving.scheduler import Drawn, Limits, Scheduler
from rosacea_serving.torchserve.errors import BackendDown, WorkerDied
from rosacea_serving.torchserve.supervisor import TorchServeOptions

from .fakes import FakeWorkers

if TYPE_CHECKING:
    from collections.abc import Iterable

MODEL = ModelFile(name="demo", path=Path("generator.safetensors"), digest="0" * 64, config=GeneratorConfig())


class Bench:
    """A scheduler over fake workers."""

    def __init__(self, **limits: Any) -> None:
        self.workers = FakeWorkers(TorchServeOptions(models=[MODEL]), lambda state: None)
        self.metrics = Metrics()
        self.scheduler = Scheduler(ServedModel(MODEL), self.workers, Limits(**limits), self.metrics)

    def submit(self, seeds: Iterable[int]) -> list[asyncio.Future[Drawn]]:
        return self.scheduler.submit([render_pb2.RenderItem(seed=seed) for seed in seeds])

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
    assert refusal.value.limits["max_queued"] == "4"
    assert refusal.value.retry_after_seconds is not None
    await asyncio.gather(*futures)
    assert 10 not in bench.workers.drawn


async def test_a_cancelled_image_leaves_the_queue_and_never_reaches_a_worker() -> None:
    bench = Bench(max_batch=1)
    bench.workers.seconds = 0.01
    first, second, third = bench.submit([1, 2, 3])
    await asyncio.sleep(0)

    second.cancel()

    assert bench.scheduler.queued == 1
    assert images(await asyncio.gather(first, third)) == [1, 3]
    assert bench.workers.drawn == [1, 3]
    assert bench.count("cancelled") == 1


async def test_a_bad_face_fails_alone() -> None:
    bench = Bench()
    bench.workers.poisoned = {2}

    outcomes = await asyncio.gather(*bench.submit([1, 2, 3]), return_exceptions=True)

    assert isinstance(outcomes[1], FaceFailed)
    assert outcomes[1].reason is Reason.OUTPUT_NOT_FINITE
    assert images([outcomes[0], outcomes[2]]) == [1, 3]  # type: ignore[list-item]
    assert (bench.count("ok"), bench.count("failed")) == (2, 1)


async def test_the_images_of_a_worker_that_died_are_drawn_by_another_first() -> None:
    bench = Bench(max_batch=2)
    deaths = iter([WorkerDied("gone")])

    def die_once(job: render_pb2.RenderJob) -> None:
        if error := next(deaths, None):
            raise error

    bench.workers.fail = die_once

    assert images(await asyncio.gather(*bench.submit([1, 2, 3]))) == [1, 2, 3]
    assert bench.workers.jobs == [[1, 2], [1, 2], [3]]
    assert bench.count("retried") == 2


async def test_an_image_is_retried_once_only() -> None:
    bench = Bench()

    def always_die(job: render_pb2.RenderJob) -> None:
        raise WorkerDied("gone")

    bench.workers.fail = always_die
    (future,) = bench.submit([1])

    with pytest.raises(Unavailable) as error:
        await future

    assert error.value.retry_after_seconds is not None
    assert bench.workers.jobs == [[1], [1]]


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


async def test_closing_refuses_what_waits_and_lets_jobs_end() -> None:
    bench = Bench(max_batch=1)
    bench.workers.seconds = 0.01
    first, second = bench.submit([1, 2])
    await asyncio.sleep(0)

    await bench.scheduler.close()

    assert images([first.result()]) == [1]
    assert isinstance(second.exception(), Unavailable)


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
