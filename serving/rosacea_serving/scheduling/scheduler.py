"""Schedules the images of one model: sends them to workers as micro-batches, a bounded number at a time.

Which image is next, and who may wait at all, is `policy`. Here is what holds whatever the policy: whenever fewer jobs
run than keep the workers busy, the next job gets whatever has arrived, up to `max_batch` images, so a lone image waits
for nothing, and under load the batches fill by themselves. Images that nobody waits for any more, or that cannot be
ready by their deadline, are dropped before they are sent. A call whose deadline cannot be kept, as far as recent jobs
tell, is refused at once. Where a worker dies, its images are tried once more, before everything else and one to a
job: if one of them killed the worker, the others live.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rosacea.v1 import faces_pb2
from rosacea_contract.errors import DeadlineExceeded, Overloaded, ServerError
from rosacea_contract.reasons import Reason

from ..background import Task
from ..calls.caller import Caller
from ..errors import no_worker, over_quota, shutting_down
from ..lane import Lane
from ..observe.record import CallRecord, current_call, job_span
from ..torchserve.errors import BackendDown, WorkerDied
from .job import JobRunner
from .metrics import ModelMetrics
from .pace import Pace
from .policy import Queue, Ticket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rosacea.render.v1 import render_pb2

    from ..catalog import ServedModel
    from ..observe.metrics import Metrics
    from ..torchserve.backend import Backend
    from ..worker.segments import SegmentPool
    from .facts import JobFacts

NOBODY = Caller()
SHORTEST_RETRY_SECONDS = 0.05
LONGEST_RETRY_SECONDS = 30.0
SIGNED = "+c2pa"  # ends the fingerprint of signed images
SAFETY = 1.1  # calls are let in as if everything took so much longer than it did

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class QueueLimits:
    """Queue and concurrency limits of one model."""

    max_batch: int  # images in a job
    jobs_in_flight: int  # jobs at the workers at one time
    queue_images: int  # images waiting, as `policy` counts them, beyond which calls are refused
    job_timeout_seconds: float  # after which a job counts as lost


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One finished image with its provenance and timings."""

    image: bytes
    queue_seconds: float
    job: JobFacts
    signed: bool = False  # by C2PA, which makes the bytes random

    @property
    def fingerprint(self) -> str:
        """Fingerprint of everything the bytes depend on; for a signed image with the suffix `+c2pa`, since its bytes
        cannot be repeated."""
        return self.job.fingerprint + SIGNED if self.signed else self.job.fingerprint


@dataclass(eq=False, kw_only=True)
class Waiting(Ticket):
    """A queued image."""

    item: render_pb2.RenderItem
    future: asyncio.Future[Drawn]
    deadline: float
    arrived: float
    call: CallRecord | None
    started: float = 0.0
    retried: bool = False

    @property
    def is_picture(self) -> bool:
        """Whether the item is drawn rather than only mapped, which costs almost nothing."""
        return self.item.output == faces_pb2.LATENT_SPACE_UNSPECIFIED

    @property
    def waited(self) -> float:
        """Seconds that the image waited in the queue."""
        return self.started - self.arrived


class Scheduler:
    """Draws the images of one model through a backend, a bounded number at a time."""

    def __init__(
        self,
        model: ServedModel,
        backend: Backend,
        limits: QueueLimits,
        metrics: Metrics,
        segments: SegmentPool | None = None,
    ) -> None:
        self._model = model
        self._limits = limits
        self._queue: Queue[Waiting] = Queue(limits.queue_images)
        self._pace = Pace()
        self._jobs: dict[asyncio.Task[None], list[Waiting]] = {}
        self._room = asyncio.Event()
        self._room.set()
        self._closed = False
        self._background = metrics.background
        self._metrics = ModelMetrics(
            metrics,
            model.short_name,
            max_batch=limits.max_batch,
            jobs=limits.jobs_in_flight,
            places={lane: self._queue.share(lane).most for lane in Lane},
        )
        self._runner = JobRunner(model, backend, limits.job_timeout_seconds, self._metrics, segments)

    @property
    def max_batch(self) -> int:
        """Maximum number of images in a job."""
        return self._limits.max_batch

    @property
    def queued(self) -> int:
        """Number of images in the queue."""
        return len(self._queue)

    def room(self, lane: Lane, caller: Caller) -> int:
        """How many more images this caller may queue in a lane."""
        return self._queue.room(lane, caller.principal)

    def submit(
        self, items: Sequence[render_pb2.RenderItem], lane: Lane = Lane.INTERACTIVE, caller: Caller = NOBODY
    ) -> list[asyncio.Future[Drawn]]:
        """Queue images, all or none; Overloaded if the queue or the caller's quota is exhausted.

        Cancelling a future takes its image out of the queue.
        """
        if self._closed:
            raise shutting_down()
        if self.room(lane, caller) < len(items):
            raise self._overloaded(lane, caller, len(items))
        caller.spend(len(items))
        call = current_call()
        if call:
            call.principal_kind = caller.kind
        futures = [self._put(item, lane, caller, call) for item in items]
        self._dispatch()
        return futures

    def check_deadline(self, images: int, lane: Lane, caller: Caller, *, pictures: bool = True) -> None:
        """Raise Overloaded if the images will not be ready by the deadline, DeadlineExceeded if waiting cannot help.

        Where they are no `pictures` but latents, they take next to nothing, and only what is before them counts.
        """
        left = caller.seconds_left
        own = images if pictures else 0
        alone = SAFETY * self._seconds(own)
        if alone > left:
            self._metrics.late("admission", images)
            raise DeadlineExceeded(
                f"drawing takes about {alone:.3f} s, the deadline is in {left:.3f} s",
                reason=Reason.DEADLINE_EXPIRED,
                metadata={"needed_seconds": f"{alone:.3f}", "left_seconds": f"{left:.3f}"},
            )
        ahead = self._queue.ahead(lane, caller.principal, images) - images + own
        needed = SAFETY * (self._seconds_until_idle() + self._seconds(ahead))
        if needed > left:
            self._metrics.late("admission", images)
            raise Overloaded(
                f"with those before it the call takes about {needed:.3f} s, its deadline is in {left:.3f} s",
                reason=Reason.DEADLINE_EXPIRED,
                metadata={"needed_seconds": f"{needed:.3f}", "left_seconds": f"{left:.3f}"},
                retry_after_seconds=_retry_seconds(needed - left),
            )

    async def wait_for_room(self) -> None:
        """Wait until the next image leaves the queue, or the queue is closed."""
        self._room.clear()
        await self._room.wait()

    def refuse_all(self) -> None:
        """Refuse waiting images and new ones. Jobs in progress end when their workers do."""
        if not self._closed:
            self._metrics.remove_capacity()
        self._closed = True
        while waiting := self._queue.pop():
            self._metrics.left("failed")
            _fail(waiting, shutting_down())
        self._show_queue()
        self._room.set()

    async def free(self) -> None:
        """Wait for the jobs in progress and release the shared memory; call after the workers have been stopped."""
        await asyncio.gather(*self._jobs)
        self._runner.release_memory()

    def _put(
        self, item: render_pb2.RenderItem, lane: Lane, caller: Caller, call: CallRecord | None
    ) -> asyncio.Future[Drawn]:
        waiting = Waiting(
            item=item,
            future=asyncio.get_running_loop().create_future(),
            lane=lane,
            principal=caller.principal,
            deadline=caller.deadline,
            arrived=time.monotonic(),
            call=call,
        )
        waiting.future.add_done_callback(lambda _: self._left(waiting))
        self._queue.put(waiting)
        return waiting.future

    def _left(self, waiting: Waiting) -> None:
        """Called when an image's future is done: if the image is still in the queue, remove it and count it as
        cancelled."""
        if self._queue.remove(waiting):
            self._metrics.left("cancelled")
            self._show_queue()
            self._room.set()

    def _overloaded(self, lane: Lane, caller: Caller, images: int) -> Overloaded:
        share = self._queue.share(lane)
        queued, most, held = share.total, share.most, share.held.get(caller.principal, 0)
        limits = {"model": self._model.name, "queued": str(queued), "max_queued": str(most)}
        retry_after_seconds = _retry_seconds(self._seconds(queued) / 2)
        if images <= share.free:
            message = f"this caller holds {held} of the queue's {most} places, {images} more are beyond its share"
            limits["held"] = str(held)
            return over_quota(caller.kind, message, metadata=limits, retry_after_seconds=retry_after_seconds)
        message = f"the queue holds {queued} of at most {most} images, {images} more are too many"
        return Overloaded(message, reason=Reason.QUEUE_FULL, metadata=limits, retry_after_seconds=retry_after_seconds)

    # How long things take.

    def _seconds(self, images: int) -> float:
        limits = self._limits
        return self._pace.seconds(
            images, time.monotonic(), max_batch=limits.max_batch, jobs_in_flight=limits.jobs_in_flight
        )

    def _seconds_until_idle(self) -> float:
        """Estimated seconds until a worker can start the next job."""
        if len(self._jobs) < self._limits.jobs_in_flight:
            return 0.0
        now = time.monotonic()
        left = [batch[0].started + self._seconds(_pictures(batch)) - now for batch in self._jobs.values()]
        return max(0.0, min(left))

    # Forming jobs.

    def _dispatch(self) -> None:
        while len(self._jobs) < self._limits.jobs_in_flight and (batch := self._next_batch()):
            self._pace.began(time.monotonic())
            task = asyncio.create_task(self._run(batch), context=Context())  # it is no single call's
            self._jobs[task] = batch
        self._show_queue()

    def _next_batch(self) -> list[Waiting]:
        batch: list[Waiting] = []
        now = time.monotonic()
        ready_at = now + self._seconds(min(len(self._queue), self._limits.max_batch))
        while len(batch) < self._limits.max_batch and (waiting := self._queue.pop()):
            self._room.set()
            if waiting.retried and batch:
                self._queue.put_first(waiting)
                break
            if not self._is_wanted(waiting, ready_at):
                continue
            waiting.started = now
            batch.append(waiting)
            if waiting.retried:
                break
        return batch

    def _is_wanted(self, waiting: Waiting, ready_at: float) -> bool:
        if waiting.future.done():
            self._metrics.left("cancelled")
            return False
        if waiting.deadline < (ready_at if waiting.is_picture else time.monotonic()):
            self._metrics.left("expired")
            self._metrics.late("queue", 1)
            _fail(
                waiting, DeadlineExceeded("no worker was free in time for the deadline", reason=Reason.DEADLINE_EXPIRED)
            )
            return False
        return True

    def _show_queue(self) -> None:
        self._metrics.waiting(self._queue.depth)

    # What becomes of jobs.

    async def _run(self, batch: list[Waiting]) -> None:
        try:
            await self._run_job(batch)
        except Exception as error:
            self._background.failed(Task.JOB)
            self._fail_all(batch, error)  # nobody waits for what will not come

    async def _run_job(self, batch: list[Waiting]) -> None:
        self._metrics.job_began([(each.lane, each.waited) for each in batch])
        try:
            answer = await self._answer(batch)
        finally:
            self._job_ended()
        if answer:  # handed out once the next job is on its way: no worker waits for that
            self._settle(batch, *answer)

    async def _answer(self, batch: list[Waiting]) -> tuple[JobFacts, list[bytes | ServerError]] | None:
        """The worker's result; None if the job failed and its images wait again or have failed."""
        try:
            with job_span(((each.call, each.waited) for each in batch), self._model.short_name, len(batch)):
                facts, made = await self._runner.run([waiting.item for waiting in batch])
            self._learn(batch, facts)
            return facts, made
        except WorkerDied:
            self._retry(batch)
        except BackendDown as error:
            log.debug("no answer to a job of %d images: %s", len(batch), error)
            self._fail_all(batch, no_worker())
        except Exception as error:
            self._fail_all(batch, error)
        return None

    def _job_ended(self) -> None:
        task = asyncio.current_task()
        assert task, "only a job ends"
        del self._jobs[task]
        self._pace.ended(time.monotonic())
        self._metrics.job_ended()
        self._dispatch()

    def _learn(self, batch: list[Waiting], facts: JobFacts) -> None:
        now = time.monotonic()
        seconds = now - batch[0].started
        self._metrics.answered(facts, seconds)
        if _pictures(batch) == len(batch):
            self._pace.note(len(batch), seconds, now)

    def _settle(self, batch: list[Waiting], facts: JobFacts, made: list[bytes | ServerError]) -> None:
        for waiting, image in zip(batch, made, strict=True):
            if isinstance(image, ServerError):
                self._metrics.left("failed")
                _fail(waiting, image)
                continue
            wanted = not waiting.future.done()
            self._metrics.drawn(waiting.item, len(image), waiting.lane, waiting.waited, wanted=wanted)
            if wanted:
                waiting.future.set_result(Drawn(image=image, queue_seconds=waiting.waited, job=facts))
                if waiting.call:
                    waiting.call.images += 1

    def _retry(self, batch: list[Waiting]) -> None:
        for waiting in reversed(batch):
            if waiting.retried:
                self._metrics.left("failed")
                _fail(waiting, ServerError("two workers died at this face", reason=Reason.RENDER_FAILED))
            elif self._closed:
                self._metrics.left("failed")
                _fail(waiting, shutting_down())
            else:
                self._metrics.left("retried")
                waiting.retried = True
                self._queue.put_first(waiting)

    def _fail_all(self, batch: list[Waiting], error: Exception) -> None:
        for waiting in batch:
            self._metrics.left("failed")
            _fail(waiting, error)


def _pictures(batch: Sequence[Waiting]) -> int:
    return sum(waiting.is_picture for waiting in batch)


def _fail(waiting: Waiting, error: Exception) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(error)


def _retry_seconds(seconds: float) -> float:
    """Retry hint, rounded to milliseconds and bounded."""
    return round(min(max(seconds, SHORTEST_RETRY_SECONDS), LONGEST_RETRY_SECONDS), 3)
