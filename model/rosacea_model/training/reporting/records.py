"""The files that a run writes about itself, as other programs read them. Needs no torch.

What is damaged in them is left out: they are for people, and the run goes on from its checkpoints.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

STATS_NAME = "stats.jsonl"
BEST_NAME = "best.json"
BEST = {"snapshot": str, "measure": str, "distance": float, "step": int}


def read_stats(run: Path) -> list[dict[str, Any]]:
    """The records of stats.jsonl, each with its kimg; lines that are cut off or hold anything else are left out."""
    path = run / STATS_NAME
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [record for line in lines if (record := _numbers(_parsed(line))) and "kimg" in record]


def read_best(run: Path) -> dict[str, Any]:
    """Which snapshot is the nearest to the reals so far; empty before the first, and where the file is damaged."""
    path = run / "snapshots" / BEST_NAME
    best = _parsed(path.read_bytes()) if path.exists() else None
    if not isinstance(best, dict) or not all(isinstance(best.get(name), kind) for name, kind in BEST.items()):
        return {}
    return best


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; a ValueError names the file where it holds none."""
    found = _parsed(path.read_bytes())
    if not isinstance(found, dict):
        raise ValueError(f"{path}: damaged, it must hold a JSON object")
    return found


def _parsed(data: bytes) -> object:
    """What the JSON says; None where it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _numbers(record: object) -> dict[str, Any]:
    entries = record.items() if isinstance(record, dict) else ()
    return {name: value for name, value in entries if type(value) in (int, float) and not abs(value) > 1e300}
