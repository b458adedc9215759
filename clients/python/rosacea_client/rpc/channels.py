"""Channel arguments used by every channel of this project: proxies, keepalive, reconnecting."""

from __future__ import annotations

from typing import Any

from rosacea_client.rpc.proxies import goes_direct

# A call under way asks the other side for a sign of life after 10 s without any, and is cut off after 10 s more.
# The service accepts a ping every 5 s. Without a call nothing is sent: a dead path is noticed by the next call.
KEEPALIVE_SECONDS = 10.0
KEEPALIVE_TIMEOUT_SECONDS = 10.0

Options = list[tuple[str, Any]]


def channel_options(target: str, *, max_message_bytes: int | None = None, keepalive: bool = True) -> Options:
    """Channel arguments for `target`. Disable `keepalive` for servers that disconnect clients for pings."""
    options: Options = [
        # A service that was away is found again within a second or so; by default it may take two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # A name is looked up again when a connection ends, but not more often than this; by default every 30 s.
        ("grpc.dns_min_time_between_resolutions_ms", 5000),
        # Connections of this channel alone: those of a parent process are none of its forked child's business.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if goes_direct(target):
        options.append(("grpc.enable_http_proxy", 0))
    if max_message_bytes is not None:
        options += [(f"grpc.max_{way}_message_length", max_message_bytes) for way in ("send", "receive")]
    return options + _KEEPALIVE if keepalive else options


_KEEPALIVE: Options = [
    ("grpc.keepalive_time_ms", int(1000 * KEEPALIVE_SECONDS)),
    ("grpc.keepalive_timeout_ms", int(1000 * KEEPALIVE_TIMEOUT_SECONDS)),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC's own pings, by which it measures the path, hold keepalive up for as long as they are not answered.
    ("grpc.http2.ping_timeout_ms", int(1000 * (KEEPALIVE_SECONDS + KEEPALIVE_TIMEOUT_SECONDS))),
]
