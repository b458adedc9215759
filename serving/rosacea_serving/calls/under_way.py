"""Counts calls in progress, and refuses new ones during shutdown.

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
    """Counts calls in progress; once closing, admits no more."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._open: set[asyncio.Future[None]] = set()  # one for each call, done at its end
        self._closing = False

    @contextmanager
    def one(self) -> Iterator[None]:
        """Context manager that counts one call as in progress; Unavailable during shutdown."""
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
        """Wait until all calls in progress now have ended, at most this long; returns whether they have."""
        ends = set(self._open)
        if ends:
            await asyncio.wait(ends, timeout=timeout_seconds)
        return all(end.done() for end in ends)

    async def drain(self, grace_seconds: float, hurry: asyncio.Event) -> None:
        """Refuse new calls and wait for those in progress, until the grace period ends or `hurry` is set."""
        self._closing = True
        waits = [asyncio.ensure_future(self.outlive(grace_seconds)), asyncio.ensure_future(hurry.wait())]
        await asyncio.wait(waits, timeout=grace_seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
