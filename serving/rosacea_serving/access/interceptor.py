"""Interceptor that refuses unauthorised calls before a byte of the request is read."""

from __future__ import annotations

from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from rosacea_contract.errors import Unauthenticated

from ..calls.caller import ADDRESS, CALLER
from ..calls.dispatch import WrappingInterceptor, method_handler
from ..calls.interceptor import parse, parse_all
from ..calls.receiving import all_received, received
from ..connections.strangers import MOST_CALLS, Refusals, Shares

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from ..calls.caller import Context
    from ..calls.receiving import Incoming
    from .door import Door

    Handler = Any  # grpc.RpcMethodHandler, whose stubs know only the synchronous kind


class AccessInterceptor(WrappingInterceptor):
    """Authenticates and authorises each call. It runs inside CallInterceptor, which turns its errors into statuses."""

    def __init__(self, door: Door) -> None:
        super().__init__()
        self._door = door
        self._refusals = Refusals()
        self._strangers = Shares("calls of callers without credentials", MOST_CALLS)

    def _wrapped(self, path: str, handler: Handler) -> Handler:
        streaming = self._both_streaming if handler.request_streaming else self._streaming
        wrap = streaming if handler.response_streaming else self._unary
        return method_handler(
            handler,
            wrap(handler, path),
            request_deserializer=_unread,
            response_serializer=handler.response_serializer,
        )

    def _unary(self, handler: Handler, method: str) -> Callable[[bytes | Incoming, Context], Awaitable[Any]]:
        async def answer(request: bytes | Incoming, context: Context) -> Any:
            async with self._admitted(method, context, streaming=False) as known:
                return await handler.unary_unary(parse(handler, await received(request, known=known)), context)

        return answer

    def _streaming(self, handler: Handler, method: str) -> Callable[[bytes | Incoming, Context], AsyncIterator[Any]]:
        async def answer(request: bytes | Incoming, context: Context) -> AsyncIterator[Any]:
            async with self._admitted(method, context, streaming=True) as known:
                message = parse(handler, await received(request, known=known))
                answering = handler.unary_stream(message, context)
                del message  # this frame lasts as long as the call
                async for each in answering:
                    yield each

        return answer

    def _both_streaming(self, handler: Handler, method: str) -> Callable[[Incoming, Context], AsyncIterator[Any]]:
        async def answer(requests: Incoming, context: Context) -> AsyncIterator[Any]:
            async with self._admitted(method, context, streaming=True) as known:
                messages = parse_all(handler, all_received(requests, known=known))
                async for each in handler.stream_stream(messages, context):
                    yield each

        return answer

    @asynccontextmanager
    async def _admitted(self, method: str, context: Context, *, streaming: bool) -> AsyncIterator[bool]:
        """Context manager around an admitted call; yields whether its caller is authenticated."""
        try:
            caller, leave = await self._door.admit(method, context, streaming)
        except Unauthenticated:
            await self._refusals.hold(context.peer())
            raise
        CALLER.set(caller)
        known = caller.kind != ADDRESS  # an address shows nothing
        try:
            with nullcontext() if known else self._strangers.one(context.peer()):
                yield known
        finally:
            leave()


def _unread(request: bytes | Incoming) -> bytes | Incoming:
    return request
