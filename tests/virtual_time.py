"""An event loop whose time passes only while every task waits: tests of timeouts take no time and always run alike."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Moves its clock to the next timer as soon as nothing else is left to do; functions for threads run at once.

    Mark a test, or a module by `pytestmark`, with `virtual_time`. What the tested module asks of `time.monotonic` must
    be `loop_seconds` as well. Nothing here may wait for a socket, a process or a thread of its own.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        super().__init__(_NeverWaiting(self))

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._seconds

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self._seconds += seconds

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """Call the function now, in this thread, so that no other task runs meanwhile."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class _NeverWaiting(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self.loop = loop

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(None if timeout is None else 0)
        if timeout and not events:
            self.loop.forward(timeout)
        return events


def loop_seconds() -> float:
    """Time of the loop that runs, in place of `time.monotonic`."""
    return asyncio.get_running_loop().time()
