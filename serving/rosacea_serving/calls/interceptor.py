"""Interceptor that turns exceptions into gRPC statuses, and the functions with which interceptors parse requests."""

from __future__ import annotations

import logging
import traceback
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from rosacea_contract.errors import FaceError, InvalidRequest
from rosacea_contract.reasons import Reason

from ..errors import reason_of, to_status
from ..observe.record import REQUEST_ID, current_call
from .dispatch import WrappingInterceptor, method_handler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractContextManager

    from prometheus_client import Counter

    from .receiving import Incoming
    from .under_way import Calls

    Context = grpc.aio.ServicerContext[Any, Any]
    Door = Callable[[], AbstractContextManager[None]]
    Handler = Any  # grpc.RpcMethodHandler, whose stubs know only the synchronous kind

OURS = "/rosacea."

log = logging.getLogger(__name__)


class CallInterceptor(WrappingInterceptor):
    """Counts calls and turns exceptions into statuses with google.rpc details.

    It also parses requests itself, because grpc answers a malformed message with UNKNOWN and the name of a class. So it
    does for the services that are not ours, whose calls it does not count: probes are answered while the door closes.
    """

    def __init__(self, calls: Calls, rejected: Counter) -> None:
        super().__init__()
        self._calls = calls
        self._rejected = rejected

    def _wrapped(self, path: str, handler: Handler) -> Handler:
        door = self._calls.one if path.startswith(OURS) else nullcontext
        if handler.request_streaming:
            return method_handler(
                handler, self._both_streaming(handler), response_serializer=handler.response_serializer
            )
        if handler.response_streaming:
            return method_handler(
                handler, self._streaming(handler, door), response_serializer=handler.response_serializer
            )
        return method_handler(handler, self._unary(handler, door), response_serializer=serializer(handler))

    def _unary(self, handler: Handler, door: Door) -> Callable[[bytes, Context], Awaitable[Any]]:
        async def answer(data: bytes, context: Context) -> Any:
            try:
                with door():
                    return await handler.unary_unary(parse(handler, data), context)
            except Exception as error:
                data = b""  # the frame that holds it stays with the error's traceback
                await self._abort(context, error)

        return answer

    def _streaming(self, handler: Handler, door: Door) -> Callable[[bytes, Context], AsyncIterator[Any]]:
        async def answer(data: bytes, context: Context) -> AsyncIterator[Any]:
            try:
                with door():
                    async for message in handler.unary_stream(parse(handler, data), context):
                        yield message
            except Exception as error:
                data = b""  # the frame that holds it stays with the error's traceback
                await self._abort(context, error)

        return answer

    def _both_streaming(self, handler: Handler) -> Callable[[Incoming, Context], AsyncIterator[Any]]:
        async def answer(requests: Incoming, context: Context) -> AsyncIterator[Any]:
            try:
                async for message in handler.stream_stream(requests, context):  # the door receives and parses them
                    yield message
            except Exception as error:
                await self._abort(context, error)

        return answer

    async def _abort(self, context: Context, error: Exception) -> NoReturn:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        status = to_status(error)
        if not isinstance(error, FaceError):
            log.error("a call failed", exc_info=error)
        self._rejected.labels(reason_of(error)).inc()
        # grpc holds on to the error until the garbage collector comes; a large request must not stay with it.
        traceback.clear_frames(error.__traceback__)
        sent: Any = rpc_status.to_status(status)
        call = current_call()
        ids = ((REQUEST_ID, call.id),) if call else ()
        await context.abort_with_status(sent._replace(trailing_metadata=(*sent.trailing_metadata, *ids)))
        raise AssertionError("abort always raises")


def parse(handler: Handler, data: bytes) -> Any:
    """Parse a request; InvalidRequest if the bytes are not a valid message."""
    try:
        return handler.request_deserializer(data)
    except DecodeError as error:
        raise InvalidRequest("the request is not a valid protobuf message", reason=Reason.MALFORMED_REQUEST) from error


async def parse_all(handler: Handler, requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    """Parse the requests of a stream, each when it is asked for, since a call may be refused before."""
    async for data in requests:
        yield parse(handler, data)


def serializer(handler: Handler) -> Callable[[Any], bytes]:
    """Serialiser for answers; large ones arrive as bytes, already serialised off the event loop."""
    return lambda answer: answer if isinstance(answer, bytes) else handler.response_serializer(answer)
