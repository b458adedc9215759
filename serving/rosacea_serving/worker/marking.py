"""Builds the mark that the worker writes into coded images: how each was made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from rosacea.render.v1 import render_pb2
from rosacea.v1 import faces_pb2
from rosacea_client.results.provenance import SEED_SCHEMES
from rosacea_contract.marks import JPEG, PNG, Mark, Stamp, software
from rosacea_contract.spec import FORMATS, NOISE_MODES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SEED_SCHEME = SEED_SCHEMES[1]
LONGEST_LABEL = 256  # numbers; a longer one is left out
KEPT_STAMPS = 64  # of a worker; each takes some kilobytes, MAX_MARK_BYTES at most


@dataclass(frozen=True, kw_only=True)
class Maker:
    """What all images of a worker have in common in their marks: model, digest, fingerprint."""

    name: str  # of the model
    digest: str
    fingerprint: str
    classes: tuple[str, ...] = ()  # names of its classes, if they have any


class Marker:
    """Marks the images of a worker, and keeps what the faces of one request have in common in their marks."""

    def __init__(self, maker: Maker) -> None:
        self._maker = maker
        self._stamp = lru_cache(KEPT_STAMPS)(self._new_stamp)

    def marked(self, image: bytes, item: render_pb2.RenderItem) -> bytes:
        """Insert the item's mark into its coded image. Thread-safe."""
        return self._stamp(without_seeds(item).SerializeToString()).marked(image, item.seed, item.noise_seed)

    def _new_stamp(self, item: bytes) -> Stamp:
        mark = mark_of(render_pb2.RenderItem.FromString(item), self._maker)
        return Stamp(mark, PNG if mark.format == "png" else JPEG)


def without_seeds(item: render_pb2.RenderItem) -> render_pb2.RenderItem:
    """The item without seeds and latents, but with the kind of its latent: what decides all else in its mark."""
    shared = render_pb2.RenderItem()
    shared.CopyFrom(item)
    latent = item.WhichOneof("latent")
    if latent == "seed":
        shared.seed = 0
    elif latent:
        setattr(shared, latent, b"")
    shared.noise_seed = 0
    return shared


def mark_of(item: render_pb2.RenderItem, maker: Maker) -> Mark:
    """The mark of one face. It depends only on the item and the maker, and never contains a latent."""
    latent = item.WhichOneof("latent")
    assert latent, "an item that was drawn has a latent"
    mapped = latent in ("seed", "z")  # w and ws are drawn as they are
    random = item.noise_mode == faces_pb2.NOISE_MODE_RANDOM
    return Mark(
        software=software(),
        model=f"models/{maker.name}",
        digest=maker.digest,
        fingerprint=maker.fingerprint,
        seed_scheme=SEED_SCHEME,
        latent=latent,
        seed=item.seed if latent == "seed" else None,
        truncation_psi=item.truncation_psi if mapped else None,
        truncation_cutoff=item.truncation_cutoff if mapped and item.HasField("truncation_cutoff") else None,
        noise_mode=NOISE_MODES[item.noise_mode],
        noise_seed=item.noise_seed if random else None,
        style_mixes=tuple(mixes(item)) or None,
        format=FORMATS[item.format],
        jpeg_quality=item.jpeg_quality if item.format == faces_pb2.IMAGE_FORMAT_JPEG else None,
        **label_fields(np.frombuffer(item.label, "<f4"), maker.classes),
    )


def mixes(item: render_pb2.RenderItem) -> list[dict[str, int]]:
    return [{"seed": mix.seed, "first_row": mix.first_row, "end_row": mix.end_row} for mix in item.style_mixes]


def label_fields(label: NDArray[np.float32], names: Sequence[str] = ()) -> dict[str, Any]:
    """The mark's fields for a label: class number and name if it is one-hot, else its values in shortest exact form;
    values of a very long label are left out."""
    if not label.size:
        return {}
    if np.count_nonzero(label) == 1 and label.max() == 1:
        number = int(label.argmax())
        return {"class_index": number, **({"class_name": names[number]} if number < len(names) else {})}
    if label.size > LONGEST_LABEL:
        return {"label_left_out": True}
    return {"label_vector": tuple(float(str(number)) for number in label)}
