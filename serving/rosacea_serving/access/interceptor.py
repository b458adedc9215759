"""Before every call: whoever may not make it is refused before a byte of the request is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from ..caller import CALLER
from ..interceptor import parse, parse_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from ..caller import Context
    from .door import Door

    Handler = Any      # grpc.RpcMethodHandler, whose stubs know only the synchronous kind


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Goes behind the CallInterceptor, which turns what is raised here into statuses and hands requests on as bytes."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler = await continuation(details)
        if handler is None:
            return None
        method = str(details.method)
        coding = {"request_deserializer": bytes, "response_serializer": handler.response_serializer}
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(self._both_streaming(handler, method), **coding)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._streaming(handler, method), **coding)
        return grpc.unary_unary_rpc_method_handler(self._unary(handler, method), **coding)

    def _unary(self, handler: Handler, method: str) -> Callable[[bytes, Context], Awaitable[Any]]:
        async def answer(data: bytes, context: Context) -> Any:
            caller, leave = await self._door.admit(method, context, streaming=False)
            CALLER.set(caller)
            try:
                return await handler.unary_unary(parse(handler, data), context)
            finally:
                leave()

        return answer

    def _streaming(self, handler: Handler, method: str) -> Callable[[bytes, Context], AsyncIterator[Any]]:
        async def answer(data: bytes, context: Context) -> AsyncIterator[Any]:
            caller, leave = await self._door.admit(method, context, streaming=True)
            CALLER.set(caller)
            try:
                async for message in handler.unary_stream(parse(handler, data), context):
                    yield message
            finally:
                leave()

        return answer

    def _both_streaming(
        self, handler: Handler, method: str
    ) -> Callable[[AsyncIterator[bytes], Context], AsyncIterator[Any]]:
        async def answer(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
            caller, leave = await self._door.admit(method, context, streaming=True)
            CALLER.set(caller)
            try:
                async for message in handler.stream_stream(parse_all(handler, requests), context):
                    yield message
            finally:
                leave()

        return answer
