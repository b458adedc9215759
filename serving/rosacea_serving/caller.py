"""Who asks, and for how long: all that the service behind the servicer knows of a call's transport."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]


def _never(callback: Callable[[], None]) -> None:
    """For callers that are no calls."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """One call's caller. Fair shares are by `principal`, which names one of its `kind`."""

    principal: str = ""
    kind: str = "clientip"                                      # as the subject of a QuotaFailure
    deadline: float = math.inf                                  # on the clock of time.monotonic
    when_done: Callable[[Callable[[], None]], None] = _never    # calls back once the answer has left, or the caller has

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()


def caller_of(context: Context, principal_of: Callable[[Context], str] | None = None) -> Caller:
    """The caller of a call. Without authentication the principal is the machine that the call comes from."""
    left = context.time_remaining()
    return Caller(
        principal=(principal_of or peer_host)(context),
        deadline=math.inf if left is None else time.monotonic() + left,
        when_done=lambda callback: context.add_done_callback(lambda _: callback()),  # type: ignore[arg-type]  # a stub that is no protocol
    )


def peer_host(context: Context) -> str:
    """`127.0.0.1` of `ipv4:127.0.0.1:40000`: a machine's connections count as one principal."""
    kind, _, rest = context.peer().partition(":")
    return rest.rpartition(":")[0] if kind in {"ipv4", "ipv6"} else kind
