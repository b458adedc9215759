"""Between arguments and messages, without a transport: what is asked, and whether the answer answers it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import numpy.typing as npt

from rosacea_client.errors import IntegrityError
from rosacea_client.face import Face
from rosacea_client.latents import Latents
from rosacea_client.spec import FaceSpec, LatentSpec

if TYPE_CHECKING:
    from rosacea.v1 import faces_pb2 as pb
    from rosacea_client.spec import ImageFormat, LatentSpace, NoiseMode, StyleMix

Seeds = int | range | Sequence[int] | npt.NDArray[np.integer[Any]]

MAX_MESSAGE_BYTES = 64 * 2**20


class MappingOptions(TypedDict, total=False):
    """What may be said of faces and latents alike; `rosacea.v1.FaceSpec` tells what each means."""

    model: str
    z: npt.ArrayLike | None
    truncation_psi: float | None
    truncation_cutoff: int | None
    class_index: int | None
    label_vector: npt.ArrayLike | None
    style_mixes: Sequence[StyleMix | Mapping[str, int]]


class FaceOptions(MappingOptions, total=False):
    """What may be said of faces."""

    w: npt.ArrayLike | None
    ws: npt.ArrayLike | None
    noise_mode: NoiseMode
    noise_seed: int | None
    format: ImageFormat
    jpeg_quality: int | None


class LatentOptions(MappingOptions, total=False):
    """What may be said of latents."""

    space: LatentSpace


_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": "rosacea.v1.FaceService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    # Retries stop while more than half of the tokens are gone: a struggling service gets no storm on top.
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    "loadBalancingConfig": [{"round_robin": {}}],
}

CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A service that was away is found again within a second or so; by default it may take two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


def face_spec(seeds: Seeds | None, options: FaceOptions) -> FaceSpec:
    """The faces that a caller's arguments describe."""
    return FaceSpec(**seed_source(seeds), **options)


def latent_spec(seeds: Seeds | None, options: LatentOptions) -> LatentSpec:
    """The latents that a caller's arguments describe."""
    return LatentSpec(**seed_source(seeds), **options)


def seed_source(seeds: Seeds | None) -> dict[str, Any]:
    """The field of a spec that says which seeds; consecutive seeds travel as a range."""
    if isinstance(seeds, range) and seeds.step == 1 and len(seeds):
        return {"seed_range": {"start": seeds.start, "count": len(seeds)}}
    return {"seeds": [seeds] if isinstance(seeds, (int, np.integer)) else seeds}


def faces_in_order(
    answers: Iterable[pb.GenerateFacesResponse | pb.StreamFacesResponse], spec: FaceSpec, start: int = 0
) -> Iterator[Face]:
    """The faces of the answers, once they are seen to be the ones that `spec` asks for from `start` on."""
    seeds, index = spec.seed_list, start
    for answer in answers:
        for message in answer.faces:
            face = Face.from_pb(message, answer.provenance, answer.timings)
            expected = seeds[index] if seeds is not None and index < len(seeds) else None
            if (face.index, face.seed, face.format) != (index, expected, spec.format):
                raise IntegrityError(
                    f"the service should have sent face {index} (seed {expected}, {spec.format}), "
                    f"got face {face.index} (seed {face.seed}, {face.format})"
                )
            yield face
            index += 1
    if seeds is not None and index != len(seeds):
        wanted = f"faces {start} to {len(seeds) - 1}"
        raise IntegrityError(f"the service should have sent {wanted}, it stopped before face {index}")


def latents_in_order(answer: pb.MapLatentsResponse, spec: LatentSpec) -> Latents:
    """The latents of the answer, once they are seen to be the ones that `spec` asks for."""
    latents = Latents.from_pb(answer)
    wanted = spec.seed_list
    if wanted is not None and len(latents.array) != len(wanted):
        raise IntegrityError(f"the service should have sent {len(wanted)} latents, got {len(latents.array)}")
    if latents.space != spec.space or latents.seeds != tuple(wanted or ()):
        raise IntegrityError(f"the service should have sent {spec.space} of what was asked, it sent other latents")
    return latents
