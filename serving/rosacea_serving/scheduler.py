"""The queue of one model, and the forming of its micro-batches.

Policy: whenever fewer jobs run than workers can take, the next job gets whatever has arrived, oldest first, up to
`max_batch` images. A lone image waits for nothing, and under load the batches fill by themselves. Cancelled images
are dropped before they are sent. Where a worker dies, its images go back to the head of the queue and are tried once
more, one to a job: if one of them killed the worker, the others live. Streams may fill half of the queue only, so that
there is always room for somebody who waits for an answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rosacea.render.v1 import render_pb2
from rosacea_client.reasons import Reason

from .errors import FaceFailed, Overloaded, Unavailable, shutting_down
from .torchserve.errors import BackendDown, BackendFailed, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .catalog import ServedModel
    from .metrics import Metrics
    from .segments import Segment, SegmentPool
    from .torchserve.backend import Backend

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one model may have waiting and under way."""

    max_batch: int                  # images in a job
    jobs_in_flight: int             # jobs at the workers at one time
    queue_images: int               # images waiting, beyond which calls are refused
    job_timeout_seconds: float      # after which a job counts as lost


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One finished image and how it came about."""

    image: bytes
    queue_seconds: float
    job: JobFacts


@dataclass(frozen=True, eq=False)
class JobFacts:
    """What a job took, shared by its images."""

    render_seconds: float
    encode_seconds: float
    fingerprint: str


@dataclass(eq=False)
class Waiting:
    """An image in the queue."""

    item: render_pb2.RenderItem
    future: asyncio.Future[Drawn]
    arrived: float = field(default_factory=time.monotonic)
    started: float = 0.0
    retried: bool = False


class Scheduler:
    """Draws the images of one model through a backend, a bounded number at a time."""

    def __init__(
        self,
        model: ServedModel,
        backend: Backend,
        limits: Limits,
        metrics: Metrics,
        segments: SegmentPool | None = None,
    ) -> None:
        self._model = model
        self._backend = backend
        self._limits = limits
        self._metrics = metrics
        self._segments = segments
        self._queue: deque[Waiting] = deque()
        self._jobs: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        self._room.set()
        self._seconds_per_image = 0.0
        self._closed = False

    @property
    def queued(self) -> int:
        """Images waiting; cancelled ones do not count."""
        return sum(1 for waiting in self._queue if not waiting.future.done())

    def room(self, *, stream: bool) -> int:
        """How many more images may wait, for a stream or for a call that waits for its answer."""
        return max(0, self._most(stream) - self.queued)

    def submit(self, items: Sequence[render_pb2.RenderItem], *, stream: bool = False) -> list[asyncio.Future[Drawn]]:
        """Queue images; all of them or, where there is no room for all, none (Overloaded).

        Cancelling a future takes its image out of the queue.
        """
        if self._closed:
            raise shutting_down()
        if self.room(stream=stream) < len(items):
            raise self._overloaded(self._most(stream))
        self._forget_cancelled()
        loop = asyncio.get_running_loop()
        new = [Waiting(item, loop.create_future()) for item in items]
        self._queue.extend(new)
        self._dispatch()
        return [waiting.future for waiting in new]

    async def wait_for_room(self) -> None:
        """Return once some images have left the queue since it was last found full."""
        self._room.clear()
        await self._room.wait()

    def close(self) -> None:
        """Refuse what waits and whatever comes. Jobs under way end when their workers do."""
        self._closed = True
        while self._queue:
            _fail(self._queue.popleft(), shutting_down())

    async def free(self) -> None:
        """Give the shared memory back. The workers have been stopped, so no job is left for long."""
        await asyncio.gather(*self._jobs)
        if self._segments:
            self._segments.close()

    def _forget_cancelled(self) -> None:
        if len(self._queue) > self._limits.queue_images:
            self._queue = deque(waiting for waiting in self._queue if not waiting.future.done())

    def _most(self, stream: bool) -> int:
        return self._limits.queue_images // 2 if stream else self._limits.queue_images

    def _overloaded(self, limit: int) -> Overloaded:
        queued = self.queued
        return Overloaded(
            Reason.QUEUE_FULL,
            f"the queue holds {queued} of at most {limit} images",
            limits={"model": self._model.name, "queued": str(queued), "max_queued": str(limit)},
            retry_after_seconds=max(0.05, queued * self._seconds_per_image / 2),
        )

    # Forming jobs.

    def _dispatch(self) -> None:
        while len(self._jobs) < self._limits.jobs_in_flight and (batch := self._next_batch()):
            task = asyncio.create_task(self._run(batch))
            self._jobs.add(task)
            task.add_done_callback(self._job_ended)
        self._metrics.queued.labels(self._model.short_name).set(len(self._queue))

    def _next_batch(self) -> list[Waiting]:
        batch: list[Waiting] = []
        while self._queue and len(batch) < self._limits.max_batch:
            waiting = self._queue.popleft()
            self._room.set()
            if waiting.future.done():
                self._count("cancelled")
                continue
            if waiting.retried and batch:
                self._queue.appendleft(waiting)
                break
            waiting.started = time.monotonic()
            batch.append(waiting)
            if waiting.retried:
                break
        return batch

    def _job_ended(self, task: asyncio.Task[None]) -> None:
        self._jobs.discard(task)
        self._dispatch()

    # Running one job.

    async def _run(self, batch: list[Waiting]) -> None:
        self._metrics.batch_size.labels(self._model.short_name).observe(len(batch))
        segment = self._segment()
        try:
            result = await self._ask(batch, segment)
            self._settle(batch, result, segment)
        except WorkerDied:
            self._discard(segment)
            self._retry(batch)
        except BackendDown as error:
            self._discard(segment)
            self._fail_all(batch, Unavailable(Reason.BACKEND_UNAVAILABLE, str(error), retry_after_seconds=1.0))
        except Exception as error:
            self._discard(segment)
            self._fail_all(batch, error)
        else:
            if self._segments and segment:
                self._segments.release(segment)

    def _segment(self) -> Segment | None:
        # Without one the images travel in the answer, which is slower and no worse.
        try:
            return self._segments.acquire() if self._segments else None
        except OSError as error:
            log.warning("no shared memory for a job: %s", error)
            return None

    async def _ask(self, batch: list[Waiting], segment: Segment | None) -> render_pb2.RenderResult:
        job = render_pb2.RenderJob(items=[waiting.item for waiting in batch])
        if segment:
            job.segment.path = segment.path
            job.segment.slot_bytes = segment.slot_bytes
        model = self._model
        result = await self._backend.render(model.short_name, job, self._limits.job_timeout_seconds)
        if result.digest != model.file.digest:
            raise BackendFailed(f"the worker draws with {result.digest[:12]}, not with {model.file.digest[:12]}")
        return result

    def _settle(self, batch: list[Waiting], result: render_pb2.RenderResult, segment: Segment | None) -> None:
        facts = JobFacts(result.render_seconds, result.encode_seconds, result.fingerprint)
        self._observe(batch, facts)
        for slot, (waiting, outcome) in enumerate(zip(batch, result.outcomes, strict=True)):
            kind = outcome.WhichOneof("result")
            if kind == "slot_length" and segment is not None:
                image = segment.read(slot, outcome.slot_length)
            elif kind == "image":
                image = outcome.image
                self._metrics.inline.labels(self._model.short_name).inc()
            else:
                self._count("failed")
                _fail(waiting, _face_failed(outcome.failure))
                continue
            self._count("ok")
            queued = waiting.started - waiting.arrived
            if not waiting.future.done():
                waiting.future.set_result(Drawn(image=image, queue_seconds=queued, job=facts))

    def _observe(self, batch: list[Waiting], facts: JobFacts) -> None:
        name = self._model.short_name
        self._seconds_per_image = (facts.render_seconds + facts.encode_seconds) / len(batch)
        self._metrics.stage.labels(name, "render").observe(facts.render_seconds)
        self._metrics.stage.labels(name, "encode").observe(facts.encode_seconds)
        for waiting in batch:
            self._metrics.stage.labels(name, "queue").observe(waiting.started - waiting.arrived)

    def _retry(self, batch: list[Waiting]) -> None:
        for waiting in reversed(batch):
            if waiting.retried:
                self._count("failed")
                _fail(waiting, FaceFailed(Reason.RENDER_FAILED, "two workers died at this face"))
            elif self._closed:
                _fail(waiting, shutting_down())
            else:
                self._count("retried")
                waiting.retried = True
                self._queue.appendleft(waiting)

    def _fail_all(self, batch: list[Waiting], error: Exception) -> None:
        for waiting in batch:
            self._count("failed")
            _fail(waiting, error)

    def _discard(self, segment: Segment | None) -> None:
        # A job that did not end well may still be written by a worker: its memory is never used again.
        if self._segments and segment:
            self._segments.discard(segment)

    def _count(self, outcome: str) -> None:
        self._metrics.images.labels(self._model.short_name, outcome).inc()


def _fail(waiting: Waiting, error: Exception) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(error)


def _face_failed(failure: render_pb2.RenderFailure) -> FaceFailed:
    known = failure.reason in Reason.__members__
    reason = Reason[failure.reason] if known else Reason.RENDER_FAILED
    return FaceFailed(reason, failure.message or "the face could not be drawn")
