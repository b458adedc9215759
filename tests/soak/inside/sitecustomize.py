"""Python imports this at its start where this folder is on PYTHONPATH: `rosacea serve` itself then tells what it holds.

At SIGUSR1 it writes its holdings to the file that SOAK_TELL names, as JSON. With SOAK_LEAK_BYTES every GenerateFaces
call leaks so many bytes: the negative control of the memory check.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from tests.faults.leaks import holdings


def tell(*_: object) -> None:
    """In one step, so that nobody reads half of it."""
    path = Path(os.environ["SOAK_TELL"])
    text = json.dumps(holdings())
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


def leak(size: int) -> None:
    """Keep something of every call."""
    from rosacea_serving.api.servicer import FaceServicer

    kept: list[bytes] = []
    generate = FaceServicer.GenerateFaces

    async def leaking(self: FaceServicer, request: Any, context: Any) -> Any:
        kept.append(os.urandom(size))
        return await generate(self, request, context)

    FaceServicer.GenerateFaces = leaking  # type: ignore[method-assign]


if "SOAK_TELL" in os.environ:
    signal.signal(signal.SIGUSR1, tell)
if size := int(os.environ.get("SOAK_LEAK_BYTES", "0")):
    leak(size)
