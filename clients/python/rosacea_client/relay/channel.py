"""A channel whose calls run in the helper process, with the part of `grpc.Channel` that our stubs use."""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from typing import TYPE_CHECKING, Any, NoReturn, Self

import grpc

from rosacea_client.relay import wire
from rosacea_client.relay.helper import HELPER

if TYPE_CHECKING:
    from collections.abc import Callable

ENDED = "the helper process that makes the calls of this process has ended"


class RelayChannel:
    """Channel to `target`; `tls` holds root certificates, private key and certificate chain as PEM, or None each."""

    def __init__(
        self, target: str, options: list[tuple[str, Any]], tls: tuple[bytes | None, bytes | None, bytes | None] | None
    ) -> None:
        self._way = {"target": target, "options": options, "tls": tls}
        self._number = HELPER.register()
        self._calls: weakref.WeakSet[RelayedCall] = weakref.WeakSet()

    def unary_unary(
        self, method: str, request_serializer: Callable[..., bytes], response_deserializer: Callable[..., Any],
        _registered_method: bool = False,
    ) -> UnaryMethod:  # fmt: skip
        """As `grpc.Channel.unary_unary`."""
        return UnaryMethod(self, method, request_serializer, response_deserializer)

    def unary_stream(
        self, method: str, request_serializer: Callable[..., bytes], response_deserializer: Callable[..., Any],
        _registered_method: bool = False,
    ) -> StreamMethod:  # fmt: skip
        """As `grpc.Channel.unary_stream`."""
        return StreamMethod(self, method, request_serializer, response_deserializer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel: its calls end with CANCELLED."""
        for call in list(self._calls):
            call.cancel()
        with contextlib.suppress(OSError), HELPER.link() as link:
            wire.send(link, wire.MESSAGE, wire.to_json({"channel": self._number, "method": None}))
        HELPER.release(self._number)

    def begin(self, method: str, request: bytes, timeout: float | None, metadata: Any) -> RelayedCall:
        """Start a call in the helper."""
        ask = {"channel": self._number, "way": self._way, "method": method, "timeout": timeout,
               "metadata": list(metadata or ())}  # fmt: skip
        try:
            link = HELPER.link()
            wire.send(link, wire.MESSAGE, wire.to_json(ask))
            wire.send(link, wire.MESSAGE, request)
        except OSError as error:
            raise RelayedError(grpc.StatusCode.UNAVAILABLE, f"{ENDED}: {error}") from None
        call = RelayedCall(link)
        self._calls.add(call)
        return call


class _Method:
    def __init__(
        self, channel: RelayChannel, method: str, serialize: Callable[..., bytes], deserialize: Callable[..., Any]
    ) -> None:
        self._channel, self._method = channel, method
        self._serialize, self._deserialize = serialize, deserialize

    def _begin(self, request: Any, timeout: float | None, metadata: Any, more: dict[str, Any]) -> RelayedCall:
        assert not any(more.values()), more
        call = self._channel.begin(self._method, self._serialize(request), timeout, metadata)
        call.deserialize = self._deserialize
        return call


class StreamMethod(_Method):
    """A server-streaming method."""

    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **more: Any) -> RelayedCall:
        return self._begin(request, timeout, metadata, more)


class UnaryMethod(_Method):
    """A unary method."""

    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **more: Any) -> Any:
        return self.with_call(request, timeout, metadata, **more)[0]

    def with_call(
        self, request: Any, timeout: float | None = None, metadata: Any = None, **more: Any
    ) -> tuple[Any, RelayedCall]:
        """Return the answer and its call."""
        call = self._begin(request, timeout, metadata, more)
        try:
            answers = list(call)
        finally:
            call.cancel()
        if len(answers) != 1:
            raise RelayedError(grpc.StatusCode.INTERNAL, f"{self._method} must have one answer, got {len(answers)}")
        return answers[0], call


class RelayedCall:
    """A call made by the helper: an iterator over its messages with the methods of `grpc.Call`."""

    deserialize: Callable[..., Any]

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._incoming = link.makefile("rb")
        self._lock = threading.Lock()
        self._status: RelayedError | None = None
        self._callbacks: list[Callable[[Any], None]] = []
        self._cancelled = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if self._status is not None:
            self._raise(self._status)
        try:
            kind, payload = wire.receive(self._incoming)
        except (OSError, ValueError) as error:  # ValueError: closed meanwhile
            self._raise(self._lost(error))
        if kind == wire.END:
            self._raise(RelayedError.read(payload))
        try:
            return self.deserialize(payload)
        except Exception:  # as gRPC does it, of whose kinds of errors there is no list
            self.cancel()
            self._raise(RelayedError(grpc.StatusCode.INTERNAL, "Exception deserializing response!"))

    def _lost(self, error: Exception) -> RelayedError:
        if self._cancelled:
            return RelayedError(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")
        return RelayedError(grpc.StatusCode.UNAVAILABLE, f"{ENDED}: {error}")

    def _raise(self, status: RelayedError) -> NoReturn:
        if self._status is None:
            self._end(status)
        if status.code() is grpc.StatusCode.OK:
            raise StopIteration
        raise status

    def _end(self, status: RelayedError) -> None:
        with self._lock:
            self._status = status
            callbacks, self._callbacks = self._callbacks, []
        self._close()
        for callback in callbacks:
            callback(self)

    def _close(self) -> None:
        self._incoming.close()
        self._link.close()

    def __del__(self) -> None:
        self._close()

    def cancel(self) -> bool:
        """Cancel the call, if it has not ended."""
        if self._status is not None:
            return False
        self._cancelled = True
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)
        return True

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback` with this call once it has ended."""
        with self._lock:
            if self._status is None:
                self._callbacks.append(callback)
                return
        callback(self)

    def code(self) -> grpc.StatusCode:
        """The status code; UNKNOWN while the call is in progress."""
        return self._status.code() if self._status else grpc.StatusCode.UNKNOWN


class RelayedError(grpc.RpcError):
    """The error of a failed call, with the methods of gRPC's errors."""

    def __init__(
        self, code: grpc.StatusCode, details: str, initial_metadata: Any = (), trailing_metadata: Any = ()
    ) -> None:
        super().__init__(f"{code.name}: {details}")
        self._code, self._details = code, details
        self._initial_metadata, self._trailing_metadata = initial_metadata, trailing_metadata

    @classmethod
    def read(cls, payload: bytes) -> RelayedError:
        """Parse the helper's report of a call's end."""
        status = wire.from_json(payload)
        pairs = (status[name] for name in ("initial_metadata", "trailing_metadata"))
        return cls(grpc.StatusCode[status["code"]], status["details"], *pairs)

    def code(self) -> grpc.StatusCode:
        """The status."""
        return self._code

    def details(self) -> str:
        """The status message."""
        return self._details

    def initial_metadata(self) -> Any:
        """Metadata received before the first message, as (key, value) pairs."""
        return self._initial_metadata

    def trailing_metadata(self) -> Any:
        """Metadata received with the status, as (key, value) pairs."""
        return self._trailing_metadata

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback` immediately, since the call has ended."""
        callback(self)

    def result(self) -> NoReturn:
        """Raise this error."""
        raise self
