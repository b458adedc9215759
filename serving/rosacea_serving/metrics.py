"""What the gateway counts, for Prometheus. One registry per gateway: nothing global, nothing at import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
STAGE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class QueueImages(Collector):
    """Images waiting for a worker, by model; the queues are asked at every scrape.

    While one revision of a model takes another's place there are two queues under its name: a gauge that is told would
    show whichever changed last.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._queues: dict[object, tuple[str, Callable[[], int]]] = {}
        registry.register(self)

    def add(self, model: str, length: Callable[[], int]) -> Callable[[], None]:
        """Count one more queue, until what is returned is called. `length` is asked in the thread of the scrape."""
        key = object()
        self._queues[key] = model, length

        def remove() -> None:
            self._queues.pop(key, None)

        return remove

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One sample for each model that has a queue."""
        waiting: dict[str, int] = {}
        for model, length in list(self._queues.values()):
            waiting[model] = waiting.get(model, 0) + length()
        family = GaugeMetricFamily("rosacea_queue_images", "Images waiting for a worker.", labels=["model"])
        for model, images in waiting.items():
            family.add_metric([model], images)
        yield family


class Metrics:
    """The gateway's metrics, each with a closed set of label values."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.batch_size = Histogram(
            "rosacea_batch_size",
            "Images in a job sent to a worker.",
            ["model"],
            buckets=BATCH_BUCKETS,
            registry=self.registry,
        )
        self.images = Counter(
            "rosacea_images",
            "Images that left the queue, by what became of them: ok, failed, retried, cancelled or expired.",
            ["model", "outcome"],
            registry=self.registry,
        )
        self.inline = Counter(
            "rosacea_images_inline",
            "Images that came in TorchServe's answer because shared memory could not be used.",
            ["model"],
            registry=self.registry,
        )
        self.queues = QueueImages(self.registry)
        self.stage = Histogram(
            "rosacea_stage_duration_seconds",
            "Time by stage: queue for each image, render and encode for each job.",
            ["model", "stage"],
            buckets=STAGE_BUCKETS,
            registry=self.registry,
        )
        self.open_calls = Gauge("rosacea_open_calls", "Calls under way.", registry=self.registry)
        self.rejected = Counter(
            "rosacea_rejected", "Calls that ended with an error, by reason.", ["reason"], registry=self.registry
        )
        self.ready = Gauge("rosacea_ready", "1 while workers can answer.", registry=self.registry)
        self.starts = Counter(
            "rosacea_torchserve_starts", "Times that TorchServe was started.", registry=self.registry
        )
        self.model_ready = Gauge(
            "rosacea_model_ready", "1 while this revision can be drawn.", ["model", "revision"], registry=self.registry
        )
        self.circuit_open = Gauge(
            "rosacea_model_circuit_open",
            "1 from the third failed start in a row until one succeeds: worth an alert.",
            ["model", "revision"],
            registry=self.registry,
        )
        self.swaps = Counter(
            "rosacea_model_swaps",
            "Times that the models were read anew: done, unchanged or refused.",
            ["outcome"],
            registry=self.registry,
        )
