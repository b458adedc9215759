"""What happens to processes: they are killed, they are paused."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil


def kill(process: psutil.Process, seconds: float = 10.0) -> None:
    """SIGKILL, and wait until it is gone."""
    process.kill()
    process.wait(seconds)


@contextmanager
def paused(process: psutil.Process) -> Iterator[None]:
    """SIGSTOP for the time of the block: not dead, and no answer. Goes on afterwards, unless somebody killed it."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        if process.is_running():
            process.send_signal(signal.SIGCONT)
