"""Images set aside for honest evaluation: near duplicates and pictures of one person stay on one side."""

from __future__ import annotations

import csv
import hashlib
import io
from typing import TYPE_CHECKING

from .errors import DataRejected
from .hashes import groups

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


def read_subjects(path: Path) -> dict[str, str]:
    """File name -> subject, from a CSV with the columns `file` and `subject`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataRejected(f"{path}: not readable as text: {error}") from error
    rows = csv.DictReader(io.StringIO(text))
    columns = rows.fieldnames or ()
    if not {"file", "subject"} <= set(columns):
        raise DataRejected(f"{path}: needs the columns file and subject, got {', '.join(columns) or 'none'}")
    return {row["file"].replace("\\", "/"): row["subject"] for row in rows if row["file"] and row["subject"]}


def same_subject(names: Sequence[str], subjects: Mapping[str, str]) -> list[tuple[int, int]]:
    """Pairs of places in the list that show one person: each with the first of that person."""
    first: dict[str, int] = {}
    pairs = []
    for place, name in enumerate(names):
        if subject := subjects.get(name):
            pairs.append((first.setdefault(subject, place), place))
    return [(one, other) for one, other in pairs if one != other]


def set_aside(
    keys: Sequence[str], classes: Sequence[object], pairs: Iterable[tuple[int, int]], *, share: float, seed: int
) -> set[int]:
    """Places of the images that are held out: about `share` of each class, and never one of a pair without the other.

    Chosen by the hash of the seed and of `keys` (digests of the images), so neither order nor names matter, and
    adding images moves few others. A group that would go beyond its class's share stays in training.
    """
    if not 0 < share < 1:
        raise ValueError(f"holdout must be above 0 and below 1, got {share}")
    together = groups(len(keys), pairs)
    alone = set(range(len(keys))) - {member for group in together for member in group}
    clusters = [*together, *([place] for place in sorted(alone))]
    order = {min(keys[member] for member in cluster): cluster for cluster in clusters}
    room = {kind: round(share * sum(other == kind for other in classes)) for kind in dict.fromkeys(classes)}
    held: set[int] = set()
    for key in sorted(order, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest()):
        kind = classes[order[key][0]]
        if len(order[key]) <= room[kind]:
            room[kind] -= len(order[key])
            held.update(order[key])
    return held
