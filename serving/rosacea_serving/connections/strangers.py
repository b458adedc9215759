"""Bounds what unauthenticated callers can make the service hold, shared fairly by connection.

Whoever opens most gets least: one attacker with a thousand calls waits for itself, and a probe on a connection of its
own comes through.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from rosacea_contract.errors import Overloaded
from rosacea_contract.reasons import Reason

from ..bounded import Bounded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    Turn = asyncio.Future[None]

MOST_CALLS = 2048  # of strangers, at one time
MOST_WAITING = 512  # of them whose request waits for its turn
MOST_HELD = 1024  # calls whose refusal waits until it is due
TURN_SECONDS = 0.5  # of those where others wait
HALF_LIFE_SECONDS = 10.0  # of what a connection has used of them
RETRY_SECONDS = 1.0
REFUSALS_PER_SECOND = 50.0  # of one connection
REFUSALS_AT_ONCE = 50.0  # after a while without


class Shares:
    """Limits concurrent items in total and per connection. The first of a connection is always admitted."""

    def __init__(self, what: str, most: int, most_each: int | None = None) -> None:
        self._what = what
        self._most = most
        self._most_each = most_each or most
        self._held: Counter[str] = Counter()
        self._all = 0

    @contextmanager
    def one(self, peer: str) -> Iterator[None]:
        """Context manager that holds one place; Overloaded if none is free."""
        held = self._held[peer]
        if held and (self._all >= self._most or held >= self._most_each):
            raise self._refusal()
        self._all += 1
        self._held[peer] += 1
        try:
            yield
        finally:
            self._all -= 1
            self._held[peer] -= 1
            if not self._held[peer]:
                del self._held[peer]

    def _refusal(self) -> Overloaded:
        message = f"there may be {self._most_each} {self._what} on a connection and {self._most} in all"
        return Overloaded(message, reason=Reason.QUEUE_FULL, retry_after_seconds=RETRY_SECONDS)


class Refusals:
    """Paces refusals: after a burst, each refusal of a connection waits until it is due, REFUSALS_PER_SECOND at
    most."""

    def __init__(self) -> None:
        self._next: Bounded[str, list[float]] = Bounded(MOST_CALLS, lambda: [-math.inf])
        self._held = 0

    async def hold(self, peer: str) -> None:
        """Wait until this connection's next refusal is due; its first ones are due at once."""
        now = asyncio.get_running_loop().time()
        due = self._next.get(peer)
        due[0] = max(due[0], now - REFUSALS_AT_ONCE / REFUSALS_PER_SECOND) + 1 / REFUSALS_PER_SECOND
        if due[0] <= now or self._held >= MOST_HELD:
            return
        self._held += 1
        try:
            await asyncio.sleep(due[0] - now)
        finally:
            self._held -= 1


class Usage:
    """Seconds of turns that a connection has had; they count half after every HALF_LIFE_SECONDS."""

    def __init__(self) -> None:
        self._seconds, self._at = 0.0, 0.0

    def seconds(self, now: float) -> float:
        """The seconds that still count."""
        return float(self._seconds * 0.5 ** ((now - self._at) / HALF_LIFE_SECONDS))

    def add(self, seconds: float, now: float) -> None:
        """Count a turn of this length that ends now."""
        self._seconds, self._at = self.seconds(now) + seconds, now


class Turns:
    """Limits concurrent work to N turns. The waiting connection that has used its turns least goes first.

    A connection whose requests arrive at once hardly uses its turns, so it passes all that never send theirs.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._usage: Bounded[str, Usage] = Bounded(MOST_CALLS, Usage)
        self._taken: dict[asyncio.Timeout, float] = {}  # by when they end at the latest if somebody waits
        self._waiting: dict[str, deque[Turn]] = {}

    def __len__(self) -> int:
        """Number of waiting calls."""
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def one(self, peer: str) -> AsyncIterator[None]:
        """Context manager that waits for and holds a turn. TimeoutError if the turn lasts longer than TURN_SECONDS
        while others wait; Overloaded if too many wait."""
        await self._begin(peer)
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(None) as limit:
                self._taken[limit] = began + TURN_SECONDS
                if self._waiting:
                    limit.reschedule(self._taken[limit])
                try:
                    yield
                finally:
                    del self._taken[limit]
        finally:
            self._usage.get(peer).add(clock() - began, clock())
            self._end()

    async def _begin(self, peer: str) -> None:
        if self._free:
            self._free -= 1
            return
        turn: Turn = asyncio.get_running_loop().create_future()
        self._make_room()
        self._waiting.setdefault(peer, deque()).append(turn)
        for limit, end in self._taken.items():
            if not limit.expired():
                limit.reschedule(end)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it had just come
                self._end()
            raise
        finally:
            self._forget(peer, turn)

    def _end(self) -> None:
        """End a turn and give it to the next connection."""
        now = asyncio.get_running_loop().time()
        while self._waiting:
            peer = min(self._waiting, key=lambda each: self._usage.get(each).seconds(now))
            turns = self._waiting.pop(peer)
            turn = turns.popleft()
            if turns:
                self._waiting[peer] = turns
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _make_room(self) -> None:
        """If too many wait, refuse the oldest call of the connection with the most waiting calls."""
        if len(self) >= MOST_WAITING:
            turn = max(self._waiting.values(), key=len).popleft()
            if not turn.done():
                turn.set_exception(too_many())

    def _forget(self, peer: str, turn: Turn) -> None:
        turns = self._waiting.get(peer)
        if turns is not None and turn in turns:
            turns.remove(turn)
        if turns is not None and not turns:
            self._waiting.pop(peer, None)


def too_many() -> Overloaded:
    message = f"{MOST_WAITING} calls of callers without credentials wait to send their request, more are too many"
    return Overloaded(message, reason=Reason.QUEUE_FULL, retry_after_seconds=RETRY_SECONDS)
