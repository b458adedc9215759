"""Definitions of loads and of the measured time window, as pure data."""

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
    """The measured time: `seconds`, after a warm-up that is not counted."""

    warmup_seconds: float
    seconds: float

    @property
    def end(self) -> float:
        """End of the load, in seconds from its beginning."""
        return self.warmup_seconds + self.seconds

    def holds(self, moment: float) -> bool:
        """Whether a time, in seconds since the load began, is in the measured window (after the warm-up)."""
        return self.warmup_seconds < moment <= self.end


@dataclass(frozen=True, kw_only=True)
class Load:
    """A load: a fixed number of concurrent callers (closed loop), or a fixed rate of calls (open loop)."""

    concurrency: int | None = None
    calls_per_second: float | None = None
    spacing: Spacing = "poisson"

    def __str__(self) -> str:
        if self.concurrency is not None:
            return f"{self.concurrency} at a time"
        return f"{self.calls_per_second:g} calls/s"

    @property
    def loop(self) -> Literal["closed", "open"]:
        """Kind of load: "closed" or "open" loop."""
        return "open" if self.concurrency is None else "closed"


def arrivals(calls_per_second: float, end: float, spacing: Spacing, seed: int = 0) -> Iterator[float]:
    """Start times of calls in seconds from 0 to `end`: evenly spaced, or random as of independent callers (Poisson)."""
    if spacing == "fixed":
        yield from itertools.takewhile(lambda moment: moment <= end, (n / calls_per_second for n in itertools.count()))
        return
    chance = random.Random(seed)  # noqa: S311  # no secret
    moment = chance.expovariate(calls_per_second)
    while moment <= end:
        yield moment
        moment += chance.expovariate(calls_per_second)


def closed_loads(text: str) -> list[Load]:
    """Parse concurrencies such as `1,2,4`; ValueError if one is not a positive whole number."""
    loads = []
    for part in _parts(text):
        if not (part.isascii() and part.isdigit() and len(part) <= 9 and 1 <= int(part) <= MAX_CONCURRENCY):
            raise ValueError(f"--concurrency must be whole numbers from 1 to {MAX_CONCURRENCY}, got {part[:80]!r}")
        loads.append(Load(concurrency=int(part)))
    return loads


def open_loads(text: str, spacing: Spacing) -> list[Load]:
    """Parse rates such as `10,50.5`; ValueError if one is not positive."""
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
