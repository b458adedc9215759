"""Calls under way, and the door they come through.

The door is ours because grpc.aio's own shutdown can drop a call between accepting and handling it: such a call would
hang until its deadline. Here a call is either refused with a status or carried to its end.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rosacea_client.reasons import Reason

from .errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Gauge

RETRY_AFTER_SECONDS = 1.0


class Calls:
    """Counts the calls under way; once closing, lets no new one in."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._open = 0
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def one(self) -> Iterator[None]:
        """A call, from its arrival to its end."""
        if self._closing:
            raise Unavailable(
                Reason.SHUTTING_DOWN, "the service is shutting down", retry_after_seconds=RETRY_AFTER_SECONDS
            )
        self._change(+1)
        try:
            yield
        finally:
            self._change(-1)

    async def drain(self, grace_seconds: float) -> None:
        """Let no new call in, and wait for those under way, but no longer than the grace."""
        self._closing = True
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), grace_seconds)

    def _change(self, by: int) -> None:
        self._open += by
        self._gauge.set(self._open)
        if self._open:
            self._idle.clear()
        else:
            self._idle.set()
