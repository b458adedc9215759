"""Share of authentic images (Alaa et al. 2022, "How faithful is your synthetic data?", section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..intervals import Estimate, wilson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .spaces import Neighbours


def authentic_share(found: Neighbours, own: NDArray[np.float64]) -> Estimate:
    """Share of images whose nearest training image lies no nearer than that image's own nearest training neighbour.

    `own` [M] are distances of the training images to the nearest other one. Images that are no copies reach about 1/2
    or more, which depends on the space: compare with the share of the hold-out.
    """
    authentic = found.distance > own[found.index]
    share = float(authentic.mean())
    low, high = wilson(share, len(authentic))
    return Estimate(value=share, low=low, high=high, n=len(authentic), method="Wilson")
