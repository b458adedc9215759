"""OpenTelemetry spans of calls, whose context goes along to the service. Needs `rosacea[otel]`.

    with FaceClient(tracing=Tracing()) as client: ...       # with the provider that the program has set up

Imported only by those who want it: a client without one pays nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.trace import Span, TracerProvider


class Tracing(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Makes a span of every call, from its start to its last message."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("rosacea_client", tracer_provider=provider)
        self._propagator = TraceContextTextMapPropagator()

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return self._traced(continuation, details, request)

    def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return self._traced(continuation, details, request)

    def _traced(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        method = details.method.removeprefix("/")
        attributes = {"rpc.system": "grpc", "rpc.method": method}
        span = self._tracer.start_span(method, kind=SpanKind.CLIENT, attributes=attributes)
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, trace.set_span_in_context(span))
        metadata = [*(details.metadata or ()), *carrier.items()]
        call = continuation(Details.of(details, metadata), request)
        call.add_done_callback(lambda call: _end(span, call))
        return call


class Details(NamedTuple):
    """What a call is sent with."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any

    @classmethod
    def of(cls, details: Any, metadata: Any) -> Details:
        """The same with other metadata."""
        return cls(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready, details.compression
        )


def _end(span: Span, call: Any) -> None:
    code = call.code()
    span.set_attribute("rpc.grpc.status_code", code.name)
    if code is not grpc.StatusCode.OK:
        span.set_status(Status(StatusCode.ERROR, code.name))
    span.end()
