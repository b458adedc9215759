"""Waiting for what happens in threads and processes of its own, however long it takes on a busy machine."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HANG_SECONDS = 240.0


def wait_for(holds: Callable[[], object], seconds: float = HANG_SECONDS) -> None:
    """Wait until it holds; an AssertionError where it never does."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"it must come to hold within {seconds:g} s"
        time.sleep(0.01)


async def eventually(holds: Callable[[], object]) -> None:
    """As `wait_for`, while the loop runs on; a TimeoutError where it never holds."""
    async with asyncio.timeout(HANG_SECONDS):
        while not holds():  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.01)
