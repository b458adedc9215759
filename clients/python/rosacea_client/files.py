"""Atomic writing and bounded reading of files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


MAX_READ_BYTES = 256 * 2**20  # far beyond any image that a model draws


def read_bounded(path: Path, most: int = MAX_READ_BYTES) -> bytes:
    """Read a file; ValueError if it has more than `most` bytes, whatever size it claims."""
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"a file must have at most {most} bytes, got more")
    return data


def write_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary file and rename it: `path` holds either the old or the new content."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
