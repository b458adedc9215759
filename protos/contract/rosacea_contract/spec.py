"""Validated requests: the one validation that client, command line and service share.

Example:

    spec = FaceSpec(seeds=[1, 2, 3], truncation_psi=0.7)        # InvalidSpec tells every rule that is broken
    spec = FaceSpec.from_pb(request.spec)
    faces = resolve(spec, limits)                               # the rules that depend on the model
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, get_args

import numpy as np
from pydantic import PlainValidator, ValidationInfo, field_validator

from rosacea.v1 import faces_pb2 as pb
from rosacea_contract import fields
from rosacea_contract.checked import Checked, in_spec
from rosacea_contract.errors import InvalidSpec
from rosacea_contract.fields import SEEDS_END, one_of, refuse, whole
from rosacea_contract.reasons import Reason, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["FaceSpec", "InvalidSpec", "LatentSpec", "SeedRange", "StyleMix"]

ImageFormat = Literal["png", "jpeg", "raw"]
NoiseMode = Literal["const", "none", "random"]
LatentSpace = Literal["w", "ws"]

FORMATS: Mapping[int, ImageFormat] = {0: "png", 1: "png", 2: "jpeg", 3: "raw"}
NOISE_MODES: Mapping[int, NoiseMode] = {0: "const", 1: "const", 2: "none", 3: "random"}
LATENT_SPACES: Mapping[int, LatentSpace] = {0: "w", 1: "w", 2: "ws"}
UINT32_MAX = 2**32 - 1
MAX_STYLE_MIXES = 64
JPEG_QUALITIES = (1, 100)

Seed = Annotated[int, PlainValidator(whole(0, SEEDS_END - 1, Reason.SEED_OUT_OF_RANGE))]
SeedCount = Annotated[int, PlainValidator(whole(1, SEEDS_END, Reason.SEED_OUT_OF_RANGE))]
Count = Annotated[int, PlainValidator(whole(0, UINT32_MAX))]
Floats = Annotated[fields.Floats, PlainValidator(fields.floats)]

_noise_mode = one_of(get_args(NoiseMode), Reason.NOISE_MODE_UNKNOWN)
image_format = one_of(get_args(ImageFormat), Reason.FORMAT_UNKNOWN, jpg="jpeg")
_latent_space = one_of(get_args(LatentSpace), Reason.INVALID_FIELD)


@cache
def format_number(name: ImageFormat) -> pb.ImageFormat.ValueType:
    """The number of an image format in protobuf messages, by its name."""
    return pb.ImageFormat.Value(f"IMAGE_FORMAT_{name.upper()}")


@cache
def noise_mode_number(name: NoiseMode) -> pb.NoiseMode.ValueType:
    """The number of a noise mode in protobuf messages, by its name."""
    return pb.NoiseMode.Value(f"NOISE_MODE_{name.upper()}")


@cache
def latent_space_number(name: LatentSpace) -> pb.LatentSpace.ValueType:
    """The number of a latent space in protobuf messages, by its name."""
    return pb.LatentSpace.Value(f"LATENT_SPACE_{name.upper()}")


class SeedRange(Checked):
    """The seeds `start`, `start + 1`, ...: `count` of them."""

    start: Seed = 0
    count: SeedCount

    @field_validator("count")
    @classmethod
    def _ends_in_range(cls, count: int, info: ValidationInfo) -> int:
        last = info.data.get("start", 0) + count - 1
        if last >= SEEDS_END:
            rule = f"must keep the last seed below 2**32, got {count}, which makes it {last}"
            raise refuse(rule, Reason.SEED_OUT_OF_RANGE, max=SEEDS_END - 1, value=last)
        return count


class StyleMix(Checked):
    """Rows `first_row` to `end_row - 1` of `ws` come from `seed`."""

    seed: Seed
    first_row: Count = 0
    end_row: Count

    @field_validator("end_row")
    @classmethod
    def _takes_a_row(cls, end_row: int, info: ValidationInfo) -> int:
        first_row = info.data.get("first_row", -1)
        if end_row <= first_row:
            rule = f"must be above first_row ({first_row}), got {end_row}"
            raise refuse(rule, Reason.STYLE_MIX_OUT_OF_RANGE, first_row=first_row, value=end_row)
        return end_row


class _Spec(Checked):
    """Fields common to faces and latents: the source, and the mapping network's options."""

    sources: ClassVar[tuple[str, ...]] = ("seeds", "seed_range", "z")

    model: Annotated[str, PlainValidator(fields.model_name)] = ""
    seeds: Annotated[tuple[int, ...], PlainValidator(fields.seeds)] | None = None
    seed_range: SeedRange | None = None
    z: Floats | None = None  # => [n * z_dim]
    truncation_psi: Annotated[float, PlainValidator(fields.truncation_psi)] | None = None
    truncation_cutoff: Count | None = None
    class_index: Count | None = None
    label_vector: Floats | None = None
    style_mixes: tuple[StyleMix, ...] = ()

    if not TYPE_CHECKING:

        def __init__(self, **data: Any) -> None:
            try:
                super().__init__(**data)
            except InvalidSpec as error:
                raise in_spec(error.violations) from None

    @property
    def source(self) -> str:
        """Name of the field that defines the faces or latents: seeds, seed_range, z, w or ws."""
        return next(name for name in self.sources if getattr(self, name) is not None)

    @property
    def seed_list(self) -> tuple[int, ...] | range | None:
        """All seeds, from a list or a range; None for latents."""
        if self.seed_range is not None:
            return range(self.seed_range.start, self.seed_range.start + self.seed_range.count)
        return self.seeds

    @classmethod
    def _read(cls, message: pb.FaceSpec | pb.LatentSpec, data: dict[str, Any], *optional: str) -> Self:
        """Read and fully validate an untrusted protobuf message; `data` holds the fields that only this kind has."""
        data |= {
            "model": message.model,
            # One more than allowed is enough to refuse; a hostile message may hold a million.
            "style_mixes": [
                _plain(mix, "seed", "first_row", "end_row") for mix in message.style_mixes[: MAX_STYLE_MIXES + 1]
            ],
        }
        for name in ("truncation_psi", "truncation_cutoff", *optional):
            if message.HasField(name):  # type: ignore[arg-type]  # one of its fields
                data[name] = getattr(message, name)
        unread = list(_read_source(message, data))
        found = [*unread, *_read_label(message.label, message.HasField("label"), data)]
        try:
            spec = cls(**data)
        except InvalidSpec as error:  # a source that cannot be read is not also missing
            found += [problem for problem in error.violations if not (unread and problem.field == "spec")]
        if found:
            raise InvalidSpec(found)
        return spec

    def _write(self, message: pb.FaceSpec | pb.LatentSpec) -> None:
        """Write the common fields into the message."""
        message.model = self.model
        if self.truncation_psi is not None:
            message.truncation_psi = self.truncation_psi
        if self.truncation_cutoff is not None:
            message.truncation_cutoff = self.truncation_cutoff
        message.style_mixes.extend(pb.StyleMix(**mix.model_dump()) for mix in self.style_mixes)
        if self.seeds is not None:
            message.seeds.values.extend(self.seeds)
        if self.seed_range is not None:
            message.seed_range.CopyFrom(pb.SeedRange(**self.seed_range.model_dump()))
        if self.class_index is not None:
            message.label.class_index = self.class_index
        if self.label_vector is not None:
            message.label.vector.values.extend(self.label_vector.tolist())
        for name in self.sources:
            if isinstance(latents := getattr(self, name), np.ndarray):
                getattr(message, name).data = latents.astype("<f4").tobytes()

    @classmethod
    def _relations(cls, data: Mapping[str, Any]) -> Iterator[Violation]:
        given = {name for name, value in data.items() if value is not None}
        sources = [name for name in cls.sources if name in given]
        if len(sources) != 1:
            rule = f"needs exactly one of {', '.join(cls.sources)}, got {' and '.join(sources) or 'none'}"
            yield Violation("", Reason.SOURCE_REQUIRED, f"the request {rule}")
        mixes = data.get("style_mixes")
        if isinstance(mixes, list | tuple) and len(mixes) > MAX_STYLE_MIXES:
            rule = f"style_mixes must be at most {MAX_STYLE_MIXES}, got more"
            yield Violation("style_mixes", Reason.STYLE_MIX_OUT_OF_RANGE, rule, {"max": str(MAX_STYLE_MIXES)})
        if {"class_index", "label_vector"} <= given:
            yield _clash("label", "must be a class index or a vector, got both")


class FaceSpec(_Spec):
    """Which faces to draw, and how. Exactly one of seeds, seed_range, z, w and ws is the source."""

    sources: ClassVar[tuple[str, ...]] = (*_Spec.sources, "w", "ws")

    w: Floats | None = None  # => [n * w_dim]
    ws: Floats | None = None  # => [n * num_ws * w_dim]
    noise_mode: Annotated[NoiseMode, PlainValidator(_noise_mode)] = "const"
    noise_seed: Seed | None = None
    format: Annotated[ImageFormat, PlainValidator(image_format)] = "png"
    jpeg_quality: Annotated[int, PlainValidator(whole(*JPEG_QUALITIES))] | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FaceSpec) and self.to_pb() == other.to_pb()

    def __hash__(self) -> int:
        return hash(self.to_pb().SerializeToString(deterministic=True))

    @classmethod
    def from_pb(cls, message: pb.FaceSpec) -> FaceSpec:
        """Read and validate an untrusted protobuf message."""
        data: dict[str, Any] = {
            "noise_mode": NOISE_MODES.get(message.noise_mode, message.noise_mode),
            "format": FORMATS.get(message.format, message.format),
        }
        return cls._read(message, data, "noise_seed", "jpeg_quality")

    def to_pb(self) -> pb.FaceSpec:
        """The spec as a protobuf message."""
        message = pb.FaceSpec(
            noise_mode=noise_mode_number(self.noise_mode),
            noise_seed=self.noise_seed,
            format=format_number(self.format),
            jpeg_quality=self.jpeg_quality,
        )
        self._write(message)
        return message

    @classmethod
    def _relations(cls, data: Mapping[str, Any]) -> Iterator[Violation]:
        yield from super()._relations(data)
        given = {name for name, value in data.items() if value is not None}
        for latent in (name for name in ("w", "ws") if name in given):
            yield from _rows_are_given(data, f"does not go with {latent}", "truncation_psi", "truncation_cutoff")
        if "noise_seed" in given and str(data.get("noise_mode", "const")).lower() in {"const", "none"}:
            yield _clash("noise_seed", "goes with noise_mode random only")
        if "jpeg_quality" in given and str(data.get("format", "png")).lower() in {"png", "raw"}:
            yield _clash("jpeg_quality", "goes with format jpeg only")


class LatentSpec(_Spec):
    """Which intermediate latents to compute. Exactly one of seeds, seed_range and z is the source."""

    space: Annotated[LatentSpace, PlainValidator(_latent_space)] = "w"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LatentSpec) and self.to_pb() == other.to_pb()

    def __hash__(self) -> int:
        return hash(self.to_pb().SerializeToString(deterministic=True))

    def as_faces(self) -> FaceSpec:
        """The FaceSpec with the same latents, for shared checks."""
        alike = {name: getattr(self, name) for name in _Spec.model_fields}
        return FaceSpec.model_construct(**alike, format="raw")

    @classmethod
    def from_pb(cls, message: pb.LatentSpec) -> LatentSpec:
        """Read and validate an untrusted protobuf message."""
        return cls._read(message, {"space": LATENT_SPACES.get(message.space, message.space)})

    def to_pb(self) -> pb.LatentSpec:
        """The spec as a protobuf message."""
        message = pb.LatentSpec(space=latent_space_number(self.space))
        self._write(message)
        return message

    @classmethod
    def _relations(cls, data: Mapping[str, Any]) -> Iterator[Violation]:
        yield from super()._relations(data)
        if str(data.get("space", "w")) == "w":
            yield from _rows_are_given(data, "goes with space ws only", "truncation_cutoff")


def named_model(message: pb.FaceSpec | pb.LatentSpec) -> str:
    """Read and validate only the model name of a request, before its possibly long contents."""
    try:
        return fields.in_field("model", fields.model_name, message.model)
    except InvalidSpec as error:
        raise in_spec(error.violations) from None


def _rows_are_given(data: Mapping[str, Any], rule: str, *truncations: str) -> Iterator[Violation]:
    """Yield the violations of truncations and style mixes, which act on single rows, where rows are given or all
    equal."""
    for name in truncations:
        if data.get(name) is not None:
            yield _clash(name, rule, Reason.TRUNCATION_NOT_ALLOWED)
    if _some(data.get("style_mixes")):
        yield _clash("style_mixes", rule, Reason.STYLE_MIX_NOT_ALLOWED)


def _read_source(message: pb.FaceSpec | pb.LatentSpec, data: dict[str, Any]) -> Iterator[Violation]:
    """Read the source into `data`; yields its violations."""
    source = message.WhichOneof("source")
    if source == "seeds":
        data["seeds"] = message.seeds.values
    elif source == "seed_range":
        data["seed_range"] = _plain(message.seed_range, "start", "count")
    elif source is not None:
        latents: pb.Latents = getattr(message, source)
        path = f"spec.{source}"
        if latents.data and len(latents.values):
            yield Violation(path, Reason.INVALID_FIELD, f"{source} must have either data or values, got both")
        elif len(latents.data) % 4:
            rule = f"{source}.data must be a multiple of 4 bytes long, got {len(latents.data)}"
            limits = {"multiple": "4", "actual": str(len(latents.data))}
            yield Violation(f"{path}.data", Reason.LATENT_LENGTH_MISMATCH, rule, limits)
        else:
            data[source] = np.frombuffer(latents.data, "<f4") if latents.data else _array(latents.values)


def _read_label(label: pb.Label, given: bool, data: dict[str, Any]) -> Iterator[Violation]:
    """Read the label into `data`; yields its violations."""
    kind = label.WhichOneof("kind")
    if kind == "class_index":
        data["class_index"] = label.class_index
    elif kind == "vector":
        data["label_vector"] = _array(label.vector.values)
    elif given:
        rule = "label must be a class index or a vector, got neither"
        yield Violation("spec.label", Reason.INVALID_FIELD, rule)


def _array(values: Any) -> fields.Floats:
    array = np.empty(len(values), dtype=np.float32)
    for start in range(0, len(values), fields.PORTION):
        array[start : start + fields.PORTION] = values[start : start + fields.PORTION]
    return array


def _plain(message: Any, *names: str) -> dict[str, int]:
    return {name: getattr(message, name) for name in names}


def _some(value: object) -> bool:
    """Whether a field is set and not empty."""
    return value is not None and not (isinstance(value, (list, tuple)) and not value)


def _clash(name: str, rule: str, reason: Reason = Reason.INVALID_FIELD) -> Violation:
    return Violation(name, reason, f"{name} {rule}")
