"""What a scrape tells of TorchServe and its workers, and that it tells the rest when they do not answer."""

from __future__ import annotations

import logging
import socket
from contextlib import contextmanager
from threading import Barrier, Event, Thread
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from rosacea.v1 import faces_pb2
from rosacea_serving.observe import backends, torchserve
from rosacea_serving.observe.backends import BackendCollector, Report, ServedRevision
from rosacea_serving.observe.torchserve import NUMBERS, ask, parse
from rosacea_serving.torchserve import Supervisor, TorchServeOptions
from rosacea_serving.worker.contract import SELF_TEST_FAILED
from rosacea_serving.worker.handler import FaceHandler
from rosacea_serving.worker.selftest import NotDeterministic

from ...waiting import HANG_SECONDS
from ..hosted import demo_file, hosted
from ..worker.test_handler import FakeEngine, handle, item, row
from ..worker.test_selftest import Drifting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PAGE = """# HELP QueueTime Torchserve prometheus gauge metric with unit: Milliseconds
# TYPE QueueTime gauge
QueueTime{Level="Host",Hostname="h",} 12.0
# TYPE WorkerLoadTime gauge
WorkerLoadTime{WorkerName="W-9000-demo_1.0",Level="Host",Hostname="h",} 10384.0
WorkerLoadTime{WorkerName="W-9001-demo_1.0",Level="Host",Hostname="h",} 9000.0
# TYPE GPUUtilization gauge
ts_inference_requests_total{model_name="demo",model_version="default",hostname="vm",} 521.0
"""
EACH = {"model": "demo", "revision": "abc"}


@contextmanager
def answering(path: Path, answer: Callable[[socket.socket], None]) -> Iterator[Path]:
    """A UNIX socket whose first caller is answered so."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                answer(connection)

        thread = Thread(target=serve, daemon=True)
        thread.start()
        yield path
        thread.join(10)


def page(connection: socket.socket) -> None:
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(PAGE)}\r\nconnection: keep-alive\r\n\r\n"
    connection.sendall((head + PAGE).encode())


def backend(report: Callable[[], Report | None], state: str = "ready") -> ServedRevision:
    return ServedRevision(model="demo", revision="abc", state=state, expected_workers=2, report=report)


def registry_of(*found: ServedRevision) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(BackendCollector(lambda: found))
    return registry


def test_torchserve_is_asked_over_its_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchserve, "TIMEOUT_SECONDS", HANG_SECONDS)
    with answering(tmp_path / "s", page) as path:
        assert ask(path) == {"QueueTime": 12.0, "WorkerLoadTime": 10384.0, "ts_inference_requests_total": 521.0}


def test_its_numbers_are_told_in_base_units_under_our_names() -> None:
    report = Report(workers=2, worker_bytes=300, torchserve_bytes=200, numbers=parse(PAGE))
    value = registry_of(backend(lambda: report)).get_sample_value

    assert value("rosacea_torchserve_queue_seconds", EACH) == pytest.approx(0.012)
    assert value("rosacea_torchserve_worker_load_seconds", EACH) == pytest.approx(10.384)
    assert value("rosacea_torchserve_jobs_total", EACH) == 521
    assert value("rosacea_backend_memory_bytes", EACH | {"process": "workers"}) == 300
    assert (value("rosacea_workers", EACH), value("rosacea_workers_expected", EACH)) == (2, 2)
    assert all(number.name.startswith("rosacea_torchserve_") for number in NUMBERS.values())


@pytest.mark.parametrize("garbage", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", b"\xff" * 100])
def test_a_torchserve_that_answers_nonsense_fails_no_scrape(tmp_path: Path, garbage: bytes) -> None:
    with answering(tmp_path / "s", lambda connection: connection.sendall(garbage)) as path:
        text = generate_latest(registry_of(backend(lambda: Report(workers=1, numbers=ask(path)))))

    assert b'rosacea_backend_state{model="demo",revision="abc",state="ready"} 1.0' in text
    assert b"rosacea_torchserve_jobs_total{" not in text


def test_a_torchserve_that_hangs_fails_no_scrape(tmp_path: Path) -> None:
    go_on = Event()
    with answering(tmp_path / "s", lambda connection: (go_on.wait(60), None)[1]) as path:
        text = generate_latest(registry_of(backend(lambda: Report(numbers=ask(path)))))
        go_on.set()

    assert b'state="ready"} 1.0' in text


def test_it_is_asked_once_a_second_however_many_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []
    barrier = Barrier(8)

    def report() -> Report:
        asked.append(None)
        return Report(workers=2)

    registry = registry_of(backend(report))

    def scrape() -> None:
        barrier.wait(HANG_SECONDS)
        for _ in range(20):
            generate_latest(registry)

    monkeypatch.setattr(backends, "FRESH_SECONDS", 3600.0)
    threads = [Thread(target=scrape) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_SECONDS)

    assert len(asked) == 1
    assert registry.get_sample_value("rosacea_workers", EACH) == 2


def test_a_lost_worker_and_a_failed_self_test_are_counted() -> None:
    with hosted() as service:
        for event in ("worker ended", "worker ended", "self-test failed"):
            service.workers.on_event(event)
        value = service.gateway.metrics.registry.get_sample_value

        assert value("rosacea_worker_restarts_total", {"model": "demo"}) == 2
        assert value("rosacea_selftest_failures_total", {"model": "demo"}) == 1


def test_a_worker_says_once_that_its_self_test_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("rosacea.handler")
    handler = FaceHandler(load=lambda path, device: Drifting())
    logger.addHandler(caplog.handler)
    try:
        with pytest.raises(NotDeterministic):
            handler.initialize(SimpleNamespace(system_properties={"model_dir": "/m", "gpu_id": None}))
    finally:
        logger.removeHandler(caplog.handler)

    events: list[str] = []
    supervisor = Supervisor(TorchServeOptions(models=[demo_file()]))
    supervisor.on_event = events.append
    for record in {id(record): record for record in caplog.records}.values():
        supervisor._read(record.getMessage())
    assert events == ["self-test failed"]
    assert SELF_TEST_FAILED in caplog.text


def test_a_workers_answer_says_where_its_time_went() -> None:
    handler = FaceHandler(load=lambda path, device: FakeEngine())
    context: Any = SimpleNamespace(system_properties={"model_dir": "/m", "gpu_id": None})
    handler.initialize(context)

    (drawn,) = handle(handler, row(*[item(seed, format=faces_pb2.IMAGE_FORMAT_PNG) for seed in range(4)]))
    (empty,) = handle(handler, row())

    assert drawn.mapping_seconds == FakeEngine.mapping_seconds
    assert 0 < drawn.copy_seconds < drawn.encode_seconds
    assert (empty.mapping_seconds, empty.copy_seconds) == (0, 0)
