"""What a process holds: if it holds more after a run than before, something leaks."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Holdings:
    """Counts of everything that can be forgotten."""

    tasks: int
    descriptors: int
    threads: int

    @classmethod
    def now(cls) -> Holdings:
        return cls(len(asyncio.all_tasks()), len(list(Path("/proc/self/fd").iterdir())), threading.active_count())

    def within(self, other: Holdings) -> bool:
        return self == self.least(other)

    def least(self, other: Holdings) -> Holdings:
        return Holdings(
            min(self.tasks, other.tasks),
            min(self.descriptors, other.descriptors),
            min(self.threads, other.threads),
        )


async def settled(before: Holdings, seconds: float = 10.0) -> Holdings:
    """The least of each that is held within so long; returns as soon as it is no more than before."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    least = Holdings.now()
    while loop.time() < until and not least.within(before):
        await asyncio.sleep(0.02)
        least = least.least(Holdings.now())
    return least
