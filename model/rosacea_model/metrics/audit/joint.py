"""All spaces together: an image is as near to a training image as in the space where it is nearest.

Distances of a space are put in units of what images that are no copies show there: 0 is their median and -1 the
distance that one in a hundred goes below, on a logarithmic scale. The smallest over spaces is a distance of its own,
with a threshold of its own, so false alarms do not add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .spaces import Neighbours

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

JOINT = "joint"
LEAST = 1e-6  # distances below this count as this
NEAR = 0.01  # share of images that are no copies which defines -1


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Logarithmic distances of images that are no copies."""

    middle: float
    spread: float

    def of(self, distance: NDArray[np.float64]) -> NDArray[np.float64]:
        return (np.log(np.maximum(distance, LEAST)) - self.middle) / self.spread


def scale(controls: NDArray[np.float64]) -> Scale:
    """The scale of a space, from the distances of images that are no copies."""
    near, middle = np.quantile(np.log(np.maximum(controls, LEAST)), [NEAR, 0.5])
    return Scale(middle=float(middle), spread=max(float(middle - near), 1e-3))


def joined(found: Mapping[str, Neighbours], scales: Mapping[str, Scale]) -> Neighbours:
    """The nearest over spaces, with the training image that is nearest there."""
    spaces = list(found)
    distances = np.stack([scales[name].of(found[name].distance) for name in spaces])
    best, rows = distances.argmin(axis=0), np.arange(distances.shape[1])
    return Neighbours(
        distance=distances.min(axis=0),
        index=np.stack([found[name].index for name in spaces])[best, rows],
        mirrored=np.stack([found[name].mirrored for name in spaces])[best, rows],
    )
