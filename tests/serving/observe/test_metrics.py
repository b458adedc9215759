"""What /metrics tells: every event counted once, under names and labels from closed sets."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from rosacea.v1 import faces_pb2 as pb
from rosacea_contract.reasons import Reason
from rosacea_serving.calls.observing import why_cancelled
from rosacea_serving.observe import exposition
from rosacea_serving.observe.exposition import BURST_PAGES, PAGES_PER_SECOND, Exposed, Form, Pages
from rosacea_serving.observe.grpc_metrics import CODES
from rosacea_serving.scheduling import pace

from ...ports import free_port
from ...waiting import HANG_SECONDS, wait_for
from ..hosted import SETTINGS, Hosted, hosted
from ..raw_calls import raw_call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from rosacea_serving.settings import Settings

SERVICE = "rosacea.v1.FaceService"
MAX_SERIES = 550


@pytest.fixture
def service() -> Iterator[Hosted]:
    with hosted() as running:
        yield running


def value(service: Hosted, name: str, **labels: str) -> float | None:
    return service.gateway.metrics.registry.get_sample_value(name, labels)


def page(service: Hosted) -> str:
    return generate_latest(Exposed(service.gateway.metrics.registry)).decode()


def series(service: Hosted) -> list[str]:
    return [line.rpartition(" ")[0] for line in page(service).splitlines() if not line.startswith("#")]


def counters(service: Hosted) -> dict[str, float]:
    """Every counter that is not at 0, by its series."""
    rows = (line.rpartition(" ") for line in page(service).splitlines())
    return {name: float(number) for name, _, number in rows if re.match(r"\w+_total\b", name) and float(number)}


def all_ended(service: Hosted) -> None:
    """Wait for the last count: a call ends for its client a moment before the service has counted it."""

    def total(name: str) -> float:
        return sum(number for series, number in counters(service).items() if series.startswith(name))

    wait_for(lambda: total("grpc_server_started_total") == total("grpc_server_handled_total"))


def generate(*seeds: int, **fields: Any) -> bytes:
    spec = pb.FaceSpec(seeds=pb.Seeds(values=seeds), **fields)
    return pb.GenerateFacesRequest(spec=spec).SerializeToString()


def calls(service: Hosted, method: str, code: str, *, type: str = "unary") -> float | None:  # noqa: A002
    labels = {"grpc_type": type, "grpc_service": SERVICE, "grpc_method": method, "grpc_code": code}
    return value(service, "grpc_server_handled_total", **labels)


def test_each_status_is_counted_once_for_each_call(service: Hosted) -> None:
    service.send("GenerateFaces", generate(1, 2, 3))
    stream = pb.StreamFacesRequest(spec=pb.FaceSpec(seeds=pb.Seeds(values=[4, 5])))
    latents = pb.MapLatentsRequest(spec=pb.LatentSpec(seeds=pb.Seeds(values=[6])))
    service.send("StreamFaces", stream.SerializeToString())
    service.send("MapLatents", latents.SerializeToString())
    service.send("GetModel", b"")
    for data in (b"\xff", generate(), generate(1, model="models/none")):
        assert service.refusal("GenerateFaces", data)
    service.workers.poisoned = {7}
    assert service.refusal("GenerateFaces", generate(7))
    all_ended(service)

    counted = counters(service)

    expected = {"OK": 1, "InvalidArgument": 2, "NotFound": 1, "Internal": 1}
    assert {code: calls(service, "GenerateFaces", code) for code in expected} == expected
    assert calls(service, "StreamFaces", "OK", type="server_stream") == 1
    started = sum(number for name, number in counted.items() if name.startswith("grpc_server_started"))
    ended = sum(number for name, number in counted.items() if name.startswith("grpc_server_handled"))
    received = sum(number for name, number in counted.items() if name.startswith("grpc_server_msg_received"))
    assert started == ended == received == 8
    rejected = {name: number for name, number in counted.items() if name.startswith("rosacea_rejected")}
    assert rejected == {
        'rosacea_rejected_total{reason="MALFORMED_REQUEST"}': 1,
        'rosacea_rejected_total{reason="SOURCE_REQUIRED"}': 1,
        'rosacea_rejected_total{reason="MODEL_NOT_FOUND"}': 1,
        'rosacea_rejected_total{reason="OUTPUT_NOT_FINITE"}': 1,
    }
    assert counted['rosacea_images_total{model="demo",outcome="ok"}'] == 3 + 2 + 1
    assert counted['rosacea_images_total{model="demo",outcome="failed"}'] == 1
    assert counted['rosacea_images_generated_total{format="png",model="demo"}'] == 3 + 2
    assert counted['rosacea_images_generated_total{format="latent",model="demo"}'] == 1
    assert counted['rosacea_image_bytes_total{format="png",model="demo"}'] == len("12345")


def test_messages_of_a_stream_are_counted_one_by_one() -> None:
    with hosted(SETTINGS.model_copy(update={"stream_message_bytes": 1})) as service:
        request = pb.StreamFacesRequest(spec=pb.FaceSpec(seeds=pb.Seeds(values=range(9))))

        messages = service.send("StreamFaces", request.SerializeToString())
        all_ended(service)

        labels = {"grpc_type": "server_stream", "grpc_service": SERVICE, "grpc_method": "StreamFaces"}
        assert len(messages) == 9
        assert value(service, "grpc_server_msg_sent_total", **labels) == 9
        assert value(service, "grpc_server_handling_seconds_count", **labels) == 1
        assert value(service, "rosacea_stream_active") == 0


def test_a_full_queue_is_counted_by_its_reason(service: Hosted) -> None:
    service.workers.paused = True
    request = pb.GenerateFacesRequest.FromString(generate(*range(8)))
    futures = [service.stub.GenerateFaces.future(request, timeout=HANG_SECONDS) for _ in range(12)]

    def images_heard_of() -> float:
        waiting = value(service, "rosacea_queue_depth", model="demo", lane="interactive") or 0
        refused = calls(service, "GenerateFaces", "ResourceExhausted") or 0
        return len(service.workers.drawn) + waiting + 8 * refused

    wait_for(lambda: images_heard_of() == 12 * 8)
    service.workers.paused = False
    codes = [future.code() for future in futures]
    all_ended(service)

    refused = codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert 0 < refused < 12
    assert calls(service, "GenerateFaces", "ResourceExhausted") == refused
    reasons = ("QUEUE_FULL", "QUOTA_EXCEEDED")
    assert sum(value(service, "rosacea_rejected_total", reason=reason) or 0 for reason in reasons) == refused
    assert calls(service, "GenerateFaces", "OK") == 12 - refused
    assert value(service, "rosacea_queue_depth", model="demo", lane="interactive") == 0
    assert value(service, "rosacea_queue_capacity", model="demo", lane="bulk") == SETTINGS.queue_images // 2
    assert value(service, "rosacea_batch_fill_ratio_bucket", model="demo", le="0.75") == 0


def test_deadlines_and_cancellations_are_told_apart(service: Hosted) -> None:
    service.workers.paused = True
    request = pb.GenerateFacesRequest.FromString(generate(1))
    busy = service.stub.GenerateFaces.future(request, timeout=120)
    wait_for(lambda: service.workers.running == 1)
    gone = service.stub.GenerateFaces.future(request, timeout=120)
    wait_for(lambda: value(service, "rosacea_queue_depth", model="demo", lane="interactive") == 1)
    gone.cancel()
    wait_for(lambda: calls(service, "GenerateFaces", "Canceled") == 1)
    # A client with a timer of its own may reset the call a moment before the service's timer ends. A call whose
    # deadline comes before the service looks at it is not counted, so there is another.
    port = int(service.gateway.address.rpartition(":")[2])
    while not calls(service, "GenerateFaces", "DeadlineExceeded") or cancelled(service) < 2:
        raw_call(port, f"/{SERVICE}/GenerateFaces", request.SerializeToString(), timeout="200m").read_to_the_end()
    service.workers.paused = False
    busy.result()

    wait_for(lambda: calls(service, "GenerateFaces", "OK") == 1)
    assert calls(service, "GenerateFaces", "Canceled") == 1


def cancelled(service: Hosted) -> float:
    """Images that were cancelled in the queue."""
    return value(service, "rosacea_images_total", model="demo", outcome="cancelled") or 0.0


@pytest.mark.parametrize(
    ("seconds_left", "code"),
    [(None, "CANCELLED"), (5.0, "CANCELLED"), (0.0, "DEADLINE_EXCEEDED"), (0.02, "DEADLINE_EXCEEDED")],
)
def test_a_reset_a_moment_before_the_deadline_counts_as_the_deadline(seconds_left: float | None, code: str) -> None:
    context = cast("Any", SimpleNamespace(time_remaining=lambda: seconds_left))

    assert why_cancelled(context).name == code


def test_what_is_drawn_for_nobody_is_counted(service: Hosted) -> None:
    service.workers.paused = True
    call = service.stub.GenerateFaces.future(pb.GenerateFacesRequest.FromString(generate(1, 2)), timeout=HANG_SECONDS)
    wait_for(lambda: service.workers.running == 1)
    call.cancel()
    wait_for(lambda: calls(service, "GenerateFaces", "Canceled") == 1)
    service.workers.paused = False

    wait_for(lambda: value(service, "rosacea_images_wasted_total", model="demo") == 2)
    assert value(service, "rosacea_jobs_in_flight", model="demo") == 0


def test_refused_for_a_hopeless_deadline(service: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "FORGET_SECONDS", math.inf)
    service.gateway._fleet.serving[0].scheduler._pace.note(1, 1000.0, time.monotonic())

    with pytest.raises(grpc.RpcError):
        service.stub.GenerateFaces(pb.GenerateFacesRequest.FromString(generate(1, 2, 3)), timeout=HANG_SECONDS)
    all_ended(service)

    assert value(service, "rosacea_deadline_dropped_total", model="demo", stage="admission") == 3
    assert value(service, "rosacea_rejected_total", reason="DEADLINE_EXPIRED") == 1


def test_everything_is_there_at_zero_before_anything_happens(service: Hosted) -> None:
    names = set(series(service))

    assert counters(service).keys() == {"rosacea_torchserve_starts_total", "process_cpu_seconds_total"}
    assert {f'rosacea_rejected_total{{reason="{reason}"}}' for reason in Reason} <= names
    for method in pb.DESCRIPTOR.services_by_name["FaceService"].methods:
        kind = "server_stream" if method.server_streaming else "unary"
        assert calls(service, method.name, "Internal", type=kind) == 0
    watch = {"grpc_type": "server_stream", "grpc_service": "grpc.health.v1.Health", "grpc_method": "Watch"}
    assert value(service, "grpc_server_started_total", **watch) == 0
    assert value(service, "rosacea_model_info", **model_info()) == 1
    assert value(service, "rosacea_backend_state", model="demo", revision="ab" * 6, state="ready") == 1
    assert (value(service, "process_resident_memory_bytes") or 0) > 2**20


def model_info() -> dict[str, str]:
    labels = {"model": "demo", "revision": "ab" * 6, "digest": "ab" * 32}
    return labels | {"resolution": "16", "seed_scheme": "numpy-randomstate"}


def test_every_code_of_grpc_has_a_name() -> None:
    assert set(CODES) == set(grpc.StatusCode)


@pytest.mark.parametrize("names", [200, pytest.param(10_000, marks=pytest.mark.long)])
def test_names_that_callers_make_up_are_no_series(service: Hosted, names: int) -> None:
    before = set(series(service))

    def one(number: int) -> None:
        health = health_pb2.HealthCheckRequest(service=f"s{number}").SerializeToString()
        kinds = {
            0: ("GenerateFaces", generate(1, model=f"models/m{number}"), SERVICE),
            1: (f"Method{number}", b"", SERVICE),
            2: ("Check", b"", f"other.Service{number}"),
            3: ("Check", health, "grpc.health.v1.Health"),
        }
        method, data, name = kinds[number % 4]
        call: Any = service.channel.unary_unary(f"/{name}/{method}")
        with pytest.raises(grpc.RpcError):
            call(data, timeout=120, metadata=(("x-request-id", f"id-{number}"), ("user-agent", f"u{number}")))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(names)))
    all_ended(service)

    after = set(series(service))
    unknown = {"grpc_type": "unknown", "grpc_service": "unknown", "grpc_method": "unknown"}
    assert after == before
    print(f"\n{len(after)} series after {names} names")
    assert len(after) <= MAX_SERIES
    assert value(service, "grpc_server_started_total", **unknown) == names / 2
    assert value(service, "grpc_server_handled_total", **unknown, grpc_code="Unimplemented") == names / 2


def test_promtool_finds_nothing_wrong_with_the_names(service: Hosted) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    service.send("GenerateFaces", generate(1))

    done = subprocess.run(
        [promtool, "check", "metrics"], input=page(service), capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_side_port_has_metrics_and_nothing_else() -> None:
    port = free_port()
    with hosted(with_metrics_at(port)) as service:
        service.send("GenerateFaces", generate(1))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=120) as answer:
            text = answer.read().decode()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=120)

    assert 'rosacea_images_total{model="demo",outcome="ok"} 1.0' in text
    assert "_created" not in text
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=120)


def test_a_scrape_is_answered_while_the_event_loop_stands_still() -> None:
    port, reached, go_on = free_port(), Event(), Event()

    def stand_still(job: object) -> None:
        reached.set()
        assert go_on.wait(60)

    with hosted(with_metrics_at(port)) as service:
        service.workers.fail = stand_still
        call = service.stub.GenerateFaces.future(pb.GenerateFacesRequest.FromString(generate(1)), timeout=120)
        assert reached.wait(60)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=120) as answer:
                text = answer.read()
        finally:
            go_on.set()
        call.result()

    assert b'rosacea_jobs_in_flight{model="demo"} 1.0' in text


def test_a_flood_of_scrapes_is_answered_from_few_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[None] = []
    now = 0.0
    monkeypatch.setattr(exposition, "time", SimpleNamespace(monotonic=lambda: now))

    class Noting(Collector):
        def collect(self) -> list[Metric]:
            written.append(None)
            return []

    registry = CollectorRegistry()
    registry.register(Noting())
    written.clear()
    pages = Pages(registry)

    def scrape(accept: str = "text/plain") -> None:
        pages.get(Form.of(accept, ""))

    for _ in range(500):
        scrape()
    assert len(written) == BURST_PAGES
    now += 2 / PAGES_PER_SECOND
    for _ in range(500):
        scrape()
    assert len(written) == BURST_PAGES + 2
    for turn in range(500):
        scrape(("text/plain", "application/openmetrics-text")[turn % 2])
    assert len(written) == BURST_PAGES + 3, "another form is written at once, and not for every change"


def with_metrics_at(port: int) -> Settings:
    return SETTINGS.model_copy(update={"metrics_address": f"127.0.0.1:{port}"})
