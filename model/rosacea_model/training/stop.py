"""Stops a run on SIGTERM or Ctrl-C."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HEARD = b"\nstopping as soon as what can be kept is kept; asked once more, it ends at once\n"


@dataclass
class Stop:
    """Flag that a stop was requested."""

    wanted: bool = False


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """The first SIGTERM or Ctrl-C stops after the current step; the second has its usual effect."""
    stop = Stop()
    before: dict[int, Any] = {}

    def ask(number: int, frame: object) -> None:
        stop.wanted = True
        signal.signal(number, before[number])
        with suppress(OSError):
            os.write(2, HEARD)  # print may be in the midst of something else

    numbers: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        before[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
