"""Descriptions of models: their sizes and request limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rosacea_client.results.provenance import named
from rosacea_contract.spec import FORMATS, NOISE_MODES

if TYPE_CHECKING:
    from rosacea.v1 import faces_pb2 as pb


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on requests for a model; documented in `rosacea.v1.Limits`."""

    max_images_per_request: int
    max_images_per_stream: int
    max_latents_per_request: int
    max_queued_images: int
    max_request_bytes: int
    max_answer_bytes: int
    stream_message_bytes: int
    stream_lookahead: int
    max_seed: int
    min_truncation_psi: float
    max_truncation_psi: float
    max_rows: int
    max_style_mixes: int
    min_jpeg_quality: int
    max_jpeg_quality: int
    formats: tuple[str, ...]
    noise_modes: tuple[str, ...]
    max_page_size: int
    max_queued_stream_images: int
    max_unsent_answer_bytes: int
    quota_images_per_second: float
    quota_burst_images: int
    quota_calls: int
    quota_streams: int

    @classmethod
    def from_pb(cls, limits: pb.Limits) -> Limits:
        """Decode a model's limits."""
        values = {name: getattr(limits, name) for name in cls.__dataclass_fields__}
        values["formats"] = tuple(named(FORMATS, each) for each in limits.formats)
        values["noise_modes"] = tuple(named(NOISE_MODES, each) for each in limits.noise_modes)
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """Description of a model of the service."""

    name: str  # models/NAME
    revision: str  # models/NAME/revisions/DIGEST
    digest: str  # SHA-256 of its weights
    resolution: int
    channels: int
    z_dim: int
    w_dim: int
    num_ws: int
    label_dim: int  # 0 = unconditional
    limits: Limits
    ready: bool
    note: str
    class_names: tuple[str, ...] = ()  # of classes 0, 1, ...; empty where they have no names
    default_class: int | None = None  # of requests without a label; None = a conditional model refuses them

    @classmethod
    def from_pb(cls, model: pb.Model) -> ModelInfo:
        """Decode a model's description."""
        values = {name: getattr(model, name) for name in cls.__dataclass_fields__}
        default = model.default_class if model.HasField("default_class") else None
        converted = {"limits": Limits.from_pb(model.limits), "class_names": tuple(model.class_names)}
        return cls(**values | converted | {"default_class": default})
