"""Receives requests only after authentication, and those of unauthenticated callers a few at a time.

grpc sets aside memory for a whole message as soon as somebody waits for it, so that a hundred messages which are begun
and never ended cost as much as a hundred whole ones. A message that nobody waits for costs no more than the window of
its stream. So every call is taken as one whose messages are asked for: a call that is refused never receives its
request; and of the calls of strangers as many receive theirs at one time as fit into RECEIVED_BYTES. The others take
turns, a connection each; a turn ends soon where others wait, so that who dribbles or never ends holds up nobody.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from rosacea_contract.errors import InvalidRequest, Overloaded
from rosacea_contract.reasons import Reason

from ..connections.strangers import RETRY_SECONDS, TURN_SECONDS, Turns
from .dispatch import WrappingInterceptor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Container

    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = Any  # grpc.RpcMethodHandler, whose stubs know only the synchronous kind

RECEIVED_BYTES = 64 * 2**20  # of messages that are being received from strangers
OPEN_BYTES = 4096  # of a request that needs no credentials: probes are short
OPEN_PLACES = 2  # for those
READ_SECONDS = 20.0  # for a stranger's request, its turn included


@dataclass(frozen=True)
class Kind:
    """Limits for receiving one kind of request from unauthenticated callers."""

    turns: Turns
    seconds: float | None = READ_SECONDS  # for one request; None where a caller may wait between two of them
    most_bytes: int = 2**31  # beyond grpc's own limit for the port


class Incoming:
    """The requests of one call, received on demand."""

    def __init__(self, context: Context, kind: Kind) -> None:
        self._context = context
        self._kind = kind
        self.on_received: Callable[[], None] = lambda: None

    async def receive(self, *, known: bool) -> bytes | None:
        """The next request, None at the end. Raises Overloaded if an unauthenticated caller's request takes too long to
        arrive, InvalidRequest if a request is too large."""
        data = await (self._next() if known else self._receive_in_turn())
        if data is not None:
            self.on_received()
            if len(data) > self._kind.most_bytes:
                raise too_long(self._kind.most_bytes, len(data))
        return data

    async def _next(self) -> bytes | None:
        # Not by the iterator that grpc hands to a handler, which holds on to the last message.
        data: Any = await self._context.read()
        return None if data is grpc.aio.EOF else data

    async def _receive_in_turn(self) -> bytes | None:
        try:
            async with asyncio.timeout(self._kind.seconds), self._kind.turns.one(self._context.peer()):
                return await self._next()
        except TimeoutError:
            raise too_slow() from None


async def received(request: bytes | Incoming, *, known: bool) -> bytes:
    """Receive the only request of a call."""
    if isinstance(request, bytes):
        return request
    data = await request.receive(known=known)
    if data is None:
        raise InvalidRequest("a call must have a request", reason=Reason.MALFORMED_REQUEST)
    return data


async def all_received(requests: Incoming, *, known: bool) -> AsyncIterator[bytes]:
    """Receive the requests of a client stream."""
    while (more := await requests.receive(known=known)) is not None:
        yield more


class ReceivingInterceptor(WrappingInterceptor):
    """Outermost interceptor: hands inner ones an Incoming in place of a request, which the innermost must receive."""

    def __init__(self, max_request_bytes: int, open_paths: Container[str]) -> None:
        super().__init__()
        self._open_paths = open_paths  # of calls that need no credentials
        places = max(1, RECEIVED_BYTES // max_request_bytes)
        self._single = Kind(Turns(places))
        # Who streams requests must not keep others from sending theirs while it is silent.
        self._several = Kind(Turns(max(1, places // 4)), seconds=None)
        self._open = Kind(Turns(OPEN_PLACES), most_bytes=OPEN_BYTES)

    def _wrapped(self, path: str, handler: Handler) -> Handler:
        answer = self._answer(handler, self._kind(path, handler))
        return grpc.stream_stream_rpc_method_handler(answer, response_serializer=handler.response_serializer)

    def _kind(self, path: str, handler: Handler) -> Kind:
        if path in self._open_paths:
            return self._open
        return self._several if handler.request_streaming else self._single

    def _answer(self, handler: Handler, kind: Kind) -> Callable[[AsyncIterator[bytes], Context], AsyncIterator[Any]]:
        # grpc takes nothing for a generator that is not written as one.
        async def one(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
            yield await handler.unary_unary(Incoming(context, kind), context)

        async def many(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
            answer = handler.stream_stream if handler.request_streaming else handler.unary_stream
            async with aclosing(answer(Incoming(context, kind), context)) as messages:
                async for message in messages:
                    yield message

        return many if handler.response_streaming else one


def too_slow() -> Overloaded:
    message = f"a request must arrive within {READ_SECONDS:g} s, {TURN_SECONDS:g} s where others wait to send theirs"
    return Overloaded(message, reason=Reason.QUEUE_FULL, retry_after_seconds=RETRY_SECONDS)


def too_long(most: int, size: int) -> InvalidRequest:
    message = f"a request that needs no credentials must have at most {most} bytes, it has {size}"
    return InvalidRequest(message, reason=Reason.MALFORMED_REQUEST)
