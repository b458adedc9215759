"""How well each group of the real images is covered by generated ones, worst group first.

Groups are those of the data's labels, thirds of a skin-colour statistic (the individual typology angle of calm skin,
which is neither a Fitzpatrick nor a Monk type), and any that people have stated in a list.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MetricError
from ..intervals import LEVEL, Estimate, wilson

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ..fidelity.neighbours import NeighbourFlags

FEWEST = 10  # images of a group; of fewer, a share says nothing
THIRDS = ("darkest third", "middle third", "lightest third")
LABEL, SKIN_COLOUR, STATED = "label", "skin colour", "stated group"
MAX_LIST_BYTES = 2**24


@dataclass(frozen=True, kw_only=True)
class GroupCoverage:
    """How much of one group of real images the generated ones cover."""

    kind: str  # LABEL, SKIN_COLOUR or STATED
    name: str
    reals: int
    coverage: Estimate  # share of them with a generated image in their neighbourhood
    recall: Estimate  # share of them within a neighbourhood of a generated image


def group_coverage(found: NeighbourFlags, groups: Mapping[str, Sequence[str]]) -> tuple[list[GroupCoverage], list[str]]:
    """Coverage of each group of each kind, the worst first, and the groups that are too small, with their counts.

    `groups` names the group of each real image, [N] for each kind. Intervals are Wilson's, for these generated images.
    """
    rows, small = [], []
    for kind, names in groups.items():
        for name in sorted(set(names)):
            members = np.array([each == name for each in names])
            if members.sum() < FEWEST:
                small.append(f"{kind} {name}: {members.sum()} images, at least {FEWEST} are needed")
                continue
            coverage, recall = (_share(flags[members]) for flags in (found.covered, found.reached))
            row = GroupCoverage(kind=kind, name=name, reals=int(members.sum()), coverage=coverage, recall=recall)
            rows.append(row)
    return sorted(rows, key=lambda row: row.coverage.value), small


def thirds(tone: NDArray[np.float64]) -> list[str]:
    """The third of each image by its skin-colour statistic, degrees [N]."""
    edges = np.quantile(tone, [1 / 3, 2 / 3])
    return [THIRDS[place] for place in np.digitize(tone, edges)]


def read_groups(path: Path, names: Iterable[str]) -> list[str]:
    """The stated group of each image from a CSV with the columns file and group; MetricError names what is missing."""
    if path.stat().st_size > MAX_LIST_BYTES:
        raise MetricError(f"{path}: a list of groups must have at most {MAX_LIST_BYTES} bytes")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if not {"file", "group"} <= set(rows.fieldnames or ()):
            raise MetricError(f"{path}: needs the columns file and group, got {', '.join(rows.fieldnames or ())[:80]}")
        stated = {row["file"]: (row["group"] or "").strip() for row in rows}
    listed = list(names)
    if missing := [name for name in listed if not stated.get(name)]:
        raise MetricError(f"{path}: must state a group for every image, {len(missing)} have none, such as {missing[0]}")
    return [stated[name] for name in listed]


def _share(flags: NDArray[np.bool_]) -> Estimate:
    value = float(flags.mean())
    low, high = wilson(value, len(flags), LEVEL)
    return Estimate(value=value, low=low, high=high, n=len(flags), method="Wilson")
