"""Interceptor that counts, times, logs and traces every call; only ReceivingInterceptor is further out."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import grpc

from ..observe.grpc_metrics import UNKNOWN
from ..observe.record import REQUEST_ID, CallRecord, begin_call, request_id
from .dispatch import WrappingInterceptor, method_handler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from prometheus_client import Gauge

    from ..observe.grpc_metrics import GrpcMetrics, Method
    from ..observe.tracing import ServerTracing
    from .receiving import Incoming

    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = Any  # grpc.RpcMethodHandler, whose stubs know only the synchronous kind

OURS = "rosacea."
TIMERS_DIFFER_SECONDS = 0.05  # how long before the deadline a reset still counts as the deadline
STATUS = {int(code.value[0]): code for code in grpc.StatusCode}

log = logging.getLogger("rosacea.access")


class WatchInterceptor(WrappingInterceptor):
    """Observes each call, including those that inner interceptors refuse."""

    def __init__(self, calls: GrpcMetrics, streams: Gauge, tracing: ServerTracing | None = None) -> None:
        super().__init__()
        self._calls = calls
        self._streams = streams
        self._tracing = tracing

    def _wrapped(self, path: str, handler: Handler) -> Handler:
        streaming = self._both_streaming if handler.request_streaming else self._streaming
        wrap = streaming if handler.response_streaming else self._unary
        return method_handler(
            handler,
            wrap(handler, self._calls.find(path)),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _unary(self, handler: Handler, method: Method) -> Callable[[Incoming, Context], Awaitable[Any]]:
        async def answer(request: Incoming, context: Context) -> Any:
            with self._watched(method, context):
                self._count(request, method)
                answering = handler.unary_unary(request, context)
                response = await answering
                self._calls.sent(method)
                return response

        return answer

    def _streaming(self, handler: Handler, method: Method) -> Callable[[Incoming, Context], AsyncIterator[Any]]:
        async def answer(request: Incoming, context: Context) -> AsyncIterator[Any]:
            with self._watched(method, context):
                self._count(request, method)
                answering = handler.unary_stream(request, context)
                async with aclosing(answering) as messages:
                    async for message in messages:
                        self._calls.sent(method)
                        yield message

        return answer

    def _both_streaming(self, handler: Handler, method: Method) -> Callable[[Incoming, Context], AsyncIterator[Any]]:
        async def answer(requests: Incoming, context: Context) -> AsyncIterator[Any]:
            with self._watched(method, context):
                self._count(requests, method)
                async with aclosing(handler.stream_stream(requests, context)) as messages:
                    async for message in messages:
                        self._calls.sent(method)
                        yield message

        return answer

    def _count(self, requests: Incoming, method: Method) -> None:
        requests.on_received = lambda: self._calls.received(method)

    @contextmanager
    def _watched(self, method: Method, context: Context) -> Iterator[None]:
        """Observe one call from its arrival to its status."""
        metadata = context.invocation_metadata() or ()
        record = CallRecord(id=request_id(metadata), method=method.path)
        begin_call(record)
        if self._tracing:
            record.trace = self._tracing.begin(record.method, record.id, metadata)
        context.set_trailing_metadata(((REQUEST_ID, record.id),))
        self._calls.started(method)
        started = time.perf_counter()
        code = grpc.StatusCode.UNKNOWN
        try:
            with self._streams.track_inprogress() if is_stream(method) else nullcontext():
                yield
            code = status_of(context)
        except (asyncio.CancelledError, GeneratorExit):
            code = why_cancelled(context)
            raise
        except grpc.aio.AbortError:
            code = status_of(context)
            raise
        finally:
            self._ended(method, record, code, time.perf_counter() - started)

    def _ended(self, method: Method, record: CallRecord, code: grpc.StatusCode, seconds: float) -> None:
        self._calls.handled(method, code, seconds)
        if record.trace:
            record.trace.end(code)
        # Probes come every few seconds and say nothing.
        level = logging.INFO if method.service.startswith(OURS) else logging.DEBUG
        if log.isEnabledFor(level):
            # As `log.log` does, but without a walk up the stack for a place in the code, which no line shows.
            extra = {"fields": access_fields(record, code, seconds)}
            log.handle(log.makeRecord(log.name, level, "", 0, "call", (), None, extra=extra))

    def _not_there(self, details: grpc.HandlerCallDetails) -> None:
        """Count and log a call of an unknown method, which grpc answers with UNIMPLEMENTED. The name comes from the
        caller and is not logged."""
        self._calls.started(UNKNOWN)
        self._calls.handled(UNKNOWN, grpc.StatusCode.UNIMPLEMENTED, 0.0)
        record = CallRecord(id=request_id(details.invocation_metadata or ()), method=UNKNOWN.path)
        log.info("call", extra={"fields": access_fields(record, grpc.StatusCode.UNIMPLEMENTED, 0.0)})


def is_stream(method: Method) -> bool:
    """Whether the method is a streaming method of FaceService."""
    return method.service.startswith(OURS) and method.type != "unary"


def access_fields(record: CallRecord, code: grpc.StatusCode, seconds: float) -> dict[str, object]:
    """The log fields of a call."""
    fields: dict[str, object] = {
        "method": record.method,
        "code": code.name,
        "images": record.images,
        "seconds": round(seconds, 6),
        "principal": record.principal_kind,
        "id": record.id,
    }
    return fields | {"trace": record.trace.id} if record.trace else fields


def status_of(context: Context) -> grpc.StatusCode:
    """The status set on a call; OK if none was set."""
    code: Any = context.code()
    if isinstance(code, grpc.StatusCode):
        return code
    return STATUS.get(code or 0, grpc.StatusCode.UNKNOWN)


def why_cancelled(context: Context) -> grpc.StatusCode:
    """DEADLINE_EXCEEDED if the call was cancelled because its deadline passed, CANCELLED if the client left; grpc
    cancels the handler in both cases.

    The client's timer starts first, so its reset can arrive a moment before the deadline that the service sees.
    """
    left = context.time_remaining()
    in_time = left is None or left > TIMERS_DIFFER_SECONDS
    return grpc.StatusCode.CANCELLED if in_time else grpc.StatusCode.DEADLINE_EXCEEDED
