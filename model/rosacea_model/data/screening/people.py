"""Group pictures of one person by their identity embeddings.

How far apart two pictures of one person lie depends on what the pictures are like: for photographs of everyday life up
to 0.6, for a generator's faces or drawn ones, which look alike to the network, much less. So distances are measured in
the median of the data set, and two pictures belong together where, beyond being near, they have the same nearest
neighbours (as in the rank-order clustering of Otto, Wang and Jain 2018); groups grow by average linkage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rosacea_model.data.screening.hashes import groups

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]

NEIGHBOURS = 8  # nearest pictures that are compared, the nearer the weightier
DIFFERENCE = 0.8  # 1 = no neighbour in common; groups are joined below this
REACH = 0.68  # of the median distance: pictures further apart are not of one person
NEAREST, FURTHEST = 0.25, 0.6  # bounds of that; 0.6 is where the embedding's own threshold lies


def people(embeddings: Matrix) -> list[list[int]]:  # [n, 128] => groups of two and more
    """Group pictures that look like one person; returns groups of indices."""
    if len(embeddings) < 2:
        return []
    distances = _distances(embeddings)
    reach = float(np.clip(REACH * np.median(distances[np.triu_indices(len(distances), 1)]), NEAREST, FURTHEST))
    near = distances <= reach
    difference = np.where(near, _neighbour_difference(distances), np.float32(1))
    found = []
    for part in groups(len(embeddings), ((int(a), int(b)) for a, b in np.argwhere(np.triu(near, 1)))):
        found += [[part[place] for place in group] for group in _joined(difference[np.ix_(part, part)])]
    return sorted(found)


def _distances(embeddings: Matrix) -> Matrix:
    squares = (embeddings**2).sum(axis=1)
    products = embeddings @ embeddings.T
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * products, 0))
    np.fill_diagonal(distances, 0)
    return np.asarray(distances, np.float32)


def _neighbour_difference(distances: Matrix) -> Matrix:
    """Distance of two pictures: 1 - weighted Jaccard index of their nearest neighbours, themselves included."""
    count = min(NEIGHBOURS, len(distances))
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :count]
    weights = np.zeros_like(distances)
    np.put_along_axis(weights, nearest, np.arange(count, 0, -1, dtype=np.float32)[None] / count, axis=1)
    common = np.stack(
        [np.minimum(weights[row, columns], weights[:, columns]).sum(axis=1) for row, columns in enumerate(nearest)]
    )
    return np.asarray(1 - common / (count + 1 - common), np.float32)


def _joined(difference: Matrix) -> list[list[int]]:
    """Average-linkage clustering that stops at distance `DIFFERENCE`."""
    between = difference.astype(np.float64)
    np.fill_diagonal(between, np.inf)
    members = [[place] for place in range(len(between))]
    while between.size:
        one, other = (int(place) for place in np.unravel_index(between.argmin(), between.shape))
        if between[one, other] >= DIFFERENCE:
            break
        sizes = len(members[one]), len(members[other])
        between[one] = (between[one] * sizes[0] + between[other] * sizes[1]) / sum(sizes)
        between[:, one] = between[one]
        between[one, one] = np.inf
        between[other] = between[:, other] = np.inf
        members[one], members[other] = members[one] + members[other], []
    return [sorted(group) for group in members if len(group) > 1]
