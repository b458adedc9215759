"""A real Prometheus watches the real service: every panel has data, and nothing breaks when a worker is lost."""

from __future__ import annotations

import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from threading import Event, Thread
from typing import TYPE_CHECKING

import pytest

from rosacea_model import GeneratorConfig
from rosacea_model.fresh import fresh_model

from ..integration.service import RunningService
from .dashboard import drawings
from .load import Load
from .prometheus import Prometheus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not Prometheus.installed(), reason="no prometheus (Debian: apt-get install prometheus)"),
]
CONFIG = GeneratorConfig(z_dim=8, w_dim=8, img_resolution=16, mapping_layers=1, channel_base=64, channel_max=8)
WINDOW = "15s"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return fresh_model(tmp_path / "model", CONFIG, seed=1, name="demo").path.parent


def eventually(holds: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, what
        time.sleep(0.5)


@dataclass
class Pages:
    """Scrapes of the metrics page, one after another, with more patience than Prometheus has on a busy machine."""

    answered: int = 0
    failed: list[str] = field(default_factory=list)


@contextmanager
def scraped(address: str) -> Iterator[Pages]:
    """Ask for the metrics page every half second during the block."""
    pages, done = Pages(), Event()

    def ask() -> None:
        while not done.wait(0.5):
            try:
                with urllib.request.urlopen(f"http://{address}/metrics", timeout=120) as page:
                    page.read()
                pages.answered += 1
            except OSError as error:
                pages.failed.append(str(error))

    thread = Thread(target=ask)
    thread.start()
    try:
        yield pages
    finally:
        done.set()
        thread.join()


def test_every_query_of_the_dashboard_has_data_and_a_lost_worker_breaks_no_counter(model: Path) -> None:
    with (
        RunningService([model]) as service,
        Prometheus(service.metrics_address) as prometheus,
        Load(service.address),
        scraped(service.metrics_address) as pages,
    ):
        unanswered = {query for drawing in drawings(window=WINDOW) for query, _ in drawing.queries}

        def all_answer() -> bool:
            unanswered.difference_update({query for query in unanswered if prometheus.ask(query)})
            return not unanswered

        eventually(all_answer, f"without data: {unanswered}")
        eventually(lambda: prometheus.ask("sum(rate(rosacea_images_generated_total[10s])) > 0"), "nothing is drawn")
        eventually(lambda: prometheus.ask("rosacea:call_seconds:p95_5m > 0"), "no call took its time")
        before = series(prometheus)

        service.workers()[0].kill()
        eventually(lambda: prometheus.ask("rosacea_worker_restarts_total == 1"), "the lost worker is not counted")
        eventually(lambda: prometheus.ask("rosacea_workers == 1 and rosacea_model_ready == 1"), "it is not replaced")
        service.java().kill()
        eventually(lambda: prometheus.ask("rosacea_torchserve_starts_total == 2"), "the restart is not counted")
        eventually(lambda: prometheus.ask("rosacea_model_ready == 1"), "it does not come back")
        eventually(lambda: prometheus.ask("sum(rate(rosacea_images_generated_total[5s])) > 0"), "nothing is drawn")

        assert series(prometheus) - before == set(), "a restart begins no series"
        assert prometheus.ask("count by (__name__, instance) (rosacea_torchserve_jobs_total) > 1") == []
        assert pages.answered > 0
        assert pages.failed == [], "every scrape was answered"
        assert fallen(prometheus) == {"rosacea_torchserve_jobs_total"}, "TorchServe's own begins anew, and no other"
        assert prometheus.ask("min_over_time(rate(rosacea_torchserve_jobs_total[10s])[2m:1s]) < 0") == []


def fallen(prometheus: Prometheus) -> set[str]:
    """The counters that were ever lower than before."""
    found = prometheus.ask('{__name__=~"(rosacea|grpc_server|process).*_total"}[10m]')
    assert len(found) > 100
    lines = [(each["metric"]["__name__"], [float(value) for _, value in each["values"]]) for each in found]
    return {name for name, values in lines if any(after < before for before, after in pairwise(values))}


def series(prometheus: Prometheus) -> set[str]:
    # Whatever there ever was: after a scrape that took too long there is none of them for a moment.
    found = prometheus.ask('last_over_time({job="rosacea", __name__=~"(rosacea|grpc|process)_.*"}[1h])')
    return {str(sorted(each["metric"].items())) for each in found}
