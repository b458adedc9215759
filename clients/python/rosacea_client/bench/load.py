"""What load a service is put under, and which part of the time counts. Nothing here waits or asks."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

Spacing = Literal["poisson", "fixed"]
MAX_CONCURRENCY = 10_000
MAX_RATE = 100_000.0


@dataclass(frozen=True, kw_only=True)
class MeasurementWindow:
    """The time that counts: `seconds`, after a warm-up that does not."""

    warmup_seconds: float
    seconds: float

    @property
    def end(self) -> float:
        """When the load ends, in seconds from its beginning."""
        return self.warmup_seconds + self.seconds

    def holds(self, moment: float) -> bool:
        """Whether a moment, in seconds from the beginning, counts."""
        return self.warmup_seconds < moment <= self.end


@dataclass(frozen=True, kw_only=True)
class Load:
    """Either a number of callers at a time, or a number of calls a second whether or not they are answered."""

    concurrency: int | None = None
    calls_per_second: float | None = None
    spacing: Spacing = "poisson"

    def __str__(self) -> str:
        if self.concurrency is not None:
            return f"{self.concurrency} at a time"
        return f"{self.calls_per_second:g} calls/s"

    @property
    def loop(self) -> Literal["closed", "open"]:
        """Whose pace it goes at: the answers' (closed) or its own (open)."""
        return "open" if self.concurrency is None else "closed"


def arrivals(calls_per_second: float, end: float, spacing: Spacing, seed: int = 0) -> Iterator[float]:
    """When calls begin, in seconds from 0 up to `end`: evenly, or by chance as independent callers would (Poisson)."""
    if spacing == "fixed":
        yield from itertools.takewhile(lambda moment: moment <= end, (n / calls_per_second for n in itertools.count()))
        return
    chance = random.Random(seed)  # noqa: S311  # no secret
    moment = chance.expovariate(calls_per_second)
    while moment <= end:
        yield moment
        moment += chance.expovariate(calls_per_second)


def closed_loads(text: str) -> list[Load]:
    """The loads that a text such as `1,2,4` names; ValueError for what is no number of callers."""
    loads = []
    for part in _parts(text):
        if not (part.isascii() and part.isdigit() and len(part) <= 9 and 1 <= int(part) <= MAX_CONCURRENCY):
            raise ValueError(f"--concurrency must be whole numbers from 1 to {MAX_CONCURRENCY}, got {part[:80]!r}")
        loads.append(Load(concurrency=int(part)))
    return loads


def open_loads(text: str, spacing: Spacing) -> list[Load]:
    """The loads that a text such as `10,50.5` names; ValueError for what is no rate."""
    loads = []
    for part in _parts(text):
        try:
            rate = float(part)
        except ValueError:
            rate = math.nan
        if not 0 < rate <= MAX_RATE:
            raise ValueError(f"--rate must be calls a second, above 0 and up to {MAX_RATE:g}, got {part[:80]!r}")
        loads.append(Load(calls_per_second=rate, spacing=spacing))
    return loads


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text.strip() else []
