"""From a validated face to the worker's message, and from finished images to the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rosacea.render.v1 import render_pb2
from rosacea.v1 import faces_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rosacea_client.resolved import FaceItem

    from .catalog import ServedModel
    from .scheduler import Drawn

ENCODINGS = {
    "png": (render_pb2.ENCODING_PNG, faces_pb2.IMAGE_FORMAT_PNG),
    "jpeg": (render_pb2.ENCODING_JPEG, faces_pb2.IMAGE_FORMAT_JPEG),
    "raw": (render_pb2.ENCODING_RAW, faces_pb2.IMAGE_FORMAT_RAW),
}
NOISES = {
    "const": render_pb2.NOISE_CONST,
    "none": render_pb2.NOISE_NONE,
    "random": render_pb2.NOISE_RANDOM,
}


def render_item(face: FaceItem) -> render_pb2.RenderItem:
    """What the worker is told of one face."""
    item = render_pb2.RenderItem(
        truncation_psi=face.truncation_psi,
        truncation_cutoff=face.truncation_cutoff,
        noise=NOISES[face.noise_mode],
        noise_seed=face.noise_seed,
        label=_bytes(face.label),
        mixes=[
            render_pb2.Mix(seed=mix.seed, first_row=mix.first_row, end_row=mix.end_row) for mix in face.style_mixes
        ],
        encoding=ENCODINGS[face.format][0],
        jpeg_quality=face.jpeg_quality,
    )
    if face.z is not None:
        item.z = _bytes(face.z)
    elif face.w is not None:
        item.w = _bytes(face.w)
    elif face.ws is not None:
        item.ws = _bytes(face.ws)
    else:
        assert face.seed is not None
        item.seed = face.seed
    return item


def face_message(face: FaceItem, drawn: Drawn, model: ServedModel) -> faces_pb2.Face:
    """One finished face."""
    size = model.config.img_resolution
    return faces_pb2.Face(
        index=face.index,
        seed=face.seed,
        image=drawn.image,
        format=ENCODINGS[face.format][1],
        width=size,
        height=size,
        channels=model.config.img_channels,
    )


def answer(items: Sequence[FaceItem], drawn: Sequence[Drawn], model: ServedModel) -> faces_pb2.GenerateFacesResponse:
    """All faces of a request."""
    return faces_pb2.GenerateFacesResponse(
        faces=[face_message(item, each, model) for item, each in zip(items, drawn, strict=True)],
        provenance=provenance(model, drawn),
        timings=timings(drawn),
    )


def coded_answer(items: Sequence[FaceItem], drawn: Sequence[Drawn], model: ServedModel) -> bytes:
    """`answer`, serialised face by face: protobuf messages are joined by joining their bytes.

    For threads: no single step holds the interpreter's lock for longer than one face takes.
    """
    parts = [
        faces_pb2.GenerateFacesResponse(faces=[face_message(item, each, model)]).SerializeToString()
        for item, each in zip(items, drawn, strict=True)
    ]
    rest = faces_pb2.GenerateFacesResponse(provenance=provenance(model, drawn), timings=timings(drawn))
    return b"".join([*parts, rest.SerializeToString()])


def provenance(model: ServedModel, drawn: Sequence[Drawn]) -> faces_pb2.Provenance:
    """What made these faces."""
    return faces_pb2.Provenance(
        model=model.revision,
        seed_scheme=faces_pb2.SEED_SCHEME_NUMPY_RANDOMSTATE,
        fingerprint=drawn[0].job.fingerprint,
    )


def timings(drawn: Sequence[Drawn]) -> faces_pb2.Timings:
    """Where the time of these faces went."""
    jobs = {id(each.job): each.job for each in drawn}.values()
    return faces_pb2.Timings(
        queue_seconds=max(each.queue_seconds for each in drawn),
        render_seconds=sum(job.render_seconds for job in jobs),
        encode_seconds=sum(job.encode_seconds for job in jobs),
    )


def _bytes(array: NDArray[np.float32] | None) -> bytes:
    return b"" if array is None else np.ascontiguousarray(array, "<f4").tobytes()
