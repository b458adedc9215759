"""Metrics collected at scrape time: workers, their memory, TorchServe's own numbers.

All of it is done in the thread of the scrape and at most once a second, however many scrape. What cannot be had is left
out of the answer: a scrape never fails for it.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from .torchserve import NUMBERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from prometheus_client.core import Metric

FRESH_SECONDS = 1.0
STATES = ("starting", "ready", "down", "open")
EACH = ("model", "revision")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Report:
    """State of one TorchServe and its workers."""

    workers: int = 0
    worker_bytes: int = 0  # resident memory of all of them
    torchserve_bytes: int = 0  # of Java
    numbers: dict[str, float] = field(default_factory=dict)  # by TorchServe's names


@dataclass(frozen=True, kw_only=True)
class ServedRevision:
    """A revision in service: its labels, its state, the workers it should have, and how to look at them."""

    model: str
    revision: str
    state: str
    expected_workers: int
    report: Callable[[], Report | None]


class BackendCollector:
    """Prometheus collector that reads all backends. `backends` is called in the thread of the scrape."""

    def __init__(self, backends: Callable[[], Sequence[ServedRevision]]) -> None:
        self._backends = backends
        self._lock = Lock()
        self._reports: dict[tuple[str, str], Report] = {}
        self._asked = float("-inf")

    def describe(self) -> Iterable[Metric]:
        """Describe the metrics without reading any backend."""
        return families().values()

    def collect(self) -> Iterator[Metric]:
        backends = self._backends()
        self._refresh(backends)
        found = families()
        for each in backends:
            add(found, each, self._reports.get((each.model, each.revision)))
        yield from found.values()

    def _refresh(self, backends: Sequence[ServedRevision]) -> None:
        # Whoever comes while another thread asks gets what was there before.
        if time.monotonic() - self._asked < FRESH_SECONDS or not self._lock.acquire(blocking=False):
            return
        try:
            self._reports = {
                (each.model, each.revision): report for each in backends if (report := quietly(each.report)) is not None
            }
            self._asked = time.monotonic()
        finally:
            self._lock.release()


def quietly(ask: Callable[[], Report | None]) -> Report | None:
    """The report, or None if TorchServe is starting, stuck or gone."""
    try:
        return ask()
    except Exception as error:
        log.debug("no numbers of TorchServe: %s", error)
        return None


def families() -> dict[str, CounterMetricFamily | GaugeMetricFamily]:
    """The metric families of this collector, still without samples."""
    gauges = [
        GaugeMetricFamily("rosacea_backend_state", "1 for the state that it is in.", labels=[*EACH, "state"]),
        GaugeMetricFamily("rosacea_workers", "Worker processes that are there.", labels=EACH),
        GaugeMetricFamily("rosacea_workers_expected", "Worker processes that should be there.", labels=EACH),
        GaugeMetricFamily(
            "rosacea_backend_memory_bytes", "Resident memory of workers and of TorchServe.", labels=[*EACH, "process"]
        ),
    ]
    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
    theirs = [kinds[each.kind](each.name, each.text, labels=EACH) for each in NUMBERS.values()]
    return {each.name: each for each in [*gauges, *theirs]}


def add(
    found: dict[str, CounterMetricFamily | GaugeMetricFamily], backend: ServedRevision, report: Report | None
) -> None:
    """Add the samples of one deployment to the metric families."""
    labels = [backend.model, backend.revision]
    for state in STATES:
        found["rosacea_backend_state"].add_metric([*labels, state], backend.state == state)
    found["rosacea_workers_expected"].add_metric(labels, backend.expected_workers)
    if report is None:
        return
    found["rosacea_workers"].add_metric(labels, report.workers)
    found["rosacea_backend_memory_bytes"].add_metric([*labels, "workers"], report.worker_bytes)
    found["rosacea_backend_memory_bytes"].add_metric([*labels, "torchserve"], report.torchserve_bytes)
    for theirs, value in report.numbers.items():
        number = NUMBERS[theirs]
        found[number.name].add_metric(labels, value * number.unit)
