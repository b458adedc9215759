"""Disk cache of faces by request: a second epoch needs no calls.

An entry is a file: SHA-256 of the rest, a line of JSON, the image. It is written beside and renamed, so several
processes may share a folder; one that does not match its hash is thrown away and asked for again. The key does not
hold the fingerprint: among workers of different kinds, the bytes of the first that drew a face are kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rosacea_client.data.shards import remove
from rosacea_client.files import read_bounded, write_atomically
from rosacea_client.results.face import Face
from rosacea_client.results.provenance import Timings

if TYPE_CHECKING:
    from collections.abc import Iterator

HASH_BYTES = 32
ROOM_AFTER = 0.9  # of the bound, once old entries have gone
NO_TIMINGS = Timings(queue_seconds=0, render_seconds=0, encode_seconds=0)

logger = logging.getLogger(__name__)


class FaceCache:
    """Cache folder of about `max_bytes` at most; evicts the least recently used faces.

    It is looked through whenever a process has added a tenth of its bound, so it may grow beyond by that much for
    each process. A disk that is full costs a warning, not the training.
    """

    def __init__(self, folder: str | Path, max_bytes: int = 10 * 2**30) -> None:
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, got {max_bytes}")
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self.damaged = 0  # entries that this process found not to match their hash
        self._added = max_bytes  # so that the first entry looks the folder through
        self._writes = True

    def get(self, key: str) -> Face | None:
        """The cached face, or None if it is missing or damaged; damaged entries are removed."""
        path = self._path(key)
        try:
            face = read_entry(read_bounded(path))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, RecursionError, IsADirectoryError):
            self.damaged += 1
            remove(path)
            return None
        with contextlib.suppress(OSError):  # a folder that can only be read serves as well
            os.utime(path)
        return face

    def put(self, key: str, face: Face) -> None:
        """Store a face."""
        if not self._writes:
            return
        facts = asdict(replace(face, image=b""))
        del facts["image"], facts["timings"]
        rest = json.dumps(facts).encode("ascii") + b"\n" + face.image
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, hashlib.sha256(rest).digest() + rest)
            self._added += HASH_BYTES + len(rest)
            if self._added > self.max_bytes // 10:
                self._added = 0
                self._make_room()
        except OSError as error:
            self._writes = False
            logger.warning("%s takes no more faces: %s", self.folder, error)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.face"

    def _make_room(self) -> None:
        found = sorted(self._entries())
        total = sum(size for _, size, _ in found)
        if total <= self.max_bytes:
            return
        for _, size, path in found:
            path.unlink(missing_ok=True)
            total -= size
            if total <= self.max_bytes * ROOM_AFTER:
                return

    def _entries(self) -> Iterator[tuple[int, int, Path]]:
        """Time of last use, bytes and path of each entry."""
        for path in self.folder.glob("??/*.face"):
            with contextlib.suppress(FileNotFoundError):  # another process was quicker
                stat = path.stat()
                yield stat.st_mtime_ns, stat.st_size, path


def read_entry(data: bytes) -> Face:
    """Decode a cache entry; ValueError or TypeError if it is invalid."""
    digest, rest = data[:HASH_BYTES], data[HASH_BYTES:]
    if digest != hashlib.sha256(rest).digest():
        raise ValueError("the entry does not match its hash")
    facts, _, image = rest.partition(b"\n")
    return Face(**json.loads(facts), image=image, timings=NO_TIMINGS)
