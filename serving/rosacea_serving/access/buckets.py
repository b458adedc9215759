"""Token bucket: allows a burst, then a steady rate."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDING = 1e-9  # of many small fillings


class Bucket:
    """A token bucket that starts full and refills by `per_second` up to `burst`."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second = per_second
        self.burst = burst
        self._clock = clock
        self._level = float(burst)
        self._filled_at = clock()

    def left(self) -> int:
        """Tokens available now."""
        now = self._clock()
        self._level = min(float(self.burst), self._level + (now - self._filled_at) * self.per_second)
        self._filled_at = now
        return int(self._level + ROUNDING)

    def take_tokens(self, amount: int) -> float:
        """Take N tokens and return 0, or take none and return the seconds until they are available."""
        if amount <= self.left():
            self._level -= amount
            return 0.0
        return (amount - self._level) / self.per_second
