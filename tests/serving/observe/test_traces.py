"""OpenTelemetry: one trace from the client to the job that drew its image, and nothing where it is off."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from rosacea.v1 import faces_pb2 as pb
from rosacea_client.client import FaceClient
from rosacea_client.errors import InvalidRequest
from rosacea_serving.settings import Settings

from ...waiting import HANG_SECONDS, wait_for
from ..hosted import hosted

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

pytest.importorskip("opentelemetry.sdk", reason="needs rosacea[otel]")


class Traced:
    """A provider whose spans can be looked at."""

    def __init__(self, ratio: float = 1.0) -> None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

        self.exporter: InMemorySpanExporter = InMemorySpanExporter()
        self.provider: TracerProvider = TracerProvider(sampler=ParentBasedTraceIdRatio(ratio))
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def spans(self, name: str) -> list[Any]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


def serving_tracing(traced: Traced) -> Any:
    from rosacea_serving.observe.tracing import ServerTracing

    return ServerTracing(traced.provider)


def client_tracing(traced: Traced) -> Any:
    from rosacea_client.rpc.tracing import Tracing

    return Tracing(traced.provider)


METHOD = "rosacea.v1.FaceService/GenerateFaces"
STREAM = "rosacea.v1.FaceService/StreamFaces"


def test_one_trace_from_the_client_through_the_queue_to_the_job() -> None:
    client_side, service_side = Traced(), Traced()
    with (
        hosted(tracing=serving_tracing(service_side)) as service,
        FaceClient(service.gateway.address, tracing=client_tracing(client_side)) as client,
    ):
        client.generate([1, 2])

    (sent,) = client_side.spans(METHOD)
    (call,) = service_side.spans(METHOD)
    (queue,), (job,) = service_side.spans("queue"), service_side.spans("job")
    assert {span.context.trace_id for span in (sent, call, queue, job)} == {sent.context.trace_id}
    assert (call.parent.span_id, queue.parent.span_id, job.parent.span_id) == (
        sent.context.span_id,
        call.context.span_id,
        call.context.span_id,
    )
    assert [link.context.span_id for link in job.links] == [call.context.span_id]
    assert job.attributes["rosacea.batch_size"] == 2
    assert sent.start_time <= call.start_time <= job.start_time <= job.end_time <= call.end_time <= sent.end_time


def test_a_job_for_several_calls_has_a_link_to_each() -> None:
    traced = Traced()
    with hosted(tracing=serving_tracing(traced)) as service:
        service.workers.paused = True
        requests = [pb.GenerateFacesRequest(spec=pb.FaceSpec(seeds=pb.Seeds(values=[seed]))) for seed in range(4)]
        futures = [service.stub.GenerateFaces.future(request, timeout=HANG_SECONDS) for request in requests]
        depth, labels = "rosacea_queue_depth", {"model": "demo", "lane": "interactive"}
        wait_for(lambda: service.gateway.metrics.registry.get_sample_value(depth, labels) == 3)
        service.workers.paused = False
        for future in futures:
            future.result()

    calls = {span.context.span_id for span in traced.spans(METHOD)}
    jobs = traced.spans("job")
    assert len(calls) == 4 and len(jobs) == 2, "the first goes alone, the others together"
    assert {link.context.span_id for job in jobs for link in job.links} == calls
    assert {span.parent.span_id for span in traced.spans("queue")} == calls


def test_a_stream_and_a_failed_call_are_traced_to_their_end() -> None:
    client_side, service_side = Traced(), Traced()
    with hosted(tracing=serving_tracing(service_side)) as service:
        service.workers.poisoned = {13}
        with FaceClient(service.gateway.address, tracing=client_tracing(client_side)) as client:
            list(client.stream(range(5)))
            with pytest.raises(Exception, match="NaN"):
                client.generate([13])
            with pytest.raises(InvalidRequest):
                client.generate([1], model="models/demo", truncation_cutoff=99)

    for side in (client_side, service_side):
        (stream,), calls = side.spans(STREAM), side.spans(METHOD)
        assert stream.attributes["rpc.grpc.status_code"] == "OK"
        codes = [span.attributes["rpc.grpc.status_code"] for span in calls]
        assert codes[0] == "INTERNAL" and set(codes[1:]) <= {"INVALID_ARGUMENT"}
        assert calls[0].status.status_code.name == "ERROR"


def test_what_its_caller_does_not_sample_leaves_no_span() -> None:
    client_side, service_side = Traced(ratio=0.0), Traced()
    with (
        hosted(tracing=serving_tracing(service_side)) as service,
        FaceClient(service.gateway.address, tracing=client_tracing(client_side)) as client,
    ):
        client.generate([1])

    assert client_side.exporter.get_finished_spans() == ()
    assert service_side.exporter.get_finished_spans() == ()


def test_spans_hold_nothing_of_what_was_asked_for() -> None:
    traced, canary = Traced(), 3_141_592_653
    with hosted(tracing=serving_tracing(traced)) as service:
        request = pb.GenerateFacesRequest(spec=pb.FaceSpec(seeds=pb.Seeds(values=[canary])))
        metadata = (("authorization", "Bearer canary-key"), ("x-request-id", "id-1"))
        service.stub.GenerateFaces(request, metadata=metadata, timeout=120)

    told = "".join(span.to_json() for span in traced.exporter.get_finished_spans())
    assert "id-1" in told
    assert str(canary) not in told and "canary-key" not in told


def test_a_broken_traceparent_begins_a_trace_of_its_own() -> None:
    traced = Traced()
    with hosted(tracing=serving_tracing(traced)) as service:
        for value in ("nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "a" * 5000):
            service.stub.GetModel(pb.GetModelRequest(), metadata=(("traceparent", value),), timeout=120)

    assert len({span.context.trace_id for span in traced.exporter.get_finished_spans()}) == 3


@pytest.mark.parametrize("module", ["rosacea_serving.gateway", "rosacea_client.client", "rosacea_serving.cli"])
def test_nothing_of_it_is_imported_where_it_is_off(module: str) -> None:
    probe = f"import sys, {module}; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"

    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_an_endpoint_is_one() -> None:
    with pytest.raises(ValueError, match="an endpoint must be http://HOST:PORT"):
        Settings.read({"traces_endpoint": "collector:4317"})


def test_a_collector_that_is_not_there_fails_no_call() -> None:
    from ..hosted import SETTINGS

    settings = SETTINGS.model_copy(update={"traces_endpoint": "http://127.0.0.1:9", "grace_seconds": 1.0})
    with hosted(settings) as service:
        request = pb.GenerateFacesRequest(spec=pb.FaceSpec(seeds=pb.Seeds(values=[1])))
        _, call = service.stub.GenerateFaces.with_call(request, timeout=120)

    assert call.code() is grpc.StatusCode.OK


def test_spans_go_to_a_collector_on_this_machine_past_any_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc", reason="needs rosacea[otel]")
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

    from rosacea_serving.observe import tracing as tracing_module
    from rosacea_serving.observe.tracing import export_to

    names: list[str] = []

    class Collector(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            names.extend(span.name for each in request.resource_spans for of in each.scope_spans for span in of.spans)
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Collector(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(tracing_module, "EXPORT_SECONDS", HANG_SECONDS)
    try:
        tracing = export_to(f"http://127.0.0.1:{port}", 1.0)
        tracing.tracer.start_span("seen").end()
        tracing.export_remaining()
    finally:
        server.stop(None).wait()

    assert names == ["seen"]
