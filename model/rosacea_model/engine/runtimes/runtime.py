"""What the engine needs of a runtime: both networks at one fixed batch size, and words for the fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

Map = Callable[..., Tensor]  # z [B, z_dim], and c [B, c_dim] if the network is conditional => w [B, w_dim]
# ws [B, num_ws, w_dim], a noise [B, 1, R, R] for each layer => images [B, ch, R, R], where B is the micro-batch
Synthesize = Callable[[Tensor, Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Runtime:
    """The networks of one model as they are executed on one device."""

    map: Map
    synthesize: Synthesize
    micro_batch: int  # the only batch size at which the networks are called
    description: str  # form, version and precision: all of it that changes bytes
    hardware: str
    copies_weights: bool = False  # whether it draws without the networks that it was made of
