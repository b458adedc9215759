"""Runs background tasks, logs and counts their failures, and restarts them.

An exception that nobody foresaw would end a task without a word, and what the task looked after would stand still. Here
it is logged with its traceback, counted under the name of the task, and the task goes on.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from prometheus_client import Counter

PAUSE_SECONDS = 1.0  # before a task that failed begins anew

log = logging.getLogger(__name__)


class Task(StrEnum):
    """Names of the background tasks, in logs and metrics."""

    FILES = "files"  # watches keys, certificates and an issuer's keys on disk
    ISSUER = "issuer"  # fetches an issuer's keys
    TORCHSERVE = "torchserve"  # starts TorchServe, and again
    CENSUS = "census"  # counts its workers
    CANARY = "canary"  # asks its workers for a face
    STATE = "state"  # reports a change of state and lost workers
    JOB = "job"  # takes a job to a worker and hands out what comes back
    SWAP = "swap"  # reads the models again
    RETIRE = "retire"  # ends a model that was replaced
    METRICS = "metrics"  # answers scrapes


class Background:
    """Restarts failed tasks and counts their failures if there is a counter."""

    def __init__(self, failures: Counter | None = None) -> None:
        self._failures = failures
        for task in Task if failures else ():
            self.failures_of(task)  # so that the first one is a rise and not a beginning

    def failures_of(self, task: Task) -> Counter | None:
        """The failure counter of one task; None if failures are not counted."""
        return self._failures.labels(task) if self._failures else None

    def failed(self, task: Task) -> None:
        """Log and count the exception that is being handled."""
        if counter := self.failures_of(task):
            counter.inc()
        log.exception("an error that was not foreseen, the service goes on: %s", task)

    @contextmanager
    def guarding(self, task: Task, but: type[Exception] | tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Context manager around one step of a task: exceptions, except those in `but`, end the step and not the
        task."""
        try:
            yield
        except but:
            raise
        except Exception:
            self.failed(task)

    async def keep(self, task: Task, work: Callable[[], Awaitable[None]]) -> None:
        """Run the work, and run it again after a pause when it fails, until it returns or is cancelled."""
        while True:
            with self.guarding(task):
                return await work()
            await asyncio.sleep(PAUSE_SECONDS)
