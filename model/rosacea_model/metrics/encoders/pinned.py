"""Weight files and their SHA-256, checked before a byte of them is parsed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ..errors import WeightsMissing

if TYPE_CHECKING:
    from pathlib import Path


def read_pinned(path: Path, sha256: str, way_out: str) -> bytes:
    """The bytes of a weight file; WeightsMissing, ending in `way_out`, unless it is there and has this SHA-256."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsMissing(f"{path}: cannot be read ({error.strerror}); {way_out}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise WeightsMissing(f"{path}: SHA-256 must be {sha256}, got {found}; {way_out}")
    return data
