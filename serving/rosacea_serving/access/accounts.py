"""Per-principal usage: calls in progress and quotas. Bounded: the least recently seen principals are forgotten."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..bounded import Bounded
from ..errors import over_quota
from .buckets import Bucket

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..calls.caller import Caller
    from ..settings import RequestLimits

MOST_ACCOUNTS = 10_000


class Account:
    """One principal's calls, streams and images; enforces its quotas of each."""

    def __init__(self, limits: RequestLimits, clock: Callable[[], float]) -> None:
        self.limits = limits
        self.calls = 0
        self.streams = 0
        rate = limits.quota_images_per_second
        self._bucket = Bucket(rate, limits.quota_burst_images, clock) if rate else None

    @property
    def busy(self) -> bool:
        return bool(self.calls or self.streams)

    @property
    def images_per_second(self) -> float:
        return self.limits.quota_images_per_second

    @property
    def burst_images(self) -> int:
        return self.limits.quota_burst_images

    def left(self) -> int:
        return self._bucket.left() if self._bucket else 2**63

    def take_images(self, images: int) -> float:
        return self._bucket.take_tokens(images) if self._bucket else 0.0

    def enter(self, caller: Caller, streaming: bool) -> Callable[[], None]:
        """Count a call or a stream as in progress; Overloaded if it exceeds the principal's quota. Returns the function
        that counts it as ended."""
        if streaming:
            self._check(caller, "streams", self.streams, self.limits.quota_streams)
            self.streams += 1
        else:
            self._check(caller, "calls", self.calls, self.limits.quota_calls)
            self.calls += 1
        open_ = True

        def leave() -> None:
            nonlocal open_
            if open_:
                open_ = False
                self.streams -= streaming
                self.calls -= not streaming

        return leave

    def _check(self, caller: Caller, what: str, held: int, most: int) -> None:
        if most and held >= most:
            message = f"this caller has {held} of at most {most} {what} under way"
            limits = {"held": str(held), f"max_{what}": str(most)}
            raise over_quota(caller.kind, message, metadata=limits, retry_after_seconds=1.0)


class Accounts:
    """Accounts by principal. An account with calls in progress is never forgotten."""

    def __init__(
        self, limits: RequestLimits, most: int = MOST_ACCOUNTS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._accounts: Bounded[str, Account] = Bounded(most, lambda: Account(limits, clock), lambda each: each.busy)

    def __len__(self) -> int:
        return len(self._accounts)

    def of(self, principal: str) -> Account:
        return self._accounts.get(principal)
