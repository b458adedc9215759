"""The caller of a call and its deadline: all that inner layers know of the transport."""

from __future__ import annotations

import math
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import over_quota

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

ADDRESS = "clientip"  # the kind of a caller who is known by nothing but the machine that the call comes from


class Allowance(Protocol):
    """A caller's remaining image quota."""

    @property
    def images_per_second(self) -> float: ...

    @property
    def burst_images(self) -> int: ...

    def left(self) -> int:
        """Images left in the quota."""

    def take_images(self, images: int) -> float:
        """Take this many images from the quota and return 0, or take none and return the seconds until enough are
        available."""


class Unlimited:
    """An unlimited quota."""

    images_per_second = math.inf
    burst_images = 2**63

    def left(self) -> int:
        return self.burst_images

    def take_images(self, images: int) -> float:
        return 0.0


UNLIMITED = Unlimited()


def _never(callback: Callable[[], None]) -> None:
    """The default of `when_done`, for callers outside of a gRPC call: never runs the callback."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The caller of one call. Fair sharing is by `principal`, a name of its `kind`."""

    principal: str = ""
    kind: str = ADDRESS  # as the subject of a QuotaFailure
    deadline: float = math.inf  # on the clock of time.monotonic
    when_done: Callable[[Callable[[], None]], None] = _never  # calls back once the answer has left, or the caller has
    allowance: Allowance = UNLIMITED

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def spend(self, images: int) -> None:
        """Charge images to the caller's quota, all or none; Overloaded if it is exhausted."""
        allowance = self.allowance
        wait = allowance.take_images(images)
        if wait:
            rate, burst = f"{allowance.images_per_second:g}", str(allowance.burst_images)
            message = f"this caller may have {rate} images a second drawn, {burst} at once; {images} more are too many"
            limits = {"images_per_second": rate, "burst_images": burst}
            raise over_quota(self.kind, message, metadata=limits, retry_after_seconds=round(wait + 0.0005, 3))


CALLER: ContextVar[Caller] = ContextVar("caller")  # of the call that the running task answers


def caller_of(context: Context, principal: str = "", kind: str = ADDRESS, allowance: Allowance = UNLIMITED) -> Caller:
    """Build the Caller of a call. Without authentication the principal is the client's host."""
    left = context.time_remaining()
    return Caller(
        principal=principal or peer_host(context),
        kind=kind,
        deadline=math.inf if left is None else time.monotonic() + left,
        when_done=lambda callback: context.add_done_callback(lambda _: callback()),  # type: ignore[arg-type]  # a stub that is no protocol
        allowance=allowance,
    )


def peer_host(context: Context) -> str:
    """The host of a gRPC peer name, `127.0.0.1` for `ipv4:127.0.0.1:40000`: all connections of a host are one
    principal."""
    kind, _, rest = context.peer().partition(":")
    return rest.rpartition(":")[0] if kind in {"ipv4", "ipv6"} else kind
