"""HTTP/2 as an attacker speaks it: frames by hand, so that none of a library's good manners are in the way."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Self

import hpack

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
FRAME_BYTES = 2**14  # that a receiver must take
SEND_SECONDS = 5.0
NO_FLAGS = 0


def frame(kind: int, flags: int = NO_FLAGS, stream: int = 0, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(**values: int) -> bytes:
    """A SETTINGS frame; values by their names in RFC 9113."""
    numbers = {"header_table_size": 1, "enable_push": 2, "initial_window_size": 4, "max_frame_size": 5}
    pairs = (struct.pack(">HI", numbers[name], value) for name, value in values.items())
    return frame(SETTINGS, payload=b"".join(pairs))


def window(stream: int, more: int) -> bytes:
    return frame(WINDOW, stream=stream, payload=struct.pack(">I", more))


def message(data: bytes, length: int | None = None) -> bytes:
    """A gRPC message, or the beginning of one that says to be longer."""
    return b"\0" + struct.pack(">I", len(data) if length is None else length) + data


class Attacker:
    """A connection of somebody who shows no credentials. Every send raises OSError once the service has hung up."""

    def __init__(self, port: int, **values: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=SEND_SECONDS)
        self._values = values
        self._next = 1
        self._coder = hpack.Encoder()
        self._credit: dict[int, int] = {0: 65535}
        self._first = 65535
        self._seen = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def greet(self) -> Self:
        """Begin the connection, and hear the service's settings."""
        self.send(PREFACE + settings(**self._values))
        self.listen(0.2)
        return self

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def headers(self, path: str, extra: Iterable[tuple[str, str]] = (), flags: int = END_HEADERS) -> tuple[int, bytes]:
        """The next stream and the frame that opens it."""
        stream, self._next = self._next, self._next + 2
        lines = [
            (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"),
            ("content-type", "application/grpc"), ("te", "trailers"), *extra,
        ]  # fmt: skip
        return stream, frame(HEADERS, flags, stream, self._coder.encode(lines))

    def data(self, stream: int, data: bytes, patience: float = 1.0) -> None:
        """Send as much of it as the service takes; give up where it takes no more for so long."""
        while data:
            room = min(self._credit[0], self._credit.get(stream, self._first), FRAME_BYTES, len(data))
            if room <= 0:
                if not self.listen(patience):
                    return
                continue
            self.send(frame(DATA, stream=stream, payload=data[:room]))
            self._credit[0] -= room
            self._credit[stream] = self._credit.get(stream, self._first) - room
            data = data[room:]

    def listen(self, seconds: float) -> bool:
        """Take in what is there, as far as it concerns flow control; whether anything came. EOFError at the end."""
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(2**18)
        except TimeoutError:
            return False
        finally:
            self.socket.settimeout(SEND_SECONDS)
        if not data:
            raise EOFError
        self._seen += data
        while len(self._seen) >= 9 + (length := int.from_bytes(self._seen[:3], "big")):
            self._take(self._seen[3], self._seen[4], int.from_bytes(self._seen[5:9], "big"), self._seen[9 : 9 + length])
            self._seen = self._seen[9 + length :]
        return True

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == WINDOW:
            self._credit[stream] = self._credit.get(stream, self._first) + int.from_bytes(payload, "big")
        elif kind == SETTINGS and not flags & ACK:
            for number, value in struct.iter_unpack(">HI", payload):
                if number == 4:
                    self._first = value
            self.send(frame(SETTINGS, ACK))
        elif kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, payload=payload))
