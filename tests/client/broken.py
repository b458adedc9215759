"""An HTTP/2 server that answers a call as broken connections and proxies do, beside what a face service says."""

from __future__ import annotations

import socket
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Fault = "Callable[[h2.connection.H2Connection, int], None]"
GRPC = [(":status", "200"), ("content-type", "application/grpc")]


def reset(code: int) -> Callable[[h2.connection.H2Connection, int], None]:
    """RST_STREAM after the headers."""

    def fault(http: h2.connection.H2Connection, stream: int) -> None:
        http.send_headers(stream, GRPC)
        http.reset_stream(stream, code)

    return fault


def ended(data: bytes) -> Callable[[h2.connection.H2Connection, int], None]:
    """END_STREAM after some data, without trailers."""

    def fault(http: h2.connection.H2Connection, stream: int) -> None:
        http.send_headers(stream, GRPC)
        http.send_data(stream, data, end_stream=True)

    return fault


def page(status: int) -> Callable[[h2.connection.H2Connection, int], None]:
    """A page of HTML, as proxies have it for errors of their own."""

    def fault(http: h2.connection.H2Connection, stream: int) -> None:
        http.send_headers(stream, [(":status", str(status)), ("content-type", "text/html")])
        http.send_data(stream, b"<html>nginx</html>", end_stream=True)

    return fault


def no_grpc(http: h2.connection.H2Connection, stream: int) -> None:
    """HTTP 200 from something that is no gRPC service."""
    page(200)(http, stream)


class Broken:
    """Where it listens, and how many calls it has broken."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.calls = 0


@contextmanager
def broken(fault: Callable[[h2.connection.H2Connection, int], None]) -> Iterator[Broken]:
    """A server that answers every call with the fault."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        served = Broken("{}:{}".format(*server.getsockname()))

        def talk(raw: socket.socket) -> None:
            http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
            http.initiate_connection()
            with raw, suppress(OSError):  # a client that has its answer may be gone before we have sent all
                raw.sendall(http.data_to_send())
                while data := raw.recv(65536):
                    for event in http.receive_data(data):
                        if isinstance(event, h2.events.RequestReceived) and event.stream_id:
                            served.calls += 1
                            fault(http, event.stream_id)
                    raw.sendall(http.data_to_send())

        def accept() -> None:
            while True:
                try:
                    raw, _ = server.accept()
                except OSError:
                    return
                threads.append(Thread(target=talk, args=(raw,)))
                threads[-1].start()

        threads: list[Thread] = []
        accepting = Thread(target=accept)
        accepting.start()
        try:
            yield served
        finally:
            server.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in threads:
                thread.join(10)
