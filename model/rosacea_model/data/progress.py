"""Progress of long commands: a bar on a terminal, occasional lines in a log."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

FIRST_LINE_SECONDS, SECONDS_BETWEEN_LINES = 1.0, 30.0


@contextmanager
def progress_on(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """Context manager that yields a function to call with (done, total).

    Outside a terminal the first line comes after a second, with an estimate of what is left.
    """
    if console.is_terminal:
        columns = (TextColumn(what, markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    started = time.monotonic()
    printed = started + FIRST_LINE_SECONDS - SECONDS_BETWEEN_LINES

    def line(done: int, total: int) -> None:
        nonlocal printed
        now = time.monotonic()
        if done and now - printed >= SECONDS_BETWEEN_LINES:
            printed = now
            left = (now - started) * (total - done) / max(done, 1)
            console.print(f"{what}: {done} of {total}, about {left:.0f} s left", markup=False)

    yield line
