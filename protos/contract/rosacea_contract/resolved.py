"""A request resolved for its model; faces are created one at a time on demand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rosacea_contract.errors import InvalidSpec
from rosacea_contract.reasons import Reason, Violation
from rosacea_contract.spec import LatentSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rosacea_contract.spec import FaceSpec, ImageFormat, NoiseMode, StyleMix

DEFAULT_JPEG_QUALITY = 95
MAX_SHOWN = 20  # classes that an error names
MAPPED = ("w", "ws")  # sources that have been through the mapping network: their label is in them

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ModelLimits:
    """Sizes of a model and limits on requests."""

    name: str
    z_dim: int
    w_dim: int
    num_ws: int
    label_dim: int  # 0 = unconditional
    max_images: int
    class_names: tuple[str, ...] = ()  # of classes 0, 1, ...; empty where they have no names
    default_class: int | None = None  # of requests without a label; None = a conditional model refuses them


@dataclass(frozen=True, kw_only=True)
class FaceItem:
    """One face to draw, with every default filled in. Exactly one of seed, z, w and ws is set."""

    index: int
    seed: int | None = None
    z: Floats | None = None  # => [z_dim]
    w: Floats | None = None  # => [w_dim]
    ws: Floats | None = None  # => [num_ws, w_dim]
    truncation_psi: float = 1.0
    truncation_cutoff: int | None = None  # None = all rows
    noise_mode: NoiseMode = "const"
    noise_seed: int = 0  # 0 unless noise_mode is random
    label: Floats | None = None  # => [label_dim]; None = unconditional, or drawn from w or ws
    style_mixes: tuple[StyleMix, ...] = ()
    format: ImageFormat = "png"
    jpeg_quality: int = 0  # 0 unless format is jpeg


@dataclass(frozen=True, kw_only=True)
class ResolvedSpec:
    """The resolved faces of a request: `len(faces)` of them; `faces.item(i)` creates one."""

    spec: FaceSpec
    limits: ModelLimits
    count: int
    label: Floats | None

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[FaceItem]:
        return self.items()

    def items(self, start: int = 0) -> Iterator[FaceItem]:
        """The faces from `start` on, in order."""
        return map(self.item, range(start, self.count))

    def item(self, index: int) -> FaceItem:
        """The face at `index`, counted from 0."""
        if not 0 <= index < self.count:
            raise IndexError(f"index must be from 0 to {self.count - 1}, got {index}")
        spec = self.spec
        seeds = spec.seed_list
        return FaceItem(
            index=index,
            seed=None if seeds is None else seeds[index],
            z=self._row(spec.z, index),
            w=self._row(spec.w, index),
            ws=self._row(spec.ws, index),
            truncation_psi=1.0 if spec.truncation_psi is None else spec.truncation_psi,
            truncation_cutoff=spec.truncation_cutoff,
            noise_mode=spec.noise_mode,
            noise_seed=spec.noise_seed or 0,
            label=self.label,
            style_mixes=spec.style_mixes,
            format=spec.format,
            jpeg_quality=(spec.jpeg_quality or DEFAULT_JPEG_QUALITY) if spec.format == "jpeg" else 0,
        )

    def _row(self, latents: Floats | None, index: int) -> Floats | None:
        if latents is None:
            return None
        row: Floats = latents.reshape(self.count, -1)[index]
        return row.reshape(self.limits.num_ws, -1) if latents is self.spec.ws else row


def resolve(spec: FaceSpec | LatentSpec, limits: ModelLimits) -> ResolvedSpec:
    """Check the rules that depend on the model, and return the faces or latents. Raises InvalidSpec."""
    if isinstance(spec, LatentSpec):
        spec = spec.as_faces()
    size = spec.seed_range.count if spec.seed_range else len(getattr(spec, spec.source))
    found = [*size_rules(spec.source, size, limits), *_row_rules(spec, limits), *_label_rules(spec, limits)]
    if found:
        raise InvalidSpec(found)
    count = size // numbers_per_face(spec.source, limits)
    return ResolvedSpec(spec=spec, limits=limits, count=count, label=_label(spec, limits))


def numbers_per_face(source: str, limits: ModelLimits) -> int:
    """Number of seeds or values of a source that make one face."""
    return {"z": limits.z_dim, "w": limits.w_dim, "ws": limits.num_ws * limits.w_dim}.get(source, 1)


def size_rules(source: str, size: int, limits: ModelLimits) -> Iterator[Violation]:
    """Check the number of seeds or values in a source against the model; yields the violations."""
    path = f"spec.{source}"
    expected = numbers_per_face(source, limits)
    count, rest = divmod(size, expected)
    if rest:
        rule = f"{source} must hold a multiple of {expected} numbers for {limits.name}, got {size}"
        numbers = {"expected": str(expected), "actual": str(size)}
        yield Violation(path, Reason.LATENT_LENGTH_MISMATCH, rule, numbers)
    elif count > limits.max_images:
        rule = f"the request must ask for at most {limits.max_images} at once, got {count}"
        numbers = {"max": str(limits.max_images), "actual": str(count)}
        yield Violation(path, Reason.BATCH_TOO_LARGE, rule, numbers)


def _row_rules(spec: FaceSpec, limits: ModelLimits) -> Iterator[Violation]:
    numbers = {"max": str(limits.num_ws)}
    cutoff = spec.truncation_cutoff
    if cutoff is not None and cutoff > limits.num_ws:
        rule = f"truncation_cutoff must be at most {limits.num_ws} (num_ws of {limits.name}), got {cutoff}"
        yield Violation("spec.truncation_cutoff", Reason.TRUNCATION_OUT_OF_RANGE, rule, numbers)
    for place, mix in enumerate(spec.style_mixes):
        if mix.end_row > limits.num_ws:
            name = f"style_mixes[{place}].end_row"
            rule = f"{name} must be at most {limits.num_ws} (num_ws of {limits.name}), got {mix.end_row}"
            yield Violation(f"spec.{name}", Reason.STYLE_MIX_OUT_OF_RANGE, rule, numbers)


def _label_rules(spec: FaceSpec, limits: ModelLimits) -> Iterator[Violation]:
    if spec.label_vector is not None:
        yield from vector_rules(spec.label_vector.size, limits)
    elif spec.class_index is not None and limits.label_dim == 0:
        yield _no_label(limits)
    elif spec.class_index is not None and spec.class_index >= limits.label_dim:
        rule = f"label.class_index must be below {limits.label_dim} for {limits.name}, got {spec.class_index}"
        numbers = {"label_dim": str(limits.label_dim)}
        yield Violation("spec.label.class_index", Reason.LABEL_OUT_OF_RANGE, rule, numbers)
    elif spec.class_index is None and _needs_label(spec, limits) and limits.default_class is None:
        yield label_required(limits)


def _needs_label(spec: FaceSpec, limits: ModelLimits) -> bool:
    return limits.label_dim > 0 and spec.source not in MAPPED


def label_required(limits: ModelLimits) -> Violation:
    """Violation of a request to a conditional model that names no class."""
    shown = ", ".join(f"{number} {name}" for number, name in enumerate(limits.class_names[:MAX_SHOWN]))
    more = ", ..." if len(limits.class_names) > MAX_SHOWN else ""
    classes = f"{shown}{more}" if shown else f"0 to {limits.label_dim - 1}"
    rule = (
        f"{limits.name} is conditional: class_index must be one of {classes}, or label_vector hold "
        f"{limits.label_dim} weights (zeros for no class), got neither"
    )
    return Violation("spec.label", Reason.LABEL_REQUIRED, rule, {"label_dim": str(limits.label_dim)})


def vector_rules(size: int, limits: ModelLimits) -> Iterator[Violation]:
    """Check the number of values in a label vector against the model; yields the violation if it differs."""
    if limits.label_dim == 0:
        yield _no_label(limits)
    elif size != limits.label_dim:
        rule = f"label.vector must hold {limits.label_dim} numbers for {limits.name}, got {size}"
        numbers = {"label_dim": str(limits.label_dim)}
        yield Violation("spec.label.vector.values", Reason.LABEL_LENGTH_MISMATCH, rule, numbers)


def _no_label(limits: ModelLimits) -> Violation:
    rule = f"label does not go with {limits.name}, which is unconditional"
    return Violation("spec.label", Reason.LABEL_UNSUPPORTED, rule, {"label_dim": str(limits.label_dim)})


def _label(spec: FaceSpec, limits: ModelLimits) -> Floats | None:
    index = spec.class_index
    if spec.label_vector is not None or (index is None and not _needs_label(spec, limits)):
        return spec.label_vector
    one_hot = np.zeros(limits.label_dim, dtype=np.float32)
    one_hot[limits.default_class if index is None else index] = 1.0
    one_hot.setflags(write=False)
    return one_hot
