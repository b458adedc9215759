"""Provenance and timings of answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rosacea.v1 import faces_pb2 as pb

SEED_SCHEMES = {1: "numpy-randomstate"}


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Timing breakdown of an answer."""

    queue_seconds: float
    render_seconds: float
    encode_seconds: float

    @classmethod
    def from_pb(cls, timings: pb.Timings) -> Timings:
        """Decode an answer's timings."""
        return cls(**{name: getattr(timings, name) for name in cls.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Provenance of faces or latents: model, digest, fingerprint, seed scheme."""

    model: str  # models/NAME/revisions/DIGEST
    digest: str  # SHA-256 of the model's weights
    fingerprint: str  # equal ones and equal requests give equal bytes, unless it ends in +c2pa
    seed_scheme: str  # how seeds became latents


def made_by(provenance: pb.Provenance) -> dict[str, str]:
    """Decode the fields of Provenance, for classes that extend it."""
    return {
        "model": provenance.model,
        "digest": provenance.digest,
        "fingerprint": provenance.fingerprint,
        "seed_scheme": named(SEED_SCHEMES, provenance.seed_scheme),
    }


def named(names: Mapping[int, str], number: int) -> str:
    """Name of an enum value; `unknown-NUMBER` for one that only a newer service knows."""
    return names.get(number, f"unknown-{number}")
