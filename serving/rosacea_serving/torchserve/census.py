"""Tracks TorchServe's workers: alive, dead or hanging. It looks at the processes, because TorchServe reports workers as
ready whose process is dead, and never says which worker has a job."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Sequence


class Census:
    """The worker processes as last seen. Call `count` twice a second: even a worker whose model fails to load lives
    longer than that, since it imports torch first."""

    def __init__(self) -> None:
        self.pids: frozenset[int] = frozenset()
        self.lost = 0  # since the last proof that one can answer
        self.changed_at = time.monotonic()

    def count(self, pids: Sequence[int]) -> list[int]:
        """Update the list of workers; returns those that ended since the last call."""
        now = frozenset(pids)
        gone = sorted(self.pids - now)
        self.lost += len(gone)
        if now != self.pids:
            self.pids, self.changed_at = now, time.monotonic()
        return gone

    def proven(self) -> None:
        """Reset the number of lost workers, because a worker has answered: working ones have replaced them."""
        self.lost = 0


def kill_hung(pids: Sequence[int]) -> list[int]:
    """Kill stopped workers, or the only worker; returns those killed.

    Which of several that run has the overdue job, only TorchServe knows: its own limit, a little later, ends that one.
    Killing all would hit idle ones as well, and a job that is tried again at once would die with those. TorchServe
    replaces who is killed here and answers "Worker died" for their jobs, which are then sent again.
    """
    killed = [pid for pid in pids if _is_stopped(pid)] or list(pids if len(pids) == 1 else ())
    for pid in killed:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()
    return killed


def _is_stopped(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.Error:
        return False
