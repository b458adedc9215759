"""The two priority lanes of the queue; `scheduling/policy.py` decides what each gets."""

from __future__ import annotations

from enum import StrEnum


class Lane(StrEnum):
    """Priority of an image."""

    INTERACTIVE = "interactive"  # somebody waits for the answer
    BULK = "bulk"  # a stream, read as its reader goes
