"""The gateway's Prometheus metrics. Each gateway has its own registry; nothing is global.

Every label has a closed set of values, and every combination exists from the start with value 0: what never happened
differs from what is not counted, and `rate` sees the first event too. `grpc_metrics` counts calls (`grpc_server_*`);
`backends` reads TorchServe at each scrape.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from rosacea_contract.reasons import Reason

from ..background import Background
from ..lane import Lane

if TYPE_CHECKING:
    from collections.abc import Sequence

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
FILL_BUCKETS = (0.125, 0.25, 0.5, 0.75, 1)
TIME_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 0.5, 1, 3, 10)
OUTCOMES = ("ok", "failed", "retried", "cancelled", "expired")
FORMATS = ("png", "jpeg", "raw", "latent")
# Of a job: the wait of its oldest image, the worker's own four, and what TorchServe and the way there and back take.
STAGES = ("queue", "mapping", "synthesis", "encode", "copy", "transport")
DROPS = ("admission", "queue")
SWAPS = ("done", "unchanged", "refused")


class Metrics:
    """The gateway's metrics, each with a closed set of label values."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._add_calls()
        self._add_queue()
        self._add_jobs()
        self._add_images()
        self._add_models()
        self._add_workers()
        ProcessCollector(registry=self.registry)
        self._gauge("rosacea_build_info", "1; the version of the service.", "version").labels(version("rosacea")).set(1)
        for reason in Reason:
            self.rejected.labels(reason)
        self.background = Background(
            self._counter(
                "rosacea_background_failures", "Errors that nobody foresaw in what runs beside the calls.", "task"
            )
        )
        for outcome in SWAPS:
            self.swaps.labels(outcome)

    def add_model(self, model: str) -> None:
        """Initialise a model's counters to 0."""
        for counter, values in (
            (self.images, OUTCOMES),
            (self.generated, FORMATS),
            (self.image_bytes, FORMATS),
            (self.stage, STAGES),
            (self.deadline_dropped, DROPS),
            (self.queue_depth, Lane),
            (self.queue_capacity, Lane),
            (self.queue_wait, Lane),
        ):
            for value in values:
                counter.labels(model, value)
        for plain in (
            self.batch_size,
            self.batch_fill,
            self.inline,
            self.wasted,
            self.jobs,
            self.jobs_capacity,
            self.worker_restarts,
            self.selftest_failures,
        ):
            plain.labels(model)

    def _add_calls(self) -> None:
        self.open_calls = self._gauge("rosacea_open_calls", "Calls of our own services under way.")
        self.streams = self._gauge("rosacea_stream_active", "Calls under way that answer in more than one message.")
        self.rejected = self._counter("rosacea_rejected", "Calls that ended with an error, by its reason.", "reason")
        self.dropped_lines = self._counter("rosacea_log_lines_dropped", "Log lines lost because nobody read them.")

    def _add_queue(self) -> None:
        self.queue_depth = self._gauge("rosacea_queue_depth", "Images waiting for a worker.", "model", "lane")
        self.queue_capacity = self._gauge("rosacea_queue_capacity", "Images that may wait.", "model", "lane")
        self.queue_wait = self._histogram(
            "rosacea_queue_wait_seconds",
            "How long each image that was drawn had waited for a worker.",
            TIME_BUCKETS,
            "model",
            "lane",
        )
        self.deadline_dropped = self._counter(
            "rosacea_deadline_dropped",
            "Images not drawn for want of time: of calls refused on arrival, or expired in the queue.",
            "model",
            "stage",
        )

    def _add_jobs(self) -> None:
        self.jobs = self._gauge("rosacea_jobs_in_flight", "Jobs at the workers.", "model")
        self.jobs_capacity = self._gauge("rosacea_jobs_capacity", "Jobs that may be at the workers at once.", "model")
        self.batch_size = self._histogram("rosacea_batch_size", "Images in a job.", BATCH_BUCKETS, "model")
        self.batch_fill = self._histogram(
            "rosacea_batch_fill_ratio", "Images in a job over those that fit.", FILL_BUCKETS, "model"
        )
        self.stage = self._histogram(
            "rosacea_stage_duration_seconds",
            "Where the time of a job went; queue is the wait of its oldest image.",
            TIME_BUCKETS,
            "model",
            "stage",
        )

    def _add_images(self) -> None:
        self.images = self._counter(
            "rosacea_images", "Images that left the queue, by what became of them.", "model", "outcome"
        )
        self.generated = self._counter("rosacea_images_generated", "Images and latents drawn.", "model", "format")
        self.image_bytes = self._counter("rosacea_image_bytes", "Bytes of images and latents.", "model", "format")
        self.wasted = self._counter("rosacea_images_wasted", "Images drawn that nobody waited for any more.", "model")
        self.inline = self._counter(
            "rosacea_images_inline",
            "Images that came in TorchServe's answer because shared memory could not be used.",
            "model",
        )

    def _add_models(self) -> None:
        self.ready = self._gauge("rosacea_ready", "1 while workers can answer.")
        self.swaps = self._counter("rosacea_model_swaps", "Times that the models were read anew.", "outcome")
        each = ("model", "revision")
        self.model_ready = self._gauge("rosacea_model_ready", "1 while this revision can be drawn.", *each)
        self.circuit_open = self._gauge(
            "rosacea_model_circuit_open", "1 from the third failed start in a row until one succeeds.", *each
        )
        self.warmup = self._gauge(
            "rosacea_model_warmup_seconds", "From the last start to the first face and a warm Java.", *each
        )
        self.model_info = self._gauge(
            "rosacea_model_info", "1; what is served.", *each, "digest", "resolution", "seed_scheme"
        )

    def _add_workers(self) -> None:
        self.starts = self._counter("rosacea_torchserve_starts", "Times that TorchServe was started.")
        self.worker_restarts = self._counter(
            "rosacea_worker_restarts", "Workers that ended and had to be replaced.", "model"
        )
        self.selftest_failures = self._counter(
            "rosacea_selftest_failures", "Workers refused because a face did not come out the same twice.", "model"
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=buckets)
