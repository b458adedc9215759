"""Reloads files while the service runs, and keeps the last valid content if reading fails."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

from ..background import Background, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from prometheus_client import Counter

LOOK_SECONDS = 0.4  # between looks
MOST_LOOKS = 3  # after which a change is read even if the files are still changing: within two seconds in all

log = logging.getLogger(__name__)

T = TypeVar("T")
Stamps = list[tuple[int, ...] | None]


class Watched(Generic[T]):
    """Content of some files, reloaded on change. Invalid files raise ValueError or OSError at first; later they are
    only logged.

    Files that belong together are exchanged one after the other: a change is read once the files have not changed
    between two looks, or have been changing for so long that it must not wait any more. What cannot be read is tried
    again at every look: the cause may lie outside the files.
    """

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        read: Callable[[], T],
        reloads: Counter,
        background: Background | None = None,
    ) -> None:
        self._name = name
        self._paths = paths
        self._read = read
        self._done, self._refused = (reloads.labels(name, outcome) for outcome in ("done", "refused"))
        self._background = background or Background()
        self._seen = self._used = self._stamps()
        self._reported: tuple[Stamps, str] | None = None  # the last failure, so that it is reported once
        self._looks = 0  # since what is there differs from what was read
        self.value = read()

    async def watch(self) -> None:
        """Poll for changes until cancelled, on a dedicated thread."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix=self._name) as thread:
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                await loop.run_in_executor(thread, self.look)

    def look(self) -> None:
        """Reload the files once they have stopped changing; `value` is replaced as a whole or not at all."""
        before, self._seen = self._seen, self._stamps()
        self._looks = 0 if self._seen == self._used else self._looks + 1
        if self._looks and (self._seen == before or self._looks >= MOST_LOOKS):
            self._take()

    def _take(self) -> None:
        try:
            self.value = self._read()
        except BaseException as error:  # a panic in the Rust of cryptography is no Exception
            self._refuse(error)
        else:
            self._used, self._reported = self._seen, None
            self._done.inc()
            log.info("%s: what was changed is in use", self._name)

    def _refuse(self, error: BaseException) -> None:
        self._looks = 0
        failure = self._seen, f"{type(error).__name__}: {error}"
        if failure == self._reported:
            return
        self._reported = failure
        self._refused.inc()
        log.error("%s: the old ones go on, for what is there now cannot be used: %s", self._name, error)
        if not isinstance(error, ValueError | OSError):
            self._background.failed(Task.FILES)

    def _stamps(self) -> Stamps:
        return [_stamp(path) for path in self._paths]


def _stamp(path: Path) -> tuple[int, ...] | None:
    """A value that changes whenever the file does. Follows symbolic links, which is how Kubernetes replaces secrets."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode
