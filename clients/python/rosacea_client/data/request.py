"""Rendering options of a data set's faces, and the request for each face."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict

from rosacea_contract.spec import FaceSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rosacea_client.data.plan import Sample
    from rosacea_contract.spec import ImageFormat, NoiseMode


@dataclass(frozen=True, kw_only=True)
class Look:
    """Rendering options common to all faces of a data set; documented in `rosacea.v1.FaceSpec`.

    `raw` is lossless and costs no decoding; `jpeg` is some ten times smaller on the wire. Give real images the same
    coding, see `match_codec`.
    """

    truncation_psi: float | None = None
    truncation_cutoff: int | None = None
    noise_mode: NoiseMode = "const"
    noise_seed: int | None = None
    format: ImageFormat = "raw"
    jpeg_quality: int | None = None

    def __post_init__(self) -> None:
        found = FaceSpec(seeds=[0], **asdict(self))  # InvalidSpec tells what is wrong
        object.__setattr__(self, "format", found.format)
        object.__setattr__(self, "noise_mode", found.noise_mode)

    def spec(self, model: str, samples: Sequence[Sample]) -> FaceSpec:
        """Build the FaceSpec that requests the given samples, all of one class."""
        (class_index,) = {sample.class_index for sample in samples}
        seeds = [sample.seed for sample in samples]
        return FaceSpec(model=model, seeds=seeds, class_index=class_index, **asdict(self))

    def request(self, model: str, sample: Sample) -> dict[str, Any]:
        """The request for one single sample, as the JSON of `rosacea.v1.FaceSpec` that data sets record."""
        return MessageToDict(self.spec(model, [sample]).to_pb())

    def key(self, digest: str, sample: Sample) -> str:
        """Cache key: 64 hex digits of the whole request and of the model's weights."""
        asked = {"digest": digest, "seed": sample.seed, "class_index": sample.class_index, **asdict(self)}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode("ascii")).hexdigest()
