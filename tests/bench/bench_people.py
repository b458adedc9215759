"""Whether pictures of one person are grouped: `python -m tests.bench.bench_people`. Needs the extra `faces`.

Fifty of the phantoms' people, six pictures each in other light, pose and state of the disease; the adjusted Rand index
of the groups that were found, 1 where they are the people, 0 where they are chance.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from rosacea_model.data.screening.faces import FaceFinder
from rosacea_model.data.screening.people import people
from tests.model.data.test_people import portrait

if TYPE_CHECKING:
    from numpy.typing import NDArray

PEOPLE, EACH, SIDE = 50, 6, 256


def main() -> None:
    first = int(sys.argv[1]) if len(sys.argv) > 1 else 0  # further people: 50, 100, ...
    places = [(first + place // EACH, place % EACH) for place in range(PEOPLE * EACH)]
    with ProcessPoolExecutor() as pool:
        embeddings = list(pool.map(embedding, places, chunksize=EACH))
    seen = [place for place, found in enumerate(embeddings) if found is not None]
    truth = np.array([places[place][0] for place in seen])
    groups = people(np.stack([found for found in embeddings if found is not None]))
    labels = np.arange(len(seen)) + len(groups)  # alone, unless a group says otherwise
    for number, group in enumerate(groups):
        labels[group] = number
    print(
        f"people {first} to {first + PEOPLE - 1}: {len(seen)} of {len(places)} faces found, {len(groups)} groups, "
        f"adjusted Rand index {adjusted_rand_index(truth, labels):.3f}"
    )


def embedding(place: tuple[int, int]) -> NDArray[np.float32] | None:
    faces = finder().find(portrait(*place, SIDE))
    return faces[0].embedding if faces else None


@cache
def finder() -> FaceFinder:
    return FaceFinder()


def adjusted_rand_index(one: NDArray[np.intp], other: NDArray[np.intp]) -> float:
    """Hubert and Arabie 1985."""
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one, other), 1)
    together, first, second = (pairs(counts) for counts in (table, table.sum(axis=1), table.sum(axis=0)))
    expected = first * second / pairs(np.array([table.sum()]))
    return float((together - expected) / ((first + second) / 2 - expected))


def pairs(counts: NDArray[np.float64]) -> float:
    return float((counts * (counts - 1) / 2).sum())


if __name__ == "__main__":
    main()
