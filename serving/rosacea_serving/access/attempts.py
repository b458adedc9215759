"""Rate limit for failed authentication, by network address."""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import time
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ..bounded import Bounded
from .buckets import Bucket

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_ADDRESSES = 10_000
MOST_ACCEPTED = 10_000


class FailedAttempts:
    """Counts authentication failures per network. Credentials that were accepted from an address before are exempt,
    since many callers may share the address of one proxy."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._failures: Bounded[str, Bucket] = Bounded(
            MOST_ADDRESSES, lambda: Bucket(per_minute / 60, per_minute, clock)
        )
        self._accepted: Bounded[bytes, None] = Bounded(MOST_ACCEPTED, lambda: None)
        self._salt = secrets.token_bytes(16)

    def seconds_to_wait(self, address: str, credentials: str) -> float:
        """Seconds until these credentials may be checked; 0 if now."""
        if address not in self._failures or self._mark(address, credentials) in self._accepted:
            return 0.0
        bucket = self._failures.get(address)
        return 0.0 if bucket.left() else 1 / bucket.per_second

    def failed(self, address: str) -> None:
        self._failures.get(address).take_tokens(1)

    def succeeded(self, address: str, credentials: str) -> None:
        self._accepted.get(self._mark(address, credentials))

    def _mark(self, address: str, credentials: str) -> bytes:
        return hashlib.blake2b(f"{address} {credentials}".encode(), key=self._salt, digest_size=16).digest()


@lru_cache(MOST_ADDRESSES)
def network(host: str) -> str:
    """The network that shares one limit: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        address = ipaddress.ip_address(unquote(host).strip("[]").partition("%")[0])
    except ValueError:
        return host
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))
