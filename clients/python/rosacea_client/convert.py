"""Converts client arguments to requests, independent of the transport."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import numpy.typing as npt

from rosacea_client.seeds import parse_seeds
from rosacea_contract.fields import full_name
from rosacea_contract.spec import FaceSpec, LatentSpec

if TYPE_CHECKING:
    from rosacea_contract.spec import ImageFormat, LatentSpace, NoiseMode, StyleMix

Seeds = int | str | range | Sequence[int] | npt.NDArray[np.integer[Any]]

MAX_MESSAGE_BYTES = 64 * 2**20


class MappingOptions(TypedDict, total=False):
    """Options common to faces and latents; documented in `rosacea.v1.FaceSpec`."""

    model: str
    z: npt.ArrayLike | None
    truncation_psi: float | None
    truncation_cutoff: int | None
    class_index: int | str | None  # a class, or its name
    label_vector: npt.ArrayLike | None
    style_mixes: Sequence[StyleMix | Mapping[str, int]]


class FaceOptions(MappingOptions, total=False):
    """Options for faces."""

    w: npt.ArrayLike | None
    ws: npt.ArrayLike | None
    noise_mode: NoiseMode
    noise_seed: int | None
    format: ImageFormat
    jpeg_quality: int | None


class LatentOptions(MappingOptions, total=False):
    """Options for latents."""

    space: LatentSpace


def face_spec(seeds: Seeds | None, options: FaceOptions) -> FaceSpec:
    """Build the FaceSpec from a caller's arguments."""
    return FaceSpec(**seed_source(seeds), **_named(options))


def latent_spec(seeds: Seeds | None, options: LatentOptions) -> LatentSpec:
    """Build the LatentSpec from a caller's arguments."""
    return LatentSpec(**seed_source(seeds), **_named(options))


def _named(options: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the model by its full name."""
    return {name: full_name(value) if name == "model" else value for name, value in options.items()}


def seed_source(seeds: Seeds | None) -> dict[str, Any]:
    """Seeds as a field of a spec: `seed_range` for a range of step 1 or text such as `0-15`, otherwise `seeds`."""
    if isinstance(seeds, str):
        seeds = parse_seeds(seeds)
    if isinstance(seeds, range) and seeds.step == 1 and len(seeds):
        return {"seed_range": {"start": seeds.start, "count": len(seeds)}}
    return {"seeds": [seeds] if isinstance(seeds, (int, np.integer)) else seeds}


def counted(options: FaceOptions) -> int | None:
    """Number of faces according to the shape of z, w or ws; None for seeds, and for latents given as flat numbers."""
    for name, dimensions in (("z", 2), ("w", 2), ("ws", 3)):
        latents: Any = options.get(name)
        if latents is not None and np.ndim(latents) == dimensions:
            return len(latents)
    return None
