"""The checkout that a benchmark measures."""

from __future__ import annotations

import subprocess


def commit() -> str:
    """What git calls it, with `-dirty` where files differ; unknown without git."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
