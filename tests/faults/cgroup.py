"""Memory limits that the kernel enforces: a cgroup whose processes are killed when they take more."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path("/sys/fs/cgroup/memory")


class NotPermittedError(Exception):
    """What a fault needs is not to be had here; the text says what."""


class MemoryGroup:
    """Counts the memory that its processes take from when they join; kills one when that is above the limit."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, process: int) -> None:
        (self._folder / "cgroup.procs").write_text(str(process))

    @property
    def kills(self) -> int:
        """Processes that the kernel has killed for it."""
        rows = (self._folder / "memory.oom_control").read_text().splitlines()
        return next(int(row.split()[1]) for row in rows if row.startswith("oom_kill "))


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """A group that is gone after the block; processes still in it go back to the group above."""
    folder = ROOT / f"rosacea-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(limit_bytes))
    except OSError as error:
        raise NotPermittedError(f"a memory cgroup (version 1) below {ROOT}: {error.strerror}") from error
    try:
        yield MemoryGroup(folder)
    finally:
        for process in (folder / "cgroup.procs").read_text().split():
            (ROOT / "cgroup.procs").write_text(process)
        folder.rmdir()
