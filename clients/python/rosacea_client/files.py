"""Writing files so that nobody ever sees half of one, and reading no more of one than there is room for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


MAX_READ_BYTES = 256 * 2**20  # far beyond any image that a model draws


def read_bounded(path: Path, most: int = MAX_READ_BYTES) -> bytes:
    """The bytes of a file; ValueError where there are more than `most`, whatever its size claims to be."""
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"a file must have at most {most} bytes, got more")
    return data


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside, then rename: `path` holds the old bytes or the new ones, never a part."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
