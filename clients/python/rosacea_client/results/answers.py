"""Verifies that an answer matches its request; data that fails never reaches the caller."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rosacea_client.errors import IntegrityError
from rosacea_client.results.face import Face
from rosacea_client.results.faces import Faces
from rosacea_client.results.latents import Latents

if TYPE_CHECKING:
    from rosacea.v1 import faces_pb2 as pb
    from rosacea_client.results.provenance import Provenance
    from rosacea_contract.spec import FaceSpec, LatentSpec

_REVISION = re.compile(r"(models/[^/@]+)/revisions/([0-9a-f]{64})")
_ASKED = re.compile(r"(?P<name>models/[^/@]+)(?:(?:/revisions/|@)(?P<revision>.+))?")


class Expected:
    """The expected faces of a request, in order; received faces are checked against them.

    `count` is how many there are, None where only the service knows: that of latents given as flat numbers.
    """

    def __init__(self, spec: FaceSpec, start_index: int = 0, count: int | None = None) -> None:
        self.index = self.start_index = start_index
        self.revision = ""  # models/NAME/revisions/DIGEST that they all come from, once the first has come
        self._spec = spec
        self._seeds = spec.seed_list
        self._count = count if self._seeds is None else len(self._seeds)
        self._shape: tuple[int, int, int] | None = None

    @property
    def begun(self) -> bool:
        """Whether any face has been received."""
        return self.index > self.start_index

    @property
    def complete(self) -> bool:
        """Whether all expected faces have been received, as far as the count is known."""
        return self.index == self._count

    def set_total(self, count: int) -> None:
        """Set the total number of faces to expect, which a client may learn only while a stream runs."""
        self._count = count

    def accept(self, answer: pb.GenerateFacesResponse | pb.StreamFacesResponse) -> list[Face]:
        """Accept the next faces; IntegrityError unless they are the expected ones."""
        faces = [Face.from_pb(each, answer.provenance, answer.timings) for each in answer.faces]
        if faces:
            self._check_source(faces[0])
        for face in faces:
            self._check(face)
            self.index += 1
        return faces

    def finish(self) -> None:
        """The stream has ended: raise IntegrityError if faces are missing."""
        if self._count is not None and self.index != self._count:
            wanted = f"faces {self.start_index} to {self._count - 1}"
            raise IntegrityError(f"the service should have sent {wanted}, it stopped before face {self.index}")

    def _check_source(self, face: Face) -> None:
        check_revision(face, self._spec.model)
        if self.revision not in ("", face.model):
            raise IntegrityError(f"face {face.index} should come from {self.revision}, it comes from {face.model}")
        self.revision = face.model

    def _check(self, face: Face) -> None:
        seed = self._seeds[self.index] if self._seeds is not None and self.index < len(self._seeds) else None
        beyond = self._count is not None and self.index >= self._count
        if beyond or (face.index, face.seed, face.format) != (self.index, seed, self._spec.format):
            wanted = "nothing more" if beyond else f"face {self.index} (seed {seed}, {self._spec.format})"
            raise IntegrityError(
                f"the service should have sent {wanted}, got face {face.index} (seed {face.seed}, {face.format})"
            )
        shape = (face.height, face.width, face.channels)
        if self._shape not in (None, shape):
            raise IntegrityError(f"face {face.index} should have shape {self._shape} like those before, it has {shape}")
        self._shape = shape
        if face.format == "raw" and len(face.image) != face.height * face.width * face.channels:
            raise IntegrityError(f"face {face.index} should have shape {shape}, got {len(face.image)} bytes")


def all_faces(answer: pb.GenerateFacesResponse, spec: FaceSpec, count: int | None = None) -> Faces:
    """Decode an answer that must hold all expected faces."""
    expected = Expected(spec, count=count)
    faces = expected.accept(answer)
    expected.finish()
    return Faces(faces)


def all_latents(answer: pb.MapLatentsResponse, spec: LatentSpec) -> Latents:
    """Decode latents; IntegrityError unless they are those `spec` asks for."""
    latents = Latents.from_pb(answer)
    wanted = spec.seed_list
    if wanted is not None and len(latents.array) != len(wanted):
        raise IntegrityError(f"the service should have sent {len(wanted)} latents, got {len(latents.array)}")
    if latents.space != spec.space or latents.seeds != tuple(wanted or ()):
        raise IntegrityError(f"the service should have sent {spec.space} of what was asked, it sent other latents")
    check_revision(latents, spec.model)
    return latents


def check_revision(made: Provenance, asked: str) -> None:
    """Raise IntegrityError unless the answer names its full revision and digest, and that revision fits the requested
    model name."""
    found = _REVISION.fullmatch(made.model)
    if found is None or found[2] != made.digest:
        raise IntegrityError(f"an answer should name its revision and its digest, got {made.model!r}, {made.digest!r}")
    wanted = _ASKED.fullmatch(asked)
    if wanted is None:  # whatever the service has as its default
        return
    revision = wanted["revision"] or "latest"
    if found[1] != wanted["name"] or (revision != "latest" and not found[2].startswith(revision)):
        raise IntegrityError(f"the answer should come from {asked}, it comes from {made.model}")
