"""What happens to processes: they are killed, they are paused, they are forgotten."""

from __future__ import annotations

import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator


def kill(process: psutil.Process, seconds: float = 120.0) -> None:
    """SIGKILL, and wait until it is gone."""
    process.kill()
    process.wait(seconds)


@contextmanager
def paused(*processes: psutil.Process) -> Iterator[None]:
    """SIGSTOP during the block: not dead, and no answer. They go on afterwards, unless somebody killed them."""
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


def carriers(variable: str, value: str) -> list[psutil.Process]:
    """Processes of this machine with that in their environment: it is inherited, whoever their parent is by now."""
    found = []
    for each in psutil.process_iter():
        with suppress(psutil.Error):
            if each.environ().get(variable) == value and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
    return found
