"""Runs one job: sends images to a worker and receives them through shared memory if possible."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rosacea.render.v1 import render_pb2
from rosacea_contract.errors import ServerError
from rosacea_contract.reasons import Reason

from ..torchserve.errors import BackendFailed
from .facts import JobFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..catalog import ServedModel
    from ..torchserve.backend import Backend
    from ..worker.segments import Segment, SegmentPool
    from .metrics import ModelMetrics

log = logging.getLogger(__name__)


class JobRunner:
    """Runs jobs on one model's workers. Without `segments`, images travel in the answers."""

    def __init__(
        self,
        model: ServedModel,
        backend: Backend,
        timeout_seconds: float,
        metrics: ModelMetrics,
        segments: SegmentPool | None,
    ) -> None:
        self._model = model
        self._backend = backend
        self._timeout_seconds = timeout_seconds
        self._metrics = metrics
        self._segments = segments

    async def run(self, items: Sequence[render_pb2.RenderItem]) -> tuple[JobFacts, list[bytes | ServerError]]:
        """Run a job; returns its timings, and the image or error of each item. Raises BackendError."""
        segment = self._segment()
        try:
            result = await self._ask(items, segment)
            made = [self._made(slot, outcome, segment) for slot, outcome in enumerate(result.outcomes)]
        except BaseException:
            if self._segments and segment:
                # A worker may still write into it: this memory is never used again.
                self._segments.discard(segment)
            raise
        if self._segments and segment:
            self._segments.release(segment)
        return _facts(result), made

    def release_memory(self) -> None:
        """Release the shared memory."""
        if self._segments:
            self._segments.close()

    def _segment(self) -> Segment | None:
        # Without one the images travel in the answer, which is slower and no worse.
        try:
            return self._segments.acquire() if self._segments else None
        except OSError as error:
            log.warning("no shared memory for a job: %s", error)
            return None

    async def _ask(self, items: Sequence[render_pb2.RenderItem], segment: Segment | None) -> render_pb2.RenderResult:
        job = render_pb2.RenderJob(items=items)
        if segment:
            job.segment.path = segment.path
            job.segment.slot_bytes = segment.slot_bytes
        model = self._model
        result = await self._backend.render(model.short_name, job, self._timeout_seconds)
        if result.digest != model.file.digest:
            raise BackendFailed(f"the worker draws with {result.digest[:12]}, not with {model.file.digest[:12]}")
        return result

    def _made(self, slot: int, outcome: render_pb2.RenderOutcome, segment: Segment | None) -> bytes | ServerError:
        kind = outcome.WhichOneof("result")
        if kind == "slot_length" and segment is not None:
            return segment.read(slot, outcome.slot_length)
        if kind == "image":
            self._metrics.came_inline()
            return outcome.image
        return _face_failed(outcome.failure)


def _facts(result: render_pb2.RenderResult) -> JobFacts:
    return JobFacts(
        mapping_seconds=result.mapping_seconds,
        render_seconds=result.render_seconds,
        encode_seconds=result.encode_seconds,
        copy_seconds=result.copy_seconds,
        fingerprint=result.fingerprint,
    )


def _face_failed(failure: render_pb2.RenderFailure) -> ServerError:
    known = failure.reason in Reason.__members__
    reason = Reason[failure.reason] if known else Reason.RENDER_FAILED
    return ServerError(failure.message or "the face could not be drawn", reason=reason)
