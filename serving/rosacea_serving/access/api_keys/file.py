"""Reads and rewrites the API key file, one process at a time."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rosacea_client.secrets import read_secret

from .keys import from_lines, to_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .keys import KeyRecord


def read_records(path: Path) -> list[KeyRecord]:
    """Read all key records; a ValueError names the file and what is wrong with it."""
    try:
        return from_lines(read_secret(path).decode())
    except UnicodeDecodeError:
        raise ValueError(f"{path} must be text") from None
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(str(path)) else f"{path}: {text}") from None


@contextmanager
def changing(path: Path) -> Iterator[list[KeyRecord]]:
    """Lock the file and yield its records for editing; they are written back unless an exception is raised."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        records = read_records(path) if path.exists() else []
        yield records
        _write(path, "".join(map(to_line, records)).encode())
    finally:
        os.close(folder)


def _write(path: Path, data: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600 from its first moment
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if path.exists():  # keep its permissions
                old = path.stat()
                os.fchown(file.fileno(), old.st_uid, old.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
