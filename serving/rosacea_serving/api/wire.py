"""Converts validated faces to worker messages, and worker results to answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rosacea.render.v1 import render_pb2
from rosacea.v1 import faces_pb2
from rosacea_contract.spec import format_number, latent_space_number, noise_mode_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rosacea_contract.resolved import FaceItem, ResolvedSpec
    from rosacea_contract.spec import LatentSpace

    from ..catalog import ServedModel
    from ..scheduling.scheduler import Drawn


def render_item(face: FaceItem, space: LatentSpace | None = None) -> render_pb2.RenderItem:
    """The worker's message for one face, or for one latent of space `space`."""
    item = render_pb2.RenderItem(
        output=latent_space_number(space) if space else faces_pb2.LATENT_SPACE_UNSPECIFIED,
        truncation_psi=face.truncation_psi,
        truncation_cutoff=face.truncation_cutoff,
        noise_mode=noise_mode_number(face.noise_mode),
        noise_seed=face.noise_seed,
        label=_bytes(face.label),
        style_mixes=[
            faces_pb2.StyleMix(seed=mix.seed, first_row=mix.first_row, end_row=mix.end_row) for mix in face.style_mixes
        ],
        format=format_number(face.format),
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
    """Convert one finished face to its public message."""
    size = model.config.img_resolution
    return faces_pb2.Face(
        index=face.index,
        seed=face.seed,
        image=drawn.image,
        format=format_number(face.format),
        width=size,
        height=size,
        channels=model.config.img_channels,
        finish_reason=faces_pb2.FINISH_REASON_COMPLETE,
    )


def latents_message(
    faces: ResolvedSpec, space: LatentSpace, drawn: Sequence[Drawn], model: ServedModel
) -> faces_pb2.MapLatentsResponse:
    """Build the answer to MapLatents."""
    config = model.config
    seeds = faces.spec.seed_list
    return faces_pb2.MapLatentsResponse(
        latents=faces_pb2.Latents(data=b"".join(each.image for each in drawn)),
        space=latent_space_number(space),
        shape=[len(faces), config.w_dim] if space == "w" else [len(faces), config.num_ws, config.w_dim],
        seeds=() if seeds is None else seeds,
        provenance=provenance(model, drawn),
        timings=timings(drawn),
    )


def answer(items: Sequence[FaceItem], drawn: Sequence[Drawn], model: ServedModel) -> faces_pb2.GenerateFacesResponse:
    """Build the answer to GenerateFaces."""
    return faces_pb2.GenerateFacesResponse(
        faces=[face_message(item, each, model) for item, each in zip(items, drawn, strict=True)],
        provenance=provenance(model, drawn),
        timings=timings(drawn),
    )


def coded_answer(items: Sequence[FaceItem], drawn: Sequence[Drawn], model: ServedModel) -> bytes:
    """Serialise an answer face by face: concatenated protobuf messages merge into one.

    For threads: no single step holds the interpreter's lock for longer than one face takes.
    """
    parts = [
        faces_pb2.GenerateFacesResponse(faces=[face_message(item, each, model)]).SerializeToString()
        for item, each in zip(items, drawn, strict=True)
    ]
    rest = faces_pb2.GenerateFacesResponse(provenance=provenance(model, drawn), timings=timings(drawn))
    return b"".join([*parts, rest.SerializeToString()])


def provenance(model: ServedModel, drawn: Sequence[Drawn]) -> faces_pb2.Provenance:
    """The provenance of these faces: model, digest, seed scheme and fingerprint."""
    return faces_pb2.Provenance(
        model=model.revision,
        digest=model.file.digest,
        seed_scheme=faces_pb2.SEED_SCHEME_NUMPY_RANDOMSTATE,
        fingerprint=drawn[0].fingerprint,
    )


def timings(drawn: Sequence[Drawn]) -> faces_pb2.Timings:
    """Build the timings of an answer: queue, drawing, coding."""
    jobs = {id(each.job): each.job for each in drawn}.values()
    return faces_pb2.Timings(
        queue_seconds=max(each.queue_seconds for each in drawn),
        render_seconds=sum(job.render_seconds for job in jobs),
        encode_seconds=sum(job.encode_seconds for job in jobs),
    )


def model_message(model: ServedModel, limits: faces_pb2.Limits, ready: bool) -> faces_pb2.Model:
    """The message that GetModel and ListModels return for a model."""
    config = model.config
    return faces_pb2.Model(
        name=model.name,
        revision=model.revision,
        digest=model.file.digest,
        resolution=config.img_resolution,
        channels=config.img_channels,
        z_dim=config.z_dim,
        w_dim=config.w_dim,
        num_ws=config.num_ws,
        label_dim=config.c_dim,
        limits=limits,
        ready=ready,
        note=model.file.note,
        class_names=model.file.classes,
        default_class=model.file.default_class,
    )


def _bytes(array: NDArray[np.float32] | None) -> bytes:
    return b"" if array is None else np.ascontiguousarray(array, "<f4").tobytes()
