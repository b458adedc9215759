"""OpenTelemetry traces of calls and jobs. Needs `rosacea[otel]`; imported only if enabled.

A call's span continues the trace that its caller began (W3C `traceparent` in the metadata). A job serves images of
several calls: its span stands in the trace of the first and has a link to each, and in each call's trace `queue` tells
how long its images had waited for the job. Spans hold counts, names of models and the request id, never what was
asked for.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from rosacea_client.rpc.channels import channel_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import grpc
    from opentelemetry.trace import Span

SERVICE_NAME = "rosacea"
NANOSECONDS = 10**9
EXPORT_SECONDS = 2.0  # after which a collector that does not answer is given up
# Statuses that are the service's doing, as OpenTelemetry's conventions have it.
SERVER_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


class ServerTracing:
    """Starts the spans of calls. `export_remaining` exports those that are left."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._propagator = TraceContextTextMapPropagator()
        self.tracer = provider.get_tracer("rosacea_serving")

    def begin(self, method: str, request_id: str, metadata: Iterable[tuple[str, str | bytes]]) -> CallTrace | None:
        """Start the span of a call; None if it is not sampled."""
        carrier = {name: value for name, value in metadata if isinstance(value, str)}
        span = self.tracer.start_span(
            method,
            context=self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.method": method, "rosacea.request_id": request_id},
        )
        return CallTrace(self, span) if span.is_recording() else None

    def export_remaining(self) -> None:
        """Export the remaining spans and end tracing; blocks for some seconds if the collector does not answer."""
        self._provider.shutdown()


class CallTrace:
    """The span of a traced call."""

    def __init__(self, tracing: ServerTracing, span: Span) -> None:
        self._tracing = tracing
        self.span = span

    @property
    def id(self) -> str:
        """The trace id as logs show it."""
        return f"{self.span.get_span_context().trace_id:032x}"

    def end(self, code: grpc.StatusCode) -> None:
        self.span.set_attribute("rpc.grpc.status_code", code.name)
        if code.name in SERVER_FAULTS:
            self.span.set_status(Status(StatusCode.ERROR, code.name))
        self.span.end()

    @contextmanager
    def job(self, waits: Mapping[CallTrace, float], model: str, images: int) -> Iterator[Span]:
        """Context manager for the span of a job, a child of this call's span and linked to all calls of the job;
        records the seconds that each call waited."""
        now = time.time_ns()
        for call, seconds in waits.items():
            call.waited(now - int(seconds * NANOSECONDS), now)
        with self._tracing.tracer.start_as_current_span(
            "job",
            context=set_span_in_context(self.span),
            links=[Link(call.span.get_span_context()) for call in waits],
            attributes={"rosacea.model": model, "rosacea.batch_size": images},
        ) as span:
            yield span

    def waited(self, start: int, end: int) -> None:
        """Record queue time of some images between two wall-clock times in nanoseconds."""
        span = self._tracing.tracer.start_span("queue", context=set_span_in_context(self.span), start_time=start)
        span.end(end)


def export_to(endpoint: str, ratio: float) -> ServerTracing:
    """Export traces by OTLP over gRPC, sampling this fraction of those that no caller began."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    provider = TracerProvider(
        sampler=ParentBasedTraceIdRatio(ratio), resource=Resource.create({"service.name": SERVICE_NAME})
    )
    exporter = OTLPSpanExporter(
        endpoint,
        insecure=endpoint.startswith("http:"),
        timeout=EXPORT_SECONDS,
        # No keepalive: collectors hang up on pings that come more often than every five minutes.
        channel_options=tuple(channel_options(urlsplit(endpoint).netloc, keepalive=False)),  # type: ignore[arg-type]  # says that all are texts
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return ServerTracing(provider)
