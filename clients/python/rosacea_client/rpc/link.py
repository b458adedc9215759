"""One connection of a client, and detection of a dead network path.

A NAT, firewall or load balancer that forgot a connection passes nothing on and closes nothing. gRPC's keepalive notices
within 20 s while a call is under way. A call with a shorter deadline expires first: if nothing at all was heard while
it waited, over a connection that had worked before, then the next call gets a new connection.
"""

from __future__ import annotations

import os
import time
import weakref
from typing import TYPE_CHECKING, Any

from rosacea.v1.faces_pb2_grpc import FaceServiceStub

if TYPE_CHECKING:
    from collections.abc import Callable


class Connection:
    """A channel, of grpc or grpc.aio, and the calls that can be made over it."""

    def __init__(self, channel: Any, through: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.channel = channel
        self.stub: FaceServiceStub = FaceServiceStub(through or channel)
        self.closed = False  # by its client, which ends its calls
        self._clock = clock
        self._heard: float | None = None  # when something came last; None while nothing has

    def heard(self) -> None:
        """Record the time, since data was received from the service: `is_silent` counts from it."""
        self._heard = self._clock()

    def is_silent(self, seconds: float) -> bool:
        """Whether a connection that worked has received nothing for too long.

        A connection that never worked is not silent: it may still be in the making, and a new one would not be faster.
        """
        return self._heard is not None and self._clock() - self._heard >= seconds

    def close_when_unused(self) -> None:
        """Close the channel once nothing refers to this connection any more, so not before its last call has ended.

        One of grpc.aio closes by itself then. A forked child leaves it to the parent.
        """
        process, close = os.getpid(), self.channel.close
        weakref.finalize(self, lambda: close() if os.getpid() == process else None).atexit = False
