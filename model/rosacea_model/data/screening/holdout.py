"""Selects hold-out images; near duplicates and pictures of one person stay together."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from typing import TYPE_CHECKING

from ..errors import DataRejected
from ..names import decoded, matched
from .hashes import groups

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path


def read_subjects(path: Path) -> dict[str, str]:
    """Read a CSV with columns `file` and `subject`, as file name -> subject."""
    subjects: dict[str, str] = {}
    for line, name, subject in _rows(path):
        if name and subject and subjects.setdefault(name, subject) != subject:
            raise DataRejected(f"{path}, line {line}: {name} has two subjects, {subjects[name]} and {subject}")
    return subjects


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line number, file and subject of each row."""
    try:
        rows = csv.DictReader(io.StringIO(decoded(path.read_bytes()), newline=""), skipinitialspace=True)
        columns = [column.strip().casefold() for column in rows.fieldnames or ()]
        if not {"file", "subject"} <= set(columns):
            hint = _separated_otherwise(columns)
            raise DataRejected(f"{path}: needs the columns file and subject, got {', '.join(columns) or 'none'}{hint}")
        rows.fieldnames = columns
        for row in rows:
            yield rows.line_num, (row["file"] or "").strip().replace("\\", "/"), (row["subject"] or "").strip()
    except (OSError, ValueError, csv.Error) as error:
        raise DataRejected(f"{path}: not readable as a CSV: {error}") from error


def _separated_otherwise(columns: Sequence[str]) -> str:
    header = "".join(columns)
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if mark in header:
            return f": its columns are separated by {name}; save it with commas"
    return ""


def subjects_of(path: Path, subjects: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Map pictures to subjects. Every row must match a picture: a list that misses them would protect nobody."""
    found = matched(subjects, names)
    strangers = sorted(set(subjects) - set(found))
    if strangers or not subjects:
        such = f", such as {strangers[0]}; a picture of the source is {names[0]}" if strangers and names else ""
        raise DataRejected(f"{path}: {len(strangers)} of its {len(subjects)} files are no picture of the source{such}")
    return {found[name]: subject for name, subject in subjects.items()}


def same_subject(names: Sequence[str], subjects: Mapping[str, str]) -> list[tuple[int, int]]:
    """Pairs of list indices of one person, each with that person's first picture."""
    first: dict[str, int] = {}
    pairs = []
    for place, name in enumerate(names):
        if subject := subjects.get(name):
            pairs.append((first.setdefault(subject, place), place))
    return [(one, other) for one, other in pairs if one != other]


def set_aside(
    keys: Sequence[str], classes: Sequence[object], pairs: Iterable[tuple[int, int]], *, share: float, seed: int
) -> set[int]:
    """Indices of hold-out images: about `share` of each class, never splitting a pair.

    Chosen by the hash of the seed and of `keys` (digests of the images), so neither order nor names matter, and
    adding images moves few others. A group that would go beyond its class's share stays in training.
    """
    if not 0 < share < 1:
        raise ValueError(f"holdout must be above 0 and below 1, got {share}")
    together = groups(len(keys), pairs)
    alone = set(range(len(keys))) - {member for group in together for member in group}
    clusters = [*together, *([place] for place in sorted(alone))]
    order = {min(keys[member] for member in cluster): cluster for cluster in clusters}
    room = _room(classes, share)
    held: set[int] = set()
    for key in sorted(order, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest()):
        kind = classes[order[key][0]]
        if len(order[key]) <= room[kind]:
            room[kind] -= len(order[key])
            held.update(order[key])
    return held


def _room(classes: Sequence[object], share: float) -> dict[object, int]:
    """Hold-out quota of each class; what rounding leaves goes to the classes that lost most."""
    sizes = Counter(classes)
    room = {kind: int(share * size) for kind, size in sizes.items()}
    rest = round(share * len(classes)) - sum(room.values())
    most_lost = sorted(sizes, key=lambda kind: (room[kind] - share * sizes[kind], -sizes[kind], str(kind)))
    for kind in most_lost[:rest]:
        room[kind] += 1
    return room
