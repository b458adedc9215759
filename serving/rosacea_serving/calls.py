"""Calls under way, and the door they come through.

The door is ours because grpc.aio's own shutdown can drop a call between accepting and handling it: such a call would
hang until its deadline. Here a call is either refused with a status or carried to its end.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .errors import shutting_down

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Gauge


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
            raise shutting_down()
        self._change(+1)
        try:
            yield
        finally:
            self._change(-1)

    async def drain(self, grace_seconds: float, hurry: asyncio.Event) -> None:
        """Let no new call in, and wait for those under way, but no longer than the grace or than `hurry` allows."""
        self._closing = True
        waits = [asyncio.ensure_future(event.wait()) for event in (self._idle, hurry)]
        await asyncio.wait(waits, timeout=grace_seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    def _change(self, by: int) -> None:
        self._open += by
        self._gauge.set(self._open)
        if self._open:
            self._idle.clear()
        else:
            self._idle.set()
