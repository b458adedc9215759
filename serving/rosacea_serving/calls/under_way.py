"""Counts the calls under way, and refuses new ones once the service closes.

The door is ours because grpc.aio's own shutdown can drop a call between accepting and handling it: such a call would
hang until its deadline. Here a call is either refused with a status or carried to its end.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import shutting_down

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Gauge


class Calls:
    """Counts the calls under way; once closing, lets no new one in."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._open: set[asyncio.Future[None]] = set()  # one for each call, done at its end
        self._closing = False

    @contextmanager
    def one(self) -> Iterator[None]:
        """A call, from its arrival to its end."""
        if self._closing:
            raise shutting_down()
        end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open.add(end)
        self._gauge.set(len(self._open))
        try:
            yield
        finally:
            self._open.discard(end)
            self._gauge.set(len(self._open))
            end.set_result(None)

    async def outlive(self, timeout_seconds: float) -> bool:
        """Wait until every call that is under way now has ended, but no longer than that; whether all have."""
        ends = set(self._open)
        if ends:
            await asyncio.wait(ends, timeout=timeout_seconds)
        return all(end.done() for end in ends)

    async def drain(self, grace_seconds: float, hurry: asyncio.Event) -> None:
        """Let no new call in, and wait for those under way, but no longer than the grace or than `hurry` allows."""
        self._closing = True
        waits = [asyncio.ensure_future(self.outlive(grace_seconds)), asyncio.ensure_future(hurry.wait())]
        await asyncio.wait(waits, timeout=grace_seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
