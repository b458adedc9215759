"""Framing between a process and its helper: length-prefixed bytes and JSON.

The caller sends the call (JSON) and its request. The helper answers with messages and, at the end, the status (JSON).
The caller hangs up to cancel.
"""

from __future__ import annotations

import base64
import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    from typing import BinaryIO

MESSAGE, END = b"m", b"e"
_HEAD = struct.Struct(">cI")
Metadata = list[tuple[str, str | bytes]]


def send(link: socket.socket, kind: bytes, payload: bytes) -> None:
    """Send a frame; OSError if the other side has gone."""
    link.sendall(_HEAD.pack(kind, len(payload)))
    link.sendall(payload)


def receive(stream: BinaryIO) -> tuple[bytes, bytes]:
    """Receive a frame; ConnectionError if the other side has gone."""
    kind, length = _HEAD.unpack(_exactly(stream, _HEAD.size))
    return kind, _exactly(stream, length)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise ConnectionError("the other side of a relayed call is gone")
    return data


def to_json(value: Any) -> bytes:
    """Encode dicts, lists, text, numbers and bytes as JSON."""
    return json.dumps(value, default=lambda data: {"base64": base64.b64encode(data).decode("ascii")}).encode()


def from_json(data: bytes) -> Any:
    """Decode what `to_json` encoded; tuples become lists."""

    def revived(found: dict[str, Any]) -> Any:
        return base64.b64decode(found["base64"]) if found.keys() == {"base64"} else found

    return json.loads(data, object_hook=revived)
