"""The helper program: makes calls for a process that must not use gRPC. Started by `rosacea_client.relay.helper`.

`python -m rosacea_client.relay.process FD`, where FD is a unix socket over which it is handed the socket of each call.
It ends when the process that started it hangs up, or is gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from typing import Any

import grpc

from rosacea_client.relay import wire


class Channels:
    """Channels opened for the other process, by its numbers."""

    def __init__(self) -> None:
        self._open: dict[int, grpc.Channel] = {}
        self._lock = threading.Lock()

    def get(self, number: int, way: dict[str, Any]) -> grpc.Channel:
        """The channel with this number, opened at its first call."""
        with self._lock:
            if number not in self._open:
                self._open[number] = opened(way)
            return self._open[number]

    def close_channel(self, number: int) -> None:
        """Close a channel and its calls."""
        with self._lock:
            channel = self._open.pop(number, None)
        if channel is not None:
            channel.close()


def opened(way: dict[str, Any]) -> grpc.Channel:
    """Open a channel to the requested target."""
    options = [(name, value) for name, value in way["options"]]
    if way["tls"] is None:
        return grpc.insecure_channel(way["target"], options=options)
    return grpc.secure_channel(way["target"], grpc.ssl_channel_credentials(*way["tls"]), options=options)


def serve(control: socket.socket) -> None:
    """Serve calls until the other process ends."""
    channels = Channels()
    while True:
        more, handed, _, _ = socket.recv_fds(control, 1, 1)
        if not more:
            return
        link = socket.socket(fileno=handed[0])
        threading.Thread(target=relay, args=(link, channels), daemon=True).start()


def relay(link: socket.socket, channels: Channels) -> None:
    """Handle one socket: a call from request to status, or the closing of a channel."""
    with link, link.makefile("rb") as incoming:
        try:
            ask = wire.from_json(wire.receive(incoming)[1])
            if ask["method"] is None:
                channels.close_channel(ask["channel"])
            else:
                make_call(link, ask, wire.receive(incoming)[1], channels.get(ask["channel"], ask["way"]))
        except OSError:
            pass  # the caller has hung up, and wants no answer


def make_call(link: socket.socket, ask: dict[str, Any], request: bytes, channel: grpc.Channel) -> None:
    """Make a call and send back its messages and status; cancel it when the caller disconnects."""
    method: Any = channel.unary_stream(ask["method"], None, None)  # on the wire, one answer is a stream of one message
    metadata = tuple((name, value) for name, value in ask["metadata"])
    call: Any = method(request, timeout=ask["timeout"], metadata=metadata)
    watcher = threading.Thread(target=cancel_when_gone, args=(link, call), daemon=True)
    watcher.start()
    try:
        for message in call:
            wire.send(link, wire.MESSAGE, message)
        wire.send(link, wire.END, status_of(call))
    except grpc.RpcError:
        wire.send(link, wire.END, status_of(call))
    finally:
        call.cancel()
        link.shutdown(socket.SHUT_RDWR)  # the watcher sees this too
        watcher.join()


def cancel_when_gone(link: socket.socket, call: Any) -> None:
    """Cancel the call when the caller's socket closes."""
    with contextlib.suppress(OSError):
        link.recv(1)
    call.cancel()


def status_of(call: Any) -> bytes:
    """The status of a call, as data to send back."""
    status = {
        "code": call.code().name,
        "details": call.details() or "",
        "initial_metadata": list(call.initial_metadata() or ()),
        "trailing_metadata": list(call.trailing_metadata() or ()),
    }
    return wire.to_json(status)


def main() -> None:
    """Serve the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to both; the other process decides
    with socket.socket(fileno=int(sys.argv[1])) as control:
        serve(control)
    os._exit(0)  # without waiting for calls that nobody waits for


if __name__ == "__main__":
    main()
