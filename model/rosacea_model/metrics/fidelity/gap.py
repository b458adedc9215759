"""The gap between training and held-out images: whether generated images lie nearer to those that were trained on.

In the spirit of FLD (Jiralerspong et al. 2023, section 3): a Gaussian around each generated image, whose width is
fitted to real images; a copy's Gaussian becomes narrow and lies on one real image. Here the widths are fitted to
training and held-out images together, so that a model which treats both alike has a gap of 0 for any number of images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..distances import squared_distances
from ..errors import MetricError
from ..intervals import Estimate, first_order, normal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .moments import Rows

    Matrix = NDArray[np.float64]

COMPONENTS = 32  # of the principal components of the reals
ROUNDS = 30  # of expectation and maximisation
NARROWEST = 1e-3  # squared width, as a part of the mean variance of a component


def holdout_gap(train: Rows, held_out: Rows, fakes: Rows) -> Estimate:
    """Mean log-likelihood of training images minus that of held-out ones, in nats per dimension.

    0 = alike. Above 0: the fakes are nearer to the training images than to images of the same kind that the model has
    not seen. The interval takes the images as random and the mixture as given.
    """
    if min(len(train), len(held_out)) < 2:
        raise MetricError(f"the gap needs 2 images on each side, got {len(train)} and {len(held_out)}")
    reals = np.concatenate([np.asarray(train, np.float64), np.asarray(held_out, np.float64)])
    projected, centres = _projected(reals, np.asarray(fakes, np.float64))
    squares = squared_distances(projected, centres)
    likelihood = _log_likelihood(squares, _widths(squares, projected.shape[1]), projected.shape[1])
    seen, unseen = likelihood[: len(train)] / projected.shape[1], likelihood[len(train) :] / projected.shape[1]
    return normal(
        float(seen.mean() - unseen.mean()),
        first_order(seen, unseen),
        n=min(len(train), len(held_out)),
        method=f"widths fitted to both, {projected.shape[1]} components",
    )


def _projected(reals: Matrix, fakes: Matrix) -> tuple[Matrix, Matrix]:
    """Both in the first principal components of the reals, of mean variance 1."""
    middle = reals.mean(axis=0)
    _, sizes, directions = np.linalg.svd(reals - middle, full_matrices=False)
    kept = min(COMPONENTS, len(directions), max(len(reals) // 4, 1))
    scale = np.sqrt(np.square(sizes[:kept]).mean() / len(reals))
    if not scale > 0:
        raise MetricError("the gap needs real images that differ; all have the same features")
    basis = directions[:kept].T / scale
    return (reals - middle) @ basis, (fakes - middle) @ basis


def _widths(squares: Matrix, dimension: int) -> Matrix:  # => [M] squared widths
    """Squared width of each Gaussian, by expectation and maximisation with equal weights."""
    widths = np.full(squares.shape[1], np.median(squares) / dimension)
    for _ in range(ROUNDS):
        joint = _log_joint(squares, widths, dimension)
        share = np.exp(joint - joint.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        weight = share.sum(axis=0)
        fitted = (share * squares).sum(axis=0) / (dimension * np.maximum(weight, 1e-12))
        # A Gaussian that explains no image keeps its width.
        widths = np.where(weight > 1e-6, np.maximum(fitted, NARROWEST), widths)
    return widths


def _log_likelihood(squares: Matrix, widths: Matrix, dimension: int) -> Matrix:  # => [N]
    joint = _log_joint(squares, widths, dimension)
    largest = joint.max(axis=1, keepdims=True)
    found: Matrix = largest[:, 0] + np.log(np.exp(joint - largest).mean(axis=1))
    return found


def _log_joint(squares: Matrix, widths: Matrix, dimension: int) -> Matrix:
    found: Matrix = -squares / (2 * widths) - dimension / 2 * np.log(2 * np.pi * widths)
    return found
