"""The helper: makes calls for a process that must not enter gRPC. Started by `rosacea_client.relay.helper`.

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
    """The channels of the other process, by its numbers for them."""

    def __init__(self) -> None:
        self._open: dict[int, grpc.Channel] = {}
        self._lock = threading.Lock()

    def get(self, number: int, way: dict[str, Any]) -> grpc.Channel:
        """The channel of this number, which is opened at its first call."""
        with self._lock:
            if number not in self._open:
                self._open[number] = opened(way)
            return self._open[number]

    def close(self, number: int) -> None:
        """Hang up, which ends the channel's calls."""
        with self._lock:
            channel = self._open.pop(number, None)
        if channel is not None:
            channel.close()


def opened(way: dict[str, Any]) -> grpc.Channel:
    """A channel to where the other process wants to go."""
    options = [(name, value) for name, value in way["options"]]
    if way["tls"] is None:
        return grpc.insecure_channel(way["target"], options=options)
    return grpc.secure_channel(way["target"], grpc.ssl_channel_credentials(*way["tls"]), options=options)


def serve(control: socket.socket) -> None:
    """Take calls until the other process is gone."""
    channels = Channels()
    while True:
        more, handed, _, _ = socket.recv_fds(control, 1, 1)
        if not more:
            return
        link = socket.socket(fileno=handed[0])
        threading.Thread(target=relay, args=(link, channels), daemon=True).start()


def relay(link: socket.socket, channels: Channels) -> None:
    """One call, from its request to its status; or the end of a channel."""
    with link, link.makefile("rb") as incoming:
        try:
            ask = wire.from_json(wire.receive(incoming)[1])
            if ask["method"] is None:
                channels.close(ask["channel"])
            else:
                make_call(link, ask, wire.receive(incoming)[1], channels.get(ask["channel"], ask["way"]))
        except OSError:
            pass  # the caller has hung up, and wants no answer


def make_call(link: socket.socket, ask: dict[str, Any], request: bytes, channel: grpc.Channel) -> None:
    """Make a call and send what comes of it; cancelled as soon as the caller hangs up."""
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
    """The caller sends nothing more: whatever is heard is its end."""
    with contextlib.suppress(OSError):
        link.recv(1)
    call.cancel()


def status_of(call: Any) -> bytes:
    """How the call ended."""
    told = {
        "code": call.code().name,
        "details": call.details() or "",
        "initial_metadata": list(call.initial_metadata() or ()),
        "trailing_metadata": list(call.trailing_metadata() or ()),
    }
    return wire.to_json(told)


def main() -> None:
    """Serve the process at the other end of the socket that this one was started with."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to both; the other process decides
    with socket.socket(fileno=int(sys.argv[1])) as control:
        serve(control)
    os._exit(0)  # without waiting for calls that nobody waits for


if __name__ == "__main__":
    main()
