"""Waits for images: all of a unary call, or the window of a stream that is being drawn."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING

from ..lane import Lane
from . import wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rosacea_contract.resolved import FaceItem, ResolvedSpec

    from ..calls.caller import Caller
    from ..scheduling.scheduler import Drawn, Scheduler

PACE_SECONDS = 0.05  # between looks at an allowance that is used up


class StreamWindow:
    """The images of a stream that are being drawn, a bounded number ahead of the reader."""

    def __init__(self, faces: ResolvedSpec, scheduler: Scheduler, lookahead: int, start: int, caller: Caller) -> None:
        self._faces = faces
        self._scheduler = scheduler
        self._lookahead = lookahead
        self._start = start
        self._next = start
        self._caller = caller
        self._ahead: deque[tuple[FaceItem, asyncio.Future[Drawn]]] = deque()

    async def next(self, most_bytes: int) -> list[tuple[FaceItem, Drawn]]:
        """The next faces in order: at least one, and further finished ones that fit into `most_bytes`.

        An empty list at the end of the stream.
        """
        await self._fill()
        ready: list[tuple[FaceItem, Drawn]] = []
        free = most_bytes
        # A face that failed waits for its turn: those before it go out first.
        while self._ahead and (not ready or self._next_fits(free)):
            item, future = self._ahead[0]
            drawn = await future
            ready.append((item, drawn))
            free -= len(drawn.image)
            self._ahead.popleft()
        return ready

    def _next_fits(self, free_bytes: int) -> bool:
        _, future = self._ahead[0]
        return is_drawn(future) and len(future.result().image) <= free_bytes

    async def _fill(self) -> None:
        wanted = min(self._lookahead - len(self._ahead), len(self._faces) - self._next)
        # What may not be drawn yet waits, and what is under way keeps the reader busy; a stream that has not begun is
        # refused.
        while wanted and not self._free() and self._next > self._start and not self._ahead:
            await self._wait()
        count = min(wanted, self._free() or (0 if self._ahead else 1))
        items = [self._faces.item(index) for index in range(self._next, self._next + count)]
        futures = self._scheduler.submit([wire.render_item(item) for item in items], Lane.BULK, self._caller)
        self._ahead.extend(zip(items, futures, strict=True))
        self._next += count

    def _free(self) -> int:
        """Images that may be requested now: half of the free places, which leaves some for new streams, within the
        caller's quota."""
        return min(math.ceil(self._room() / 2), self._caller.allowance.left())

    async def _wait(self) -> None:
        if self._room():
            await asyncio.sleep(PACE_SECONDS)
        else:
            await self._scheduler.wait_for_room()

    def _room(self) -> int:
        return self._scheduler.room(Lane.BULK, self._caller)

    def cancel(self) -> None:
        """Cancel the images that have not been sent to a worker."""
        forget(future for _, future in self._ahead)


async def gather(futures: Sequence[asyncio.Future[Drawn]]) -> list[Drawn]:
    """Wait for all images; if one fails or the caller leaves, cancel the others."""
    try:
        return [await futures[0]] if len(futures) == 1 else await asyncio.gather(*futures)
    finally:
        forget(futures)


def is_drawn(future: asyncio.Future[Drawn]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def forget(futures: Iterable[asyncio.Future[Drawn]]) -> None:
    """Cancel pending images and consume the exceptions of failed ones, so that asyncio does not log them."""
    for future in futures:
        if not future.cancel() and not future.cancelled():
            future.exception()
