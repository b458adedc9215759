"""Temporary folders that are removed with the processes that use them, however those end.

A killed process cannot clean up, so the next one to start does. Each folder has a lock file on which all its users hold
a shared lock. The kernel releases the locks of dead processes, so a process that gets the lock exclusively knows that
the folder is unused. Process ids would not do: containers share folders and do not see each other's processes.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PREFIX = "rosacea-"
LOCK_NAME = ".rosacea-held"  # the guard of TorchServe knows it, too

log = logging.getLogger(__name__)


class Scratch:
    """A new private folder, mode 0700. `with Scratch("rosacea-models-") as scratch: scratch.path`."""

    def __init__(self, prefix: str = PREFIX, parent: str | None = None) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent)).resolve()
        self._lock: int | None = None
        with suppress(OSError):  # a file system without locks: nobody will ever take this folder for a dead one's
            self._lock = new_lock(self.path / LOCK_NAME)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove the folder and its contents."""
        remove(self.path)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def new_lock(path: Path) -> int:
    """Create a lock file that is already locked when it gets its name, so that it is never seen unlocked."""
    nameless = path.with_name(path.name + ".new")
    descriptor = os.open(nameless, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        nameless.rename(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def sweep(parents: Iterable[Path] | None = None) -> list[Path]:
    """Remove the scratch folders of this user that no process uses any more, and return their paths."""
    if parents is None:
        parents = {Path(tempfile.gettempdir()).resolve(), Path("/tmp")}  # noqa: S108  # nosec B108 -- nothing is made here
    gone = [folder for parent in parents for folder in sorted(parent.glob(f"{PREFIX}*")) if remove_unused(folder)]
    if gone:
        log.info("removed what processes that were killed had left: %s", ", ".join(map(str, gone)))
    return gone


def remove_unused(folder: Path) -> bool:
    """Remove a folder if it is ours and unused; returns whether it was removed."""
    try:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return False
        with alone(folder / LOCK_NAME):
            remove(folder)
    except OSError:  # it is used, or is none of these, or has just been removed by another
        return False
    return True


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Context manager that holds an exclusive lock; OSError if it is held or missing."""
    descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def remove(folder: Path) -> None:
    """Remove a folder, its lock last, so that an interrupted removal can be told from a folder in use."""
    with suppress(FileNotFoundError):
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != LOCK_NAME:
                entry.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
