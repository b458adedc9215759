"""Keepalive and maximum connection age of every gRPC port.

A connection that has reached its age is closed to new calls (GOAWAY). Calls in progress end on it; the next one uses a
new connection, for which clients resolve the name again: that is how running clients find added replicas. gRPC varies
each connection's age by up to a tenth, so that clients do not all reconnect at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..settings import Settings

# Clients may ping every 10 s, with or without calls. Half of that here, because pings do not arrive in step.
SHORTEST_PING_SECONDS = 5.0
# A client that is silent for a minute is asked for a sign of life, and is let go after 20 s more.
KEEPALIVE_SECONDS, KEEPALIVE_TIMEOUT_SECONDS = 60.0, 20.0


def port_options(settings: Settings) -> list[tuple[str, Any]]:
    """gRPC server options for keepalive and maximum connection age."""
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", _milliseconds(KEEPALIVE_SECONDS)),
        ("grpc.keepalive_timeout_ms", _milliseconds(KEEPALIVE_TIMEOUT_SECONDS)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(SHORTEST_PING_SECONDS)),
        *_age(settings),
    ]


def _age(settings: Settings) -> list[tuple[str, Any]]:
    if not settings.connection_age_seconds:
        return []
    age = ("grpc.max_connection_age_ms", _milliseconds(settings.connection_age_seconds))
    if settings.connection_grace_seconds is None:
        return [age]
    return [age, ("grpc.max_connection_age_grace_ms", _milliseconds(settings.connection_grace_seconds))]


def _milliseconds(seconds: float) -> int:
    return int(1000 * seconds)
