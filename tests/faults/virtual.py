"""Time that only passes when everybody waits: hours of load in seconds, the same on a busy machine.

    with virtual_time(monkeypatch) as run:
        run(main())

Everything in `main` that sleeps, and the scheduler's clock, go by the virtual clock. No sockets: only what runs in
this loop can be waited for.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    import pytest

CLOCKS = ("rosacea_serving.scheduling.scheduler.time", "rosacea_serving.calls.caller.time")


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        if timers and not self._ready:  # type: ignore[attr-defined]
            self._now = max(self._now, timers[0].when())
        super()._run_once()  # type: ignore[misc]


@contextmanager
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Yield what runs a coroutine under a clock that starts at 0."""
    loop = VirtualLoop()
    for clock in CLOCKS:
        monkeypatch.setattr(clock, SimpleNamespace(monotonic=loop.time))
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        yield runner.run
