"""Intermediate latents received from the service."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rosacea.v1 import faces_pb2 as pb
from rosacea_client.errors import IntegrityError
from rosacea_client.results.provenance import Provenance, Timings, made_by, named
from rosacea_contract.spec import LATENT_SPACES


@dataclass(frozen=True, kw_only=True)
class Latents(Provenance):
    """Intermediate latents with their provenance."""

    array: npt.NDArray[np.float32] = field(repr=False, compare=False)  # [N, w_dim], or [N, num_ws, w_dim] for ws
    space: str  # w or ws: the argument of `generate` that takes the array
    seeds: tuple[int, ...]  # where they come from; empty for latents from z
    timings: Timings = field(repr=False, compare=False)

    @classmethod
    def from_pb(cls, answer: pb.MapLatentsResponse) -> Latents:
        """Decode an answer."""
        shape, data = tuple(answer.shape), answer.latents.data
        if len(data) != 4 * math.prod(shape) or len(shape) != (3 if answer.space == pb.LATENT_SPACE_WS else 2):
            raise IntegrityError(f"latents of shape {list(shape)} should have come, got {len(data)} bytes")
        return cls(
            array=np.frombuffer(data, "<f4").astype(np.float32).reshape(shape),
            space=named(LATENT_SPACES, answer.space),
            seeds=tuple(answer.seeds),
            timings=Timings.from_pb(answer.timings),
            **made_by(answer.provenance),
        )
