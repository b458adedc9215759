"""The inputs of one face: a latent and settings. Seeds mean the same as in other StyleGAN programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from .config import GeneratorConfig

SEED_LIMIT = 2**32
LATENT_FIELDS = ("seed", "z", "w", "ws")


@dataclass(frozen=True, kw_only=True)
class MixedRows:
    """Style mixing: rows first_row to end_row - 1 of ws come from another seed."""

    seed: int
    first_row: int
    end_row: int


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceSample:
    """One face to draw: exactly one of seed, z, w and ws, and how to draw it."""

    seed: int | None = None
    z: NDArray[np.float32] | None = None  # [z_dim]
    w: NDArray[np.float32] | None = None  # [w_dim], used for every layer
    ws: NDArray[np.float32] | None = None  # [num_ws, w_dim], a row for each layer
    truncation_psi: float = 1.0  # for seed and z; w and ws are used as they are
    truncation_cutoff: int | None = None  # rows that are truncated; None = all
    noise_mode: Literal["const", "none", "random"] = "const"
    noise_seed: int = 0  # where noise_mode is random
    label: NDArray[np.float32] | None = None  # [c_dim]; None = unconditional, or w or ws
    mixes: tuple[MixedRows, ...] = ()  # applied in order; for seed and z

    def check(self, config: GeneratorConfig) -> None:
        """Raise ValueError, naming the field, unless a generator of this config can draw it."""
        given = [name for name in LATENT_FIELDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"a sample has exactly one of seed, z, w and ws, got {' and '.join(given) or 'none'}")
        _check_array("z", self.z, (config.z_dim,))
        _check_array("w", self.w, (config.w_dim,))
        _check_array("ws", self.ws, (config.num_ws, config.w_dim))
        _check_array("label", self.label, (config.c_dim,))
        if self.label is None and config.c_dim and given[0] in ("seed", "z"):
            raise ValueError(label_rule(config.c_dim))
        check_seed("noise_seed", self.noise_seed)
        if self.seed is not None:
            check_seed("seed", self.seed)
        if not np.isfinite(self.truncation_psi):
            raise ValueError(f"truncation_psi must be finite, got {self.truncation_psi}")
        if self.truncation_cutoff is not None and not 0 <= self.truncation_cutoff <= config.num_ws:
            raise ValueError(f"truncation_cutoff must be from 0 to {config.num_ws}, got {self.truncation_cutoff}")
        if given[0] in ("w", "ws") and (self.mixes or self.truncation_psi != 1):
            raise ValueError(f"{given[0]} is used as it is: it takes neither truncation nor style mixes")
        for mix in self.mixes:
            check_seed("seed of a style mix", mix.seed)
            if not 0 <= mix.first_row < mix.end_row <= config.num_ws:
                raise ValueError(
                    f"a style mix takes rows within 0 to {config.num_ws}, got {mix.first_row} to {mix.end_row}"
                )


def label_rule(classes: int) -> str:
    """Text of the error for asking a conditional model for a face without a class."""
    return (
        f"the model is conditional: label must be a class from 0 to {classes - 1}, or {classes} weights "
        "(zeros for no class), got None"
    )


def check_seed(name: str, seed: int) -> None:
    if not 0 <= seed < SEED_LIMIT:
        raise ValueError(f"{name} must be from 0 to 2**32 - 1, got {seed}")


def _check_array(name: str, array: NDArray[np.float32] | None, shape: tuple[int, ...]) -> None:
    if array is None:
        return
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {list(shape)}, got {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite")


def latents(seeds: Iterable[int], z_dim: int) -> NDArray[np.float32]:  # => [N, z_dim]
    """Input latents of seeds, each from a numpy RandomState of its own, so that none depends on its neighbours."""
    rows = [np.random.RandomState(seed).randn(1, z_dim) for seed in seeds]
    return np.concatenate(rows).astype(np.float32) if rows else np.empty((0, z_dim), np.float32)


def noise_images(noise_seed: int, shapes: Sequence[tuple[int, int]]) -> list[NDArray[np.float32]]:
    """Noise for each layer, drawn in order from one numpy RandomState: a pure function of the seed."""
    rng = np.random.RandomState(noise_seed)
    return [rng.randn(*shape).astype(np.float32) for shape in shapes]


def one_hot(index: int, width: int) -> NDArray[np.float32]:  # => [width]
    """The label vector of a class."""
    if not 0 <= index < width:
        raise ValueError(f"class index must be from 0 to {width - 1}, got {index}")
    vector = np.zeros(width, np.float32)
    vector[index] = 1
    return vector
