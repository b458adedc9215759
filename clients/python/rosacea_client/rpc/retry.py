"""Retry policy: which failed calls are repeated, when, and when the error is final.

One policy for calls (`Attempts`) and for data sets that outlast an outage (`Patience`), here and not in gRPC's service
config: that one cannot read a RetryInfo, and two layers that both ask again would multiply. As AIP-194 has it, calls
are made again after UNAVAILABLE; after RESOURCE_EXHAUSTED only where the service says when. Between attempts is a
random part of a delay that grows from 50 ms to 1 s (to 5 s in an outage), on top of what the service asks for, and
never more time than there is left.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rosacea_client.errors import Cancelled, DeadlineExceeded, FaceError, Overloaded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

MAX_ATTEMPTS = 3
FIRST_DELAY_SECONDS, MAX_DELAY_SECONDS, MAX_OUTAGE_DELAY_SECONDS = 0.05, 1.0, 5.0
MAX_DOUBLINGS = 16

log = logging.getLogger("rosacea_client")


@dataclass
class Budget:
    """Retry budget shared by all calls of a client (gRFC A6 with its usual numbers).

    A failure costs a token, a success earns a tenth of one, and with half of them gone nothing is asked twice. So a
    service that refuses everything soon sees each call once, and retries never add more than about a tenth.
    Not locked: a token that two threads count wrong makes no difference, and a lock would not survive a fork.
    """

    max_tokens: float = 10.0
    earned: float = 0.1
    tokens: float = 10.0

    def succeeded(self) -> None:
        """Count a successful call."""
        self.tokens = min(self.max_tokens, self.tokens + self.earned)

    def failed(self) -> None:
        """Count a failure that a retry could fix."""
        self.tokens = max(0.0, self.tokens - 1)

    @property
    def allows(self) -> bool:
        """Whether the budget allows a retry."""
        return self.tokens > self.max_tokens / 2


class Attempts:
    """The attempts of one call, within one deadline of `timeout_seconds`."""

    def __init__(self, timeout_seconds: float, budget: Budget, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._deadline = clock() + timeout_seconds
        self._budget = budget
        self._failed = 0
        self._begun = False

    def remaining_seconds(self) -> float:
        """Seconds left for the next attempt; DeadlineExceeded if none."""
        left = self._deadline - self._clock()
        if left <= 0:
            raise DeadlineExceeded(f"the answer did not come within {self._timeout_seconds:g} seconds")
        return left

    def answered(self) -> None:
        """Record that the call, or part of its stream, was answered: failures count from 0 again, and only the deadline
        limits further attempts.

        From then on a stream that is cut off is taken up again for as long as it has time: that costs the service no
        more than the stream did, and giving up would waste what it has drawn.
        """
        self._failed = 0
        self._begun = True
        self._budget.succeeded()

    def pause_seconds(self, error: FaceError) -> float:
        """Seconds before the next attempt; raises `error` if there is to be none."""
        if not may_pass(error):
            raise error from None
        self._failed += 1
        self._budget.failed()
        if not self._begun and (self._failed >= MAX_ATTEMPTS or not self._budget.allows):
            raise error from None
        pause = pause_after(self._failed, error, MAX_DELAY_SECONDS)
        if self._clock() + pause >= self._deadline:
            raise error from None
        return pause


class Patience:
    """Time limit for an absent service, reset by every answer and ended by `stopped`."""

    def __init__(self, seconds: float, stopped: Event) -> None:
        self._seconds = seconds
        self._stopped = stopped
        self.renew()

    def renew(self) -> None:
        """Start the time limit anew, because the service has answered; Cancelled if `stopped` is set."""
        self._stop_if_asked()
        self._since, self._failed = time.monotonic(), 0

    def wait(self, error: FaceError) -> None:
        """Wait before the next call, longer each time; raises the error if that cannot help or takes too long."""
        pause = pause_after(self._failed + 1, error, MAX_OUTAGE_DELAY_SECONDS)
        # The next call has a deadline of its own.
        passes = may_pass(error) or isinstance(error, DeadlineExceeded)
        if not passes or time.monotonic() - self._since + pause > self._seconds:
            raise error
        self._failed += 1
        if self._failed == MAX_ATTEMPTS:  # before that it may be a moment's overload, which is nothing to tell of
            log.warning("%s; asking again for up to %g s", error, self._seconds)
        self._stopped.wait(pause)
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self._stopped.is_set():
            raise Cancelled("nobody reads on")


def pause_after(failed: int, error: FaceError, longest_seconds: float) -> float:
    """Seconds to wait after `failed` failed attempts, the last with `error`: what the service asks for, plus a random
    delay."""
    longest = min(FIRST_DELAY_SECONDS * 2 ** min(failed, MAX_DOUBLINGS), longest_seconds)
    return (error.retry_after_seconds or 0.0) + random.uniform(FIRST_DELAY_SECONDS, longest)  # noqa: S311 no secret


def may_pass(error: FaceError) -> bool:
    """Whether the same call may succeed if repeated soon."""
    return isinstance(error, Unavailable) or (isinstance(error, Overloaded) and error.retry_after_seconds is not None)
