"""Who asks, and for how long: all that the service behind the servicer knows of a call's transport."""

from __future__ import annotations

import math
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

ADDRESS = "clientip"  # the kind of a caller who is known by nothing but the machine that the call comes from


class Allowance(Protocol):
    """The images that a caller may still have drawn."""

    @property
    def images_per_second(self) -> float: ...

    @property
    def burst_images(self) -> int: ...

    def left(self) -> int:
        """Images that may be taken now."""

    def take(self, images: int) -> float:
        """Take all of them, or none: then the seconds until there will be as many."""


class Unlimited:
    """As many as anybody likes."""

    images_per_second = math.inf
    burst_images = 2**63

    def left(self) -> int:
        return self.burst_images

    def take(self, images: int) -> float:
        return 0.0


UNLIMITED = Unlimited()


def _never(callback: Callable[[], None]) -> None:
    """For callers that are no calls."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """One call's caller. Fair shares are by `principal`, which names one of its `kind`."""

    principal: str = ""
    kind: str = ADDRESS  # as the subject of a QuotaFailure
    deadline: float = math.inf  # on the clock of time.monotonic
    when_done: Callable[[Callable[[], None]], None] = _never  # calls back once the answer has left, or the caller has
    allowance: Allowance = UNLIMITED

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def spend(self, images: int) -> None:
        """Count images against the caller's allowance, all or none; Overloaded where it does not hold as many."""
        allowance = self.allowance
        wait = allowance.take(images)
        if wait:
            rate, burst = f"{allowance.images_per_second:g}", str(allowance.burst_images)
            message = f"this caller may have {rate} images a second drawn, {burst} at once; {images} more are too many"
            limits = {"images_per_second": rate, "burst_images": burst}
            raise Overloaded.by_share(self.kind, message, limits=limits, retry_after_seconds=round(wait + 0.0005, 3))


CALLER: ContextVar[Caller] = ContextVar("caller")  # of the call that the running task answers


def caller_of(context: Context, principal: str = "", kind: str = ADDRESS, allowance: Allowance = UNLIMITED) -> Caller:
    """The caller of a call. Without authentication the principal is the machine that the call comes from."""
    left = context.time_remaining()
    return Caller(
        principal=principal or peer_host(context),
        kind=kind,
        deadline=math.inf if left is None else time.monotonic() + left,
        when_done=lambda callback: context.add_done_callback(lambda _: callback()),  # type: ignore[arg-type]  # a stub that is no protocol
        allowance=allowance,
    )


def peer_host(context: Context) -> str:
    """`127.0.0.1` of `ipv4:127.0.0.1:40000`: a machine's connections count as one principal."""
    kind, _, rest = context.peer().partition(":")
    return rest.rpartition(":")[0] if kind in {"ipv4", "ipv6"} else kind
