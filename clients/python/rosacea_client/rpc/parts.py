"""Checks large requests against the model's limits before sending, and splits large streams.

Small requests go out as they are, for the service says as well what is wrong with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rosacea.v1 import faces_pb2 as pb
from rosacea_client.errors import InvalidRequest, InvalidSpec
from rosacea_contract.reasons import Reason, Violation
from rosacea_contract.resolved import ModelLimits, numbers_per_face, size_rules

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from rosacea_client.results.modelinfo import ModelInfo

LARGE_BYTES = 64 * 1024
SLACK_BYTES = 1024  # for the name of the revision, and the lengths of fields
FLOAT_BYTES, SEED_BYTES = 4, 5
UNLIMITED = 2**63

Spec = pb.FaceSpec | pb.LatentSpec


def is_large(request: Message) -> bool:
    """Whether a request is large enough to fetch the model's limits first."""
    return request.ByteSize() > LARGE_BYTES


def check_request(request: pb.GenerateFacesRequest | pb.MapLatentsRequest, info: ModelInfo) -> None:
    """Raise InvalidRequest if the model's limits rule the request out."""
    limits = info.limits
    latents = isinstance(request, pb.MapLatentsRequest)
    count_faces(request.spec, info, limits.max_latents_per_request if latents else limits.max_images_per_request)
    size, most = request.ByteSize(), limits.max_request_bytes or UNLIMITED
    if size > most:
        advice = "send less at a time" if latents else "send less at a time, or stream"
        raise InvalidRequest(f"the request is too large ({size} bytes, the service takes {most}): {advice}")


def count_faces(spec: Spec, info: ModelInfo, most: int) -> int:
    """Number of faces or latents of a source; InvalidSpec if it does not fit the model."""
    limits = ModelLimits(
        name=info.name, z_dim=info.z_dim, w_dim=info.w_dim, num_ws=info.num_ws, label_dim=info.label_dim,
        max_images=most or UNLIMITED,
    )  # fmt: skip
    source = spec.WhichOneof("source") or ""
    size = _size(spec, source)
    if found := list(size_rules(source, size, limits)):
        raise InvalidSpec(found)
    return size // numbers_per_face(source, limits)


@dataclass(frozen=True)
class Parts:
    """A stream split into parts of `length` faces, each of which fits into one request."""

    whole: pb.StreamFacesRequest
    settings: pb.FaceSpec  # the same without its source
    count: int
    length: int

    @classmethod
    def of(cls, request: pb.StreamFacesRequest, info: ModelInfo) -> Parts:
        """Split a request; InvalidRequest if the model's limits rule it out."""
        count = count_faces(request.spec, info, info.limits.max_images_per_stream)
        if request.start_index >= count:
            rule = f"start_index must be below the number of faces, {count}, got {request.start_index}"
            raise InvalidSpec([Violation("start_index", Reason.INVALID_FIELD, rule, {"max": str(count - 1)})])
        most = info.limits.max_request_bytes or UNLIMITED
        source = _source_bytes(request.spec)
        face_bytes = -(-source // count)
        size = request.ByteSize()
        room = most - SLACK_BYTES - max(0, size - source)
        if room < face_bytes:
            one = size - source + face_bytes
            raise InvalidRequest(f"one face of this request takes {one} bytes, the service takes {most}")
        settings = pb.FaceSpec()
        settings.CopyFrom(request.spec)
        settings.ClearField(request.spec.WhichOneof("source") or "seeds")
        return cls(request, settings, count, min(count, room // face_bytes) if face_bytes else count)

    def start(self, index: int) -> int:
        """Index of the first face in the part (request) that contains face number `index`."""
        return index - index % self.length

    @property
    def ends(self) -> range:
        """Indices of faces at which one request of a large stream ends and the next begins."""
        return range(self.length, self.count, self.length)

    def request(self, index: int) -> pb.StreamFacesRequest:
        """The request for the faces from `index` to the end of its part."""
        start = self.start(index)
        request = pb.StreamFacesRequest(start_index=index - start)
        request.spec.CopyFrom(self.settings)
        self._slice(self.whole.spec.WhichOneof("source") or "", start, request.spec)
        return request

    def _slice(self, source: str, start: int, spec: pb.FaceSpec) -> None:
        if source == "seed_range":
            spec.seed_range.CopyFrom(self.whole.spec.seed_range)  # of any length it is one part
            return
        if source == "seeds":
            spec.seeds.values.extend(self.whole.spec.seeds.values[start : start + self.length])
            return
        data: bytes = getattr(self.whole.spec, source).data
        face_bytes = len(data) // self.count
        getattr(spec, source).data = data[start * face_bytes : (start + self.length) * face_bytes]


def _size(spec: Spec, source: str) -> int:
    """Number of seeds or values in a source."""
    if source == "seeds":
        return len(spec.seeds.values)
    if source == "seed_range":
        return spec.seed_range.count
    return len(getattr(spec, source).data) // FLOAT_BYTES


def _source_bytes(spec: Spec) -> int:
    """Upper bound in bytes of what grows with the number of faces in a source: nothing in a range of seeds."""
    source = spec.WhichOneof("source") or ""
    if source == "seed_range":
        return 0
    return _size(spec, source) * (SEED_BYTES if source == "seeds" else FLOAT_BYTES)
