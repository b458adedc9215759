"""Files that take effect while the service runs: read again when they change, kept as they were where that fails."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from prometheus_client import Counter

LOOK_SECONDS = 0.5      # between looks; a change takes effect within three of them

log = logging.getLogger(__name__)

T = TypeVar("T")


class Watched(Generic[T]):
    """What some files hold. Made once with a ValueError or OSError where they are wrong; later ones are only told.

    Files that belong together are exchanged one after the other: a change is read once the files have not changed
    between two looks.
    """

    def __init__(self, name: str, paths: Sequence[Path], read: Callable[[], T], reloads: Counter) -> None:
        self._name = name
        self._paths = paths
        self._read = read
        self._done, self._refused = (reloads.labels(name, outcome) for outcome in ("done", "refused"))
        self._seen = self._taken = self._stamps()
        self.value = read()

    async def watch(self) -> None:
        """Look for changes until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Take a change that has come to rest; `value` is exchanged whole or not at all."""
        before, self._seen = self._seen, self._stamps()
        if self._seen == self._taken or self._seen != before:
            return
        self._taken = self._seen
        try:
            self.value = self._read()
        except (ValueError, OSError) as error:
            self._refused.inc()
            log.error("%s: the old ones go on, for what is there now cannot be used: %s", self._name, error)
        else:
            self._done.inc()
            log.info("%s: what was changed is in use", self._name)

    def _stamps(self) -> list[tuple[int, ...] | None]:
        return [_stamp(path) for path in self._paths]


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What changes with a file; through links, which is how Kubernetes exchanges secrets."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode
