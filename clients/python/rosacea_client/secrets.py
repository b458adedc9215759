"""Reads and writes files with secrets, with restrictive permissions."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_BYTES = 2**20


def read_secret(path: Path) -> bytes:
    """Read a file that only its owner can read; a ValueError names the violated rule, an OSError the cause.

    A file of root's may be readable by a group of ours: so Kubernetes hands secrets to those who are not root.
    """
    return _read(path, check_mode)


def read_bounded(path: Path) -> bytes:
    """Read an operator's file that is not secret; ValueError if it is no regular file or too large, OSError if it
    cannot be read."""
    return _read(path, lambda path, found: None)


def _read(path: Path, check: Callable[[Path, os.stat_result], None]) -> bytes:
    # Without waiting, so that a pipe is refused like anything else that is no file.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path}: must be a file")
        check(path, found)
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path}: must have at most {MAX_BYTES} bytes")
    return data


def check_mode(path: Path, found: os.stat_result) -> None:
    """Raise ValueError unless the file is this user's and closed to all others, or root's and at most readable by its
    group."""
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid not in (os.geteuid(), 0):
        owner = found.st_uid
        raise ValueError(f"{path}: a file with secrets must belong to who reads it or to root, got uid {owner}")
    allowed, rule = (0o700, "0600") if found.st_uid == os.geteuid() else (0o740, "0640")
    if mode & ~allowed:
        raise ValueError(f"{path}: a file with secrets must have mode {rule} or less, it has {mode:04o}")


def write_secret(path: Path, data: bytes) -> None:
    """Write a new file that only its owner can read; FileExistsError if it exists."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
