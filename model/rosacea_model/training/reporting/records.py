"""Reads a run's record files. Needs no torch.

What is damaged in them is left out: they are for people, and the run goes on from its checkpoints.
"""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

STATS_NAME = "stats.jsonl"
BEST_NAME = "best.json"
AT_SNAPSHOTS = {"distance", "kid", "layout", "leak_orientation", "leak_color"}  # records between repeat them
BEST = {"snapshot": str, "measure": str, "distance": float, "step": int}


def read_stats(run: Path) -> list[dict[str, Any]]:
    """Read stats.jsonl as records with kimg; truncated and other lines are skipped."""
    path = run / STATS_NAME
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [record for line in lines if (record := _numbers(_parsed(line))) and "kimg" in record]


def curve(name: str, records: Sequence[Mapping[str, float]]) -> list[tuple[float, float]]:
    """The points (kimg, value) of a figure, each where it was measured."""
    points = [(record["kimg"], record[name]) for record in records if math.isfinite(record.get(name, math.nan))]
    if name in AT_SNAPSHOTS:
        return points[:1] + [after for before, after in pairwise(points) if after[1] != before[1]]
    return points


def read_best(run: Path) -> dict[str, Any]:
    """Read which snapshot is closest to the reals; empty if there is none or the file is damaged."""
    path = run / "snapshots" / BEST_NAME
    best = _parsed(path.read_bytes()) if path.exists() else None
    if not isinstance(best, dict) or not all(isinstance(best.get(name), kind) for name, kind in BEST.items()):
        return {}
    return best


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; ValueError names the file if it holds none."""
    found = _parsed(path.read_bytes())
    if not isinstance(found, dict):
        raise ValueError(f"{path}: damaged, it must hold a JSON object")
    return found


def _parsed(data: bytes) -> object:
    """Parse JSON; None if invalid."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _numbers(record: object) -> dict[str, Any]:
    entries = record.items() if isinstance(record, dict) else ()
    return {name: value for name, value in entries if type(value) in (int, float) and not abs(value) > 1e300}
