"""Circuit breaker for restarts: how soon to try again after failures."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FAILURES_TO_OPEN = 3
FIRST_DELAY_SECONDS = 1.0
SECONDS_BETWEEN_STARTS = 5.0
STABLE_SECONDS = 60.0


@dataclass
class Circuit:
    """Counts consecutive failures. It opens after three; then there is one attempt every `open_seconds`.

    A run that was ready for a minute ends the row, so that what fails once a day never opens it.
    """

    open_seconds: float
    clock: Callable[[], float] = field(default=time.monotonic)
    failures: int = 0
    _started: float = 0.0
    _ready: float | None = None

    @property
    def is_open(self) -> bool:
        return self.failures >= FAILURES_TO_OPEN

    def started(self) -> None:
        """Record when an attempt to start TorchServe begins."""
        self._started = self.clock()
        self._ready = None

    def ready(self) -> None:
        """Record when TorchServe became ready: if it stays so for a minute, earlier failures no longer count."""
        self._ready = self.clock()

    def failed(self) -> None:
        """Count a failure: a run of TorchServe has ended. If it had been ready for a minute, counting begins anew."""
        if self._ready is not None and self.clock() - self._ready >= STABLE_SECONDS:
            self.failures = 0
        self.failures += 1

    def delay(self) -> float:
        """Seconds before the next attempt: 1, 2, then `open_seconds`; starts are at least 5 s apart."""
        if self.is_open:
            return self.open_seconds
        wait: float = FIRST_DELAY_SECONDS * 2 ** (self.failures - 1)
        return max(wait, SECONDS_BETWEEN_STARTS - (self.clock() - self._started))
