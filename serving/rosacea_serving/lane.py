"""The two lanes of the queue. What each is given is decided in `scheduling/policy.py`."""

from __future__ import annotations

from enum import StrEnum


class Lane(StrEnum):
    """How urgent an image is."""

    INTERACTIVE = "interactive"  # somebody waits for the answer
    BULK = "bulk"  # a stream, read as its reader goes
