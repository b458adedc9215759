"""gRPC calls of a client that runs no timer and reads only when told to, frame by frame."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from dataclasses import dataclass

import h2.config
import h2.connection
import h2.events
import h2.settings


@dataclass
class RawCall:
    """One call on a connection of its own."""

    socket: socket.socket
    http: h2.connection.H2Connection

    def read_until(self, *kinds: type[h2.events.Event]) -> h2.events.Event:
        """The first event of these kinds; raises ConnectionError if the server closes the connection before it."""
        while True:
            data = self.socket.recv(4096)
            if not data:
                raise ConnectionError(f"no {kinds[0].__name__} before the end of the connection")
            events = self.http.receive_data(data)
            self.socket.sendall(self.http.data_to_send())
            for event in events:
                if isinstance(event, kinds):
                    return event

    def read_to_the_end(self) -> None:
        """Read until the call has ended, with a status or without."""
        with self.socket, suppress(ConnectionError):
            self.read_until(h2.events.StreamEnded, h2.events.StreamReset)


def raw_call(port: int, path: str, message: bytes, timeout: str | None = None, window: int = 65_535) -> RawCall:
    """Send a request; timeout as the header grpc-timeout has it ("200m"), window in bytes for the answer."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=120)
    http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    http.local_settings = h2.settings.Settings(
        client=True, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
    )
    http.initiate_connection()
    headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x")]
    headers += [("content-type", "application/grpc"), ("te", "trailers")]
    if timeout is not None:
        headers.append(("grpc-timeout", timeout))
    http.send_headers(1, headers)
    http.send_data(1, b"\0" + struct.pack(">I", len(message)) + message, end_stream=True)
    raw.sendall(http.data_to_send())
    return RawCall(raw, http)
