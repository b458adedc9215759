"""What a process holds: if it holds more after a run than before, something leaks."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_SECONDS = 0.02  # between two looks
NUMBERS = re.compile(r"[\d_-]*\d")
# What is drawn by lot in the names of temporary files and folders, beside numbers.
LOTS = re.compile(r"(?<=rosacea-)(models-)?[a-z0-9_]{8}|(?<=tmp)[a-z0-9_]{8}|[0-9a-f]{16,}")


def holdings() -> Counter[str]:
    """How much there is in this process of everything that can be forgotten; called in its event loop."""
    tasks = (f"task: {getattr(task.get_coro(), '__qualname__', task)}" for task in asyncio.all_tasks())
    threads = (f"thread: {plain(thread.name)}" for thread in threading.enumerate())
    return Counter([*tasks, *threads]) + descriptors()


def descriptors(process: int | None = None) -> Counter[str]:
    """Open files of a process, this one where none is named, by what they lead to: socket, pipe, a path."""
    found: Counter[str] = Counter()
    for entry in Path(f"/proc/{process or 'self'}/fd").iterdir():
        with suppress(OSError):  # the one that lists them, and those that are being closed
            found[f"descriptor: {plain(str(entry.readlink()))}"] += 1
    return found


def listing(folder: Path) -> Counter[str]:
    """The files below a folder."""
    return Counter(f"file: {folder.name}/{plain(str(path.relative_to(folder)))}" for path in folder.rglob("*"))


def plain(name: str) -> str:
    """A name without what is different each time."""
    return NUMBERS.sub("", LOTS.sub("*", name))


async def settled(
    before: Counter[str], seconds: float = 10.0, look: Callable[[], Counter[str]] = holdings, leak: str = ""
) -> Counter[str]:
    """The least of each that is held within so long, in which the loop has as many turns however busy the machine is;
    returns as soon as it is no more than before, or more by the kind of a known leak alone."""
    least = look()
    for _ in range(round(seconds / LOOK_SECONDS)):
        if all(name.partition(":")[0] == leak for name in least - before):
            break
        await asyncio.sleep(LOOK_SECONDS)
        least &= look()
    return least
