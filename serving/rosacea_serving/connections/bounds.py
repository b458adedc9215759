"""Options that bound what a connection can make gRPC's core hold, for every port.

grpc bounds the rest by itself: frames that it owes an answer to (10,000, then it reads no further), calls that nobody
has picked up yet (1,000), headers that never end.
"""

from __future__ import annotations

from typing import Any

HANDSHAKE_TIMEOUT_MS = 5000  # idle sockets that never speak are dropped after this
MAX_STREAMS_PER_CONNECTION = 128  # more wait at the client; bounds what a connection can make us hold
STREAM_WINDOW_BYTES = 16 * 1024  # of a message that nobody has asked for yet
HEADER_BYTES = 8 * 1024  # of a call; more are refused


def bounds(max_message_bytes: int, max_connections: int) -> list[tuple[str, Any]]:
    """gRPC server options that limit the number of connections, and the streams, message size and header size of
    each."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_allowed_incoming_connections", max_connections),
        ("grpc.max_concurrent_streams", MAX_STREAMS_PER_CONNECTION),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
        ("grpc.http2.settings_timeout", HANDSHAKE_TIMEOUT_MS),
        ("grpc.http2.lookahead_bytes", STREAM_WINDOW_BYTES),
        ("grpc.http2.bdp_probe", 0),  # it would widen the windows of connections that send fast
        ("grpc.max_metadata_size", HEADER_BYTES),
        ("grpc.absolute_max_metadata_size", 2 * HEADER_BYTES),
    ]
