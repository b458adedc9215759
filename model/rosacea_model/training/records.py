"""The files in which a run tells of itself, as others read them. Needs no torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

STATS_NAME = "stats.jsonl"
BEST_NAME = "best.json"


def read_stats(run: Path) -> list[dict[str, Any]]:
    """The records of stats.jsonl; a last line that was cut off is left out."""
    path = run / STATS_NAME
    records = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def read_best(run: Path) -> dict[str, Any]:
    """Which snapshot is the nearest to the reals so far; empty before the first."""
    path = run / "snapshots" / BEST_NAME
    best: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return best
