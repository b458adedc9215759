"""Generates the face of a file again from its mark, and compares.

Example:

    found = replay_image(Path("face.png").read_bytes(), client)
    found.same, found.differences
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rosacea_client.commands.inspection import inspect_image
from rosacea_client.errors import FaceError, InvalidSpec, NotFound
from rosacea_contract.containers import without_signature
from rosacea_contract.spec import FaceSpec

if TYPE_CHECKING:
    from rosacea_client.client import FaceClient
    from rosacea_client.results.face import Face
    from rosacea_contract.marks import Mark

# Fields of a mark that are no settings, by what they are a part of.
_PARTS = {
    "model": "model", "digest": "model", "class_name": "model", "seed_scheme": "seed scheme",
    "fingerprint": "fingerprint",
    "software": "software", "mark": "software", "notice": "software", "digital_source_type": "software",
}  # fmt: skip
_SETTINGS = (
    "truncation_psi", "truncation_cutoff", "noise_mode", "noise_seed", "class_index", "label_vector", "format",
    "jpeg_quality",
)  # fmt: skip


class CannotReplay(FaceError):
    """The face of a file cannot be compared: the file is unreadable, its mark does not suffice, or the service answers
    with an error other than Unavailable or Overloaded."""

    exit_code = 2


@dataclass(frozen=True)
class Difference:
    """One difference between the file and the new face."""

    part: str  # model, seed scheme, fingerprint, settings, software or image
    file: str  # what the file has
    service: str  # what the service has


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Result of a replay."""

    same: bool  # byte for byte, but for a signature, which never comes twice
    signed: bool  # there is one, in the file or in the answer
    differences: tuple[Difference, ...]
    face: Face | None  # as the service draws it now; None where it does not have the model

    def to_json(self) -> dict[str, Any]:
        """The result as JSON data, without the face."""
        return {"same": self.same, "signed": self.signed, "differences": [vars(each) for each in self.differences]}


def replay_image(image: bytes, client: FaceClient) -> Replay:
    """Generate the face of a file again and compare.

    Raises ValueError for what is no PNG or JPEG, CannotReplay where the file does not say how to, and other FaceErrors
    where the service gives no answer.
    """
    mark = inspect_image(image).mark
    if mark is None:
        raise CannotReplay("there is no mark of how it was made")
    spec = spec_of(mark)
    try:
        (face,) = client.generate_spec(spec)
    except NotFound:
        return _another_model(mark, client)
    if face.image == image:
        return Replay(same=True, signed=False, differences=(), face=face)
    return _compared(image, mark, face)


def spec_of(mark: Mark) -> FaceSpec:
    """Build the request that a mark describes; CannotReplay if the face came from a latent or a label that the mark
    lacks, or the mark is invalid."""
    if mark.latent != "seed" or mark.seed is None:
        raise CannotReplay(f"it was drawn from a given latent ({mark.latent}), which is not in the file")
    if mark.label_left_out:
        raise CannotReplay("it was drawn with a label that is too long to be in the file")
    mixes = [each.model_dump() for each in mark.style_mixes or ()]
    stated: dict[str, Any] = {name: getattr(mark, name) for name in _SETTINGS}
    try:
        return FaceSpec(
            model=f"{mark.model}/revisions/{mark.digest}", seeds=[mark.seed], style_mixes=mixes, **stated
        )  # fmt: skip
    except InvalidSpec as error:
        raise CannotReplay(f"its mark is no request: {error}") from None


def _another_model(mark: Mark, client: FaceClient) -> Replay:
    """Result for a revision that the service lacks: not the same, with the revision that it has under that name as the
    difference."""
    try:
        served = client.model(mark.model).revision
    except NotFound:
        served = f"no {mark.model}"
    differs = Difference("model", f"{mark.model}/revisions/{mark.digest}", served)
    return Replay(same=False, signed=False, differences=(differs,), face=None)


def _compared(image: bytes, mark: Mark, face: Face) -> Replay:
    """Result for a file that is not byte for byte the new face: the same if only a signature differs, otherwise all
    differences."""
    answer = inspect_image(face.image)
    signed = without_signature(image) != image or without_signature(face.image) != face.image
    if signed and without_signature(image) == without_signature(face.image):
        return Replay(same=True, signed=True, differences=(), face=face)
    found = [*_between_marks(mark, answer.mark), *_between_pixels(image, face)]
    if not found:
        found = [Difference("image", "other bytes beside the pixels", "as it was made")]
    return Replay(same=False, signed=signed, differences=tuple(found), face=face)


def _between_marks(mark: Mark, other: Mark | None) -> list[Difference]:
    if other is None:
        return [Difference("image", "marked", "not marked")]
    mine, theirs = mark.facts(), other.facts()
    names = [name for name in type(mark).model_fields if mine.get(name) != theirs.get(name)]
    return [_difference(name, mine.get(name), theirs.get(name)) for name in names]


def _difference(name: str, mine: object, theirs: object) -> Difference:
    part = _PARTS.get(name, "settings")
    said = "" if name in ("model", "seed_scheme", "fingerprint", "software") else f"{name} "
    return Difference(part, f"{said}{mine}", f"{said}{theirs}")


def _between_pixels(image: bytes, face: Face) -> list[Difference]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image), formats=[face.format]) as opened:
            mine = np.asarray(opened)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return [Difference("image", "not a whole picture", "a whole one")]
    theirs, size = face.array(), face.width * face.height
    if mine.size != theirs.size:
        height, width = mine.shape[:2]
        return [Difference("image", f"{width} x {height} pixels", f"{face.width} x {face.height} pixels")]
    changed = np.count_nonzero((mine.reshape(theirs.shape) != theirs).any(axis=-1))
    return [Difference("image", f"{changed} of {size} pixels differ", "as drawn")] if changed else []
