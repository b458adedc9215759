"""OpenTelemetry spans of calls, with context propagated to the service. Needs `rosacea[otel]`.

    with FaceClient(tracing=Tracing()) as client:       # with the provider that the program has set up
        client.generate([7], class_index=2)

An `AsyncFaceClient` takes the same `Tracing`. Imported only by those who want it: a client without one pays nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import grpc.aio
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.trace import Span, TracerProvider


class Tracing(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Traces every call from its start to its last message."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("rosacea_client", tracer_provider=provider)
        self._propagator = TraceContextTextMapPropagator()
        self._ending: set[asyncio.Task[None]] = set()

    def awaited(self) -> list[grpc.aio.ClientInterceptor]:
        """Interceptors for a grpc.aio channel, one for each kind of call."""
        return [AwaitedAnswers(self), AwaitedStreams(self)]

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return self._traced(continuation, details, request)

    def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return self._traced(continuation, details, request)

    def _traced(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        span, context = self._begin(details.method)
        metadata = [*(details.metadata or ()), *context.items()]
        call = continuation(Details.of(details, metadata), request)
        call.add_done_callback(lambda call: _end(span, call.code()))
        return call

    async def traced(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """The grpc.aio call that `continuation` starts, traced."""
        span, context = self._begin(details.method.decode() if isinstance(details.method, bytes) else details.method)
        metadata = grpc.aio.Metadata(*(details.metadata or ()), *context.items())
        call = await continuation(details._replace(metadata=metadata), request)
        ending = asyncio.create_task(_end_when_done(span, call))
        self._ending.add(ending)  # until then the loop alone would not keep it
        ending.add_done_callback(self._ending.discard)
        return call

    def _begin(self, path: str) -> tuple[Span, dict[str, str]]:
        """Start a span; returns it with the metadata that makes it the parent of the service's spans."""
        method = path.removeprefix("/")
        attributes = {"rpc.system": "grpc", "rpc.method": method}
        span = self._tracer.start_span(method, kind=SpanKind.CLIENT, attributes=attributes)
        context: dict[str, str] = {}
        self._propagator.inject(context, trace.set_span_in_context(span))
        return span, context


class AwaitedAnswers(grpc.aio.UnaryUnaryClientInterceptor):
    """Traces asyncio unary calls."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._tracing.traced(continuation, client_call_details, request)


class AwaitedStreams(grpc.aio.UnaryStreamClientInterceptor):
    """Traces asyncio streams."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._tracing.traced(continuation, client_call_details, request)


class Details(NamedTuple):
    """gRPC client call details with replaced metadata."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any

    @classmethod
    def of(cls, details: Any, metadata: Any) -> Details:
        """Copy call details with other metadata."""
        return cls(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready, details.compression
        )


async def _end_when_done(span: Span, call: Any) -> None:
    code = grpc.StatusCode.CANCELLED  # where the loop ends before the call
    try:
        code = await call.code()
    finally:
        _end(span, code)


def _end(span: Span, code: grpc.StatusCode) -> None:
    span.set_attribute("rpc.grpc.status_code", code.name)
    if code is not grpc.StatusCode.OK:
        span.set_status(Status(StatusCode.ERROR, code.name))
    span.end()
