"""Metrics of one model, updated by its scheduler.

Gauges go up and down by differences: while a revision takes another's place, both have the same label.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

from rosacea.v1 import faces_pb2
from rosacea_contract.spec import FORMATS

from ..lane import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rosacea.render.v1 import render_pb2

    from ..observe.metrics import Metrics
    from .facts import JobFacts


class ModelMetrics:
    """The metrics of one scheduler, which adds its capacity to the gauges until `remove_capacity`."""

    def __init__(self, metrics: Metrics, model: str, *, max_batch: int, jobs: int, places: Mapping[Lane, int]) -> None:
        metrics.add_model(model)
        self._metrics = metrics
        self._model = model
        self._max_batch = max_batch
        # Every image looks these up, which costs several times what the counting does.
        self._images = cache(partial(metrics.images.labels, model))
        self._generated = cache(partial(metrics.generated.labels, model))
        self._image_bytes = cache(partial(metrics.image_bytes.labels, model))
        self._queue_wait = cache(partial(metrics.queue_wait.labels, model))
        self._queue_depth = cache(partial(metrics.queue_depth.labels, model))
        self._stages = cache(partial(metrics.stage.labels, model))
        self._wasted = metrics.wasted.labels(model)
        self._running = metrics.jobs.labels(model)
        self._batch_size, self._batch_fill = metrics.batch_size.labels(model), metrics.batch_fill.labels(model)
        self._depths = dict.fromkeys(Lane, 0)  # as shown
        self._jobs, self._places = jobs, places
        self._show_capacity(1)

    def remove_capacity(self) -> None:
        """Remove this scheduler's capacity from the gauges."""
        self._show_capacity(-1)

    def waiting(self, depth: Callable[[Lane], int]) -> None:
        """Set the number of waiting images of each lane."""
        for lane, shown in self._depths.items():
            self._depths[lane] = now = depth(lane)
            if now != shown:
                self._queue_depth(lane).inc(now - shown)

    def left(self, outcome: str) -> None:
        """Count an image that left the queue; `outcome` is one of OUTCOMES."""
        self._images(outcome).inc()

    def late(self, stage: str, images: int) -> None:
        """Count images dropped because they would be late; `stage` is one of DROPS."""
        self._metrics.deadline_dropped.labels(self._model, stage).inc(images)

    def job_began(self, waits: Sequence[tuple[Lane, float]]) -> None:
        """Count a job sent to a worker, with lane and queue seconds of each image."""
        self._running.inc()
        self._batch_size.observe(len(waits))
        self._batch_fill.observe(len(waits) / self._max_batch)
        self._stage("queue", max(seconds for _, seconds in waits))

    def job_ended(self) -> None:
        """Count the end of a job, answered or given up."""
        self._running.dec()

    def answered(self, facts: JobFacts, seconds: float) -> None:
        """Record the duration of each stage of an answered job; `seconds` is the time from sending the job to its
        answer."""
        self._stage("mapping", facts.mapping_seconds)
        self._stage("synthesis", facts.render_seconds - facts.mapping_seconds)
        self._stage("encode", facts.encode_seconds - facts.copy_seconds)
        self._stage("copy", facts.copy_seconds)
        self._stage("transport", seconds - facts.render_seconds - facts.encode_seconds)

    def drawn(
        self, item: render_pb2.RenderItem, size_bytes: int, lane: Lane, waited_seconds: float, *, wanted: bool
    ) -> None:
        """Count a drawn image and its queue time; `wanted` says whether a caller still waits for it."""
        self._queue_wait(lane).observe(waited_seconds)
        what = FORMATS[item.format] if item.output == faces_pb2.LATENT_SPACE_UNSPECIFIED else "latent"
        self.left("ok")
        self._generated(what).inc()
        self._image_bytes(what).inc(size_bytes)
        self._wasted.inc(not wanted)

    def came_inline(self) -> None:
        """Count an image that came inside TorchServe's answer instead of shared memory."""
        self._metrics.inline.labels(self._model).inc()

    def _stage(self, stage: str, seconds: float) -> None:
        self._stages(stage).observe(max(0.0, seconds))

    def _show_capacity(self, sign: int) -> None:
        self._metrics.jobs_capacity.labels(self._model).inc(sign * self._jobs)
        for lane, places in self._places.items():
            self._metrics.queue_capacity.labels(self._model, lane).inc(sign * places)
