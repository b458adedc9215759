"""The queue's fairness policy: admission and order of images by caller (principal), as pure code without gRPC, workers
or clocks.

Two lanes: `interactive` (somebody waits for the answer) and `bulk` (streams). While both have images waiting, of every
four that go three are interactive and one is bulk, so neither starves; a lane that waits alone has everything. Within
a lane every principal gets the same number of images, in turn, however many wait. The images of one principal go in
the order they came. Images of a worker that died go before everything else.

Room is counted in images. The lanes fill up apart from each other, and the last eighth of each is kept for principals
who hold less than an equal share of it: those who ask for too much are refused, their neighbours are not.

To change any of it, change this file; tests/serving/scheduling/test_policy.py says what callers may count on.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..lane import Lane

WEIGHTS = {Lane.INTERACTIVE: 3, Lane.BULK: 1}  # images of each that go while both wait
ROOM = {Lane.INTERACTIVE: 1.0, Lane.BULK: 0.5}  # how many may wait, as parts of `queue_images`
KEPT_FOR_SMALL = 8  # this fraction (1/8) is reserved for principals below an equal share


@dataclass(eq=False, kw_only=True)
class Ticket:
    """One image's place in the queue."""

    lane: Lane
    principal: str


T = TypeVar("T", bound=Ticket)


def places(lane: Lane, queue_images: int) -> int:
    """Maximum number of images waiting in a lane."""
    return max(1, int(queue_images * ROOM[lane]))


class Share:
    """A capacity shared fairly by principals."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.total = 0
        self.held: dict[str, int] = {}

    @property
    def free(self) -> int:
        """Unused capacity, some of which is reserved for principals below their share."""
        return self.most - self.total

    def room(self, principal: str) -> int:
        """Capacity this principal may still use. A principal that uses none may use all that is free."""
        free = self.free
        held = self.held.get(principal, 0)
        if not held:
            return max(0, free)
        equal = self.most // (len(self.held) + 1)  # as if one more came
        return max(0, free - self.most // KEPT_FOR_SMALL, min(free, equal - held))

    def hold(self, principal: str, amount: int) -> None:
        self.total += amount
        self.held[principal] = self.held.get(principal, 0) + amount

    def release(self, principal: str, amount: int) -> None:
        self.total -= amount
        self.held[principal] -= amount
        if not self.held[principal]:
            del self.held[principal]


class _Line(Generic[T]):
    """The waiting images of one lane, by principal."""

    def __init__(self, lane: Lane, queue_images: int) -> None:
        self.weight = WEIGHTS[lane]
        self.share = Share(places(lane, queue_images))
        self.served = 0.0  # images that went, over the weight: the lane that has had less goes first
        self._turns: OrderedDict[str, OrderedDict[T, None]] = OrderedDict()

    def put(self, ticket: T) -> None:
        self._turns.setdefault(ticket.principal, OrderedDict())[ticket] = None
        self.share.hold(ticket.principal, 1)

    def pop(self) -> T:
        """Remove and return the next image, taking principals in rotation."""
        principal, images = next(iter(self._turns.items()))
        ticket = next(iter(images))
        self.remove(ticket)
        if principal in self._turns:
            self._turns.move_to_end(principal)
        self.served += 1 / self.weight
        return ticket

    def remove(self, ticket: T) -> bool:
        """Remove an image; returns whether it was waiting."""
        images = self._turns.get(ticket.principal, OrderedDict())
        if ticket not in images:
            return False
        del images[ticket]
        if not images:
            del self._turns[ticket.principal]
        self.share.release(ticket.principal, 1)
        return True

    def ahead(self, principal: str, images: int) -> int:
        """How many images of this lane will be sent to workers until N more images of this principal (caller) have been
        sent."""
        own = self.share.held.get(principal, 0) + images
        return own + sum(min(held, own) for other, held in self.share.held.items() if other != principal)


class Queue(Generic[T]):
    """The images that wait for a worker, in two lanes and by principal (caller)."""

    def __init__(self, queue_images: int) -> None:
        self._lines: dict[Lane, _Line[T]] = {lane: _Line(lane, queue_images) for lane in Lane}
        self._again: deque[T] = deque()
        self._served = 0.0  # of the lane that went last

    def __len__(self) -> int:
        return len(self._again) + sum(line.share.total for line in self._lines.values())

    def share(self, lane: Lane) -> Share:
        """The `Share` of a lane: its places, and how many of them each principal uses."""
        return self._lines[lane].share

    def room(self, lane: Lane, principal: str) -> int:
        """Further images this principal may queue."""
        return self._lines[lane].share.room(principal)

    def depth(self, lane: Lane) -> int:
        """Number of images waiting in a lane, including those to be sent again."""
        return self._lines[lane].share.total + sum(each.lane is lane for each in self._again)

    def put(self, ticket: T) -> None:
        """Queue an image. The caller checks first that there is room."""
        line = self._lines[ticket.lane]
        if not line.share.total:
            line.served = max(line.served, self._served)  # nothing waited, so there is nothing to catch up on
        line.put(ticket)

    def put_first(self, ticket: T) -> None:
        """Put an image whose job failed at the front of the queue."""
        self._again.appendleft(ticket)

    def pop(self) -> T | None:
        """Remove and return the next image; None if none waits."""
        if self._again:
            return self._again.popleft()
        lines = [line for line in self._lines.values() if line.share.total]
        if not lines:
            return None
        line = min(lines, key=lambda line: line.served)
        self._served = line.served
        return line.pop()

    def remove(self, ticket: T) -> bool:
        """Remove an abandoned image; returns whether it was waiting."""
        if ticket in self._again:
            self._again.remove(ticket)
            return True
        return self._lines[ticket.lane].remove(ticket)

    def ahead(self, lane: Lane, principal: str, images: int) -> int:
        """How many images will be sent to workers until N more images of this principal (caller) have been sent.

        For the callers who are there now: later ones may come in between.
        """
        line = self._lines[lane]
        own = line.ahead(principal, images)
        others = (
            min(other.share.total, math.ceil(own * other.weight / line.weight))
            for other in self._lines.values()
            if other is not line
        )
        return len(self._again) + own + sum(others)
