"""One served model revision: its TorchServe and its queue.

Every revision has a TorchServe of its own. So one that fails, hangs or is exchanged does not touch the others, and
TorchServe's interface for loading models, through which anyone who reaches it can run code, stays closed. It costs
some 200 MB of memory for each model.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Protocol

from ..catalog import ServedModel
from ..observe.backends import ServedRevision
from ..scheduling.scheduler import QueueLimits, Scheduler
from ..torchserve.backend import Backend
from ..torchserve.devices import ON_CPU, Devices
from ..torchserve.options import TorchServeOptions
from ..worker.segments import SegmentPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from rosacea_model.files.modelfile import ModelFile

    from ..background import Background
    from ..observe.backends import Report
    from ..observe.metrics import Metrics
    from ..settings import Settings
    from ..torchserve.supervisor import Event

SPARE_JOBS = 4  # room in TorchServe's own queue for canaries
WORKER_RESTART_SECONDS = 60.0  # a job may stand behind the restart of its worker
SEED_SCHEME = "numpy-randomstate"  # as the API's SeedScheme, in metrics


class Workers(Backend, Protocol):
    """The workers of a revision: a supervised TorchServe, or a stand-in in tests."""

    on_event: Callable[[Event], None]
    background: Background

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def wait_ready(self, timeout_seconds: float) -> None: ...
    def report(self) -> Report | None: ...


class Deployment:
    """A served model with its workers, queue and metrics. `on_change` is called whenever its state changes."""

    def __init__(
        self,
        file: ModelFile,
        settings: Settings,
        metrics: Metrics,
        supervise: Callable[[TorchServeOptions, Callable[[str], None]], Workers],
        on_change: Callable[[], None],
        devices: Devices = ON_CPU,
    ) -> None:
        self.model = ServedModel(file)
        self.state = "down"
        self.settled = False  # it has been ready, or has been given up for the time being
        self._retired = False
        self._started = 0.0
        self._metrics = metrics
        self._on_change = on_change
        self._expected_workers = devices.workers(settings.workers)
        self.workers = supervise(torchserve_options(file, settings, devices), self._on_state)
        self.workers.on_event = self._on_event
        self.workers.background = metrics.background
        segments = SegmentPool(
            slots=settings.max_batch, slot_bytes=self.model.most_coded_bytes, keep=jobs_in_flight(settings, devices)
        )
        self.scheduler = Scheduler(self.model, self.workers, limits(settings, devices), metrics, segments)

    @property
    def ready(self) -> bool:
        return self.state == "ready"

    def retire(self) -> None:
        """Remove its metrics: the same revision may come back as another deployment with the same labels."""
        if self._retired:
            return
        self._retired = True
        metrics = self._metrics
        for gauge in (metrics.model_ready, metrics.circuit_open, metrics.warmup):
            gauge.remove(*self._labels)
        metrics.model_info.remove(*self._info)

    async def stop(self) -> None:
        """Stop the workers at once; images that still wait fail with Unavailable."""
        self.retire()
        self.scheduler.refuse_all()
        await self.workers.stop()
        await self.scheduler.free()

    def watched(self) -> ServedRevision:
        """What a metrics scrape reads of this deployment: labels, state, expected workers, and the function that
        reports on TorchServe."""
        model, revision = self._labels
        return ServedRevision(
            model=model,
            revision=revision,
            state=self.state,
            expected_workers=self._expected_workers,
            report=self.workers.report,
        )

    @property
    def _labels(self) -> tuple[str, str]:
        return self.model.short_name, self.model.short_digest

    @property
    def _info(self) -> tuple[str, ...]:
        return *self._labels, self.model.file.digest, str(self.model.config.img_resolution), SEED_SCHEME

    def _on_event(self, event: Event) -> None:
        metrics = self._metrics
        counter = metrics.worker_restarts if event == "worker ended" else metrics.selftest_failures
        counter.labels(self.model.short_name).inc()

    def _on_state(self, state: str) -> None:
        self.state = state
        if state == "starting":
            self._metrics.starts.inc()
            self._started = time.monotonic()
        if self._retired:
            return
        if state == "ready" and self._started:
            self._metrics.warmup.labels(*self._labels).set(time.monotonic() - self._started)
            self._started = 0.0
        self._metrics.model_info.labels(*self._info).set(1)
        if state in ("ready", "open"):
            self.settled = True
            self._metrics.circuit_open.labels(*self._labels).set(state == "open")
        self._metrics.model_ready.labels(*self._labels).set(self.ready)
        self._on_change()


def jobs_in_flight(settings: Settings, devices: Devices) -> int:
    """Limit of jobs at a model's workers at one time."""
    return devices.workers(settings.workers) * settings.jobs_per_worker


def limits(settings: Settings, devices: Devices) -> QueueLimits:
    """Queue and concurrency limits from the settings."""
    return QueueLimits(
        max_batch=settings.max_batch,
        jobs_in_flight=jobs_in_flight(settings, devices),
        queue_images=settings.queue_images,
        job_timeout_seconds=settings.jobs_per_worker * settings.job_timeout_seconds + WORKER_RESTART_SECONDS,
    )


def torchserve_options(file: ModelFile, settings: Settings, devices: Devices) -> TorchServeOptions:
    """TorchServe options of this model on these devices."""
    cores = len(os.sched_getaffinity(0))
    workers = devices.workers(settings.workers)
    return TorchServeOptions(
        models=[file],
        workers=workers,
        devices=devices,
        worker_threads=settings.worker_threads or max(1, cores // workers),
        engine=settings.engine,
        precision=settings.precision,
        java=str(settings.java) if settings.java else None,
        warmup_jobs=settings.warmup_jobs,
        response_timeout_seconds=settings.job_timeout_seconds,
        jobs_per_worker=settings.jobs_per_worker,
        job_queue_size=jobs_in_flight(settings, devices) + SPARE_JOBS,
        circuit_seconds=settings.circuit_seconds,
    )
