"""Wraps the handlers of unary and streaming methods alike, for all interceptors."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Any  # grpc.RpcMethodHandler, whose stubs know only the synchronous kind
    Answer = Callable[[Any, Any], Any]


class WrappingInterceptor(grpc.aio.ServerInterceptor):
    """Base class of the interceptors: wraps the handler of each method once, on first use. Unknown method names, which
    callers may invent, are not kept."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}  # by path: the same for every call

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        details: grpc.HandlerCallDetails,
    ) -> Handler:
        path = str(details.method)
        if path not in self._handlers:
            handler = await continuation(details)
            if handler is None:
                self._not_there(details)
                return None
            self._handlers[path] = self._wrapped(path, handler)
        return self._handlers[path]

    @abstractmethod
    def _wrapped(self, path: str, handler: Handler) -> Handler:
        """Wrap one handler."""

    def _not_there(self, details: grpc.HandlerCallDetails) -> None:
        """Called for an unknown method, which grpc answers with UNIMPLEMENTED; does nothing unless overridden."""


def method_handler(handler: Handler, answer: Answer, **coding: Any) -> Handler:
    """A handler of the same kind of method as `handler`, with another behaviour and other (de)serialisers."""
    if handler.request_streaming:
        assert handler.response_streaming, "no call of ours streams requests alone"
        return grpc.stream_stream_rpc_method_handler(answer, **coding)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(answer, **coding)
    return grpc.unary_unary_rpc_method_handler(answer, **coding)
