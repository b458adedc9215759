"""Self-test of a worker: a latent must give the same bytes whatever else is in the batch.

Run by every worker when it has loaded its model and before it takes a job; it also warms the worker up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rosacea_model.errors import RenderError
from rosacea_model.sample import FaceSample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .drawing import Drawing

PROBE = 0  # the seed that is drawn again and again
NEIGHBOUR = 1  # the seed that stands beside it


class NotDeterministic(RenderError):
    """The model does not give the same bytes twice on this device."""


def self_test(engine: Drawing) -> None:
    """Draw one latent alone, then first and last in a batch of more than a micro-batch; raise unless all bytes agree.

    Raises NotDeterministic, or what is wrong with the face itself.
    """
    alone = _render(engine, [PROBE])[0]
    batch = _render(engine, [PROBE, *[NEIGHBOUR] * engine.micro_batch, PROBE])
    for place in (0, -1):
        if not np.array_equal(batch[place], alone):
            levels = int(np.abs(batch[place].astype(np.int16) - alone).max())
            raise NotDeterministic(
                f"seed {PROBE} must give the same pixels alone and in a batch of {len(batch)}, "
                f"they differ by up to {levels} of 255"
            )


def _render(engine: Drawing, seeds: list[int]) -> list[NDArray[np.uint8]]:
    images = []
    label = np.zeros(engine.config.c_dim, np.float32) if engine.config.c_dim else None
    for outcome in engine.render_each([FaceSample(seed=seed, label=label) for seed in seeds]):
        if isinstance(outcome, Exception):
            raise outcome
        images.append(outcome)
    return images
