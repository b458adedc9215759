"""The fingerprint: what determines the exact bytes of an image, besides the request."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .runtimes.runtime import Runtime


def fingerprint(digest: str, runtime: Runtime) -> str:
    """SHA-256 of everything besides the request that determines the exact bytes; `digest` is the model's."""
    batch = f"micro-batch {runtime.micro_batch}"
    parts = [digest, version("rosacea"), runtime.description, runtime.hardware, batch]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
