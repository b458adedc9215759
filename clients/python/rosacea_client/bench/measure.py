"""Runs a load against a service and records the outcome of every call."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rosacea_client.bench.load import arrivals
from rosacea_client.errors import FaceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from rosacea_client.bench.load import Load, MeasurementWindow

PAUSE_SECONDS = 0.1  # of a caller of a closed loop that was refused: it would do nothing else but ask


@dataclass(frozen=True)
class Answer:
    """Number of images and bytes in one answer."""

    images: int
    size: int  # bytes of image data


@dataclass(frozen=True, kw_only=True)
class Done:
    """Record of one call, with times in seconds since the start of the load."""

    start: float  # when it began; in an open loop, when it was meant to
    end: float
    answer: Answer | None  # None where it failed
    error: str = ""  # why: a `Reason` or, where the service gave none, the name of the error


async def under(load: Load, ask: Callable[[int], Awaitable[Answer]], window: MeasurementWindow) -> list[Done]:
    """Run a load and return all its calls, warm-up included, once the last has ended."""
    if load.concurrency is not None:
        return await _closed(ask, load.concurrency, window)
    assert load.calls_per_second is not None, load
    return await _open(ask, arrivals(load.calls_per_second, window.end, load.spacing))


async def _closed(ask: Callable[[int], Awaitable[Answer]], callers: int, window: MeasurementWindow) -> list[Done]:
    watch, numbers = CallRecorder(ask), itertools.count()

    async def caller() -> None:
        while (start := watch.now()) < window.end:
            done = await watch.call(next(numbers), start)
            if done.answer is None:
                await asyncio.sleep(PAUSE_SECONDS)

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    return watch.seen


async def _open(ask: Callable[[int], Awaitable[Answer]], starts: Iterable[float]) -> list[Done]:
    watch = CallRecorder(ask)
    async with asyncio.TaskGroup() as group:
        for number, start in enumerate(starts):
            await asyncio.sleep(max(0.0, start - watch.now()))
            group.create_task(watch.call(number, start))
    return watch.seen


class CallRecorder:
    """Makes calls and records their outcomes."""

    def __init__(self, ask: Callable[[int], Awaitable[Answer]]) -> None:
        self.seen: list[Done] = []
        self._ask = ask
        self._loop = asyncio.get_running_loop()
        self._begin = self._loop.time()

    def now(self) -> float:
        """Seconds since this recorder was made, which is the start of the load."""
        return self._loop.time() - self._begin

    async def call(self, number: int, start: float) -> Done:
        """Make a call and record its outcome, a FaceError included; `start` is when it begins or, in an open loop, was
        due."""
        answer, error = None, ""
        try:
            answer = await self._ask(number)
        except FaceError as failure:
            error = str(failure.reason) or type(failure).__name__
        done = Done(start=start, end=self.now(), answer=answer, error=error)
        self.seen.append(done)
        return done
