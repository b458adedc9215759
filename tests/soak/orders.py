"""What the clients of the soak ask for, and the right answers to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rosacea_contract.spec import FORMATS, FaceSpec
from tests.faults.goldens import Want
from tests.faults.history import digest

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from rosacea.v1 import faces_pb2 as pb
    from rosacea_client import Face
    from rosacea_contract.spec import ImageFormat
    from tests.faults.history import Call

SEEDS = range(64)
PSIS = (0.7, 1.0)
SEEN_LATE_SECONDS = 5.0  # at most, from a swap to when it is seen in the metrics
FORMAT_NAMES: tuple[ImageFormat, ...] = ("png", "raw")


@dataclass(frozen=True)
class Order:
    """Faces of the latest revision, whichever that is by then."""

    seeds: Sequence[int]
    psi: float = 1.0
    format: ImageFormat = "raw"

    @classmethod
    def random(cls, rng: random.Random, count: int) -> Order:
        return cls([rng.choice(SEEDS) for _ in range(count)], rng.choice(PSIS), rng.choice(FORMAT_NAMES))

    def spec(self) -> FaceSpec:
        return FaceSpec(seeds=self.seeds, truncation_psi=self.psi, format=self.format)

    def wants(self, revision: str) -> list[Want]:
        return [Want(revision, seed, self.psi, self.format) for seed in self.seeds]

    def take(self, call: Call, message: pb.GenerateFacesResponse | pb.StreamFacesResponse) -> None:
        """The faces of an answer, as the wire has them, into the call."""
        for face in message.faces:
            self.note(call, message.provenance.model, face.seed, FORMATS[face.format], digest(face.image))

    def take_face(self, call: Call, face: Face) -> None:
        """A face, as the client has it, into the call."""
        self.note(call, face.model, face.seed or 0, face.format, digest(face.image))

    def note(self, call: Call, revision: str, seed: int, image_format: str, seen: str) -> None:
        """What came. The first face tells which revision the answer is from; all others must be from the same one."""
        if not call.got:
            call.wants = self.wants(revision)
        call.got.append((Want(revision, seed, self.psi, image_format), seen))


def stale(calls: Sequence[Call], served: Sequence[tuple[float, str]]) -> list[str]:
    """Calls that were answered by a revision which was not the latest at any time while they went on.

    `served` are the swaps in order: since when, on the history's clock, which revision was seen to be the latest.
    """
    return [
        f"a call of {call.who} was answered by {call.got[0][0].revision}, out of service when it began"  # type: ignore[attr-defined]
        for call in calls
        if call.got and call.got[0][0].revision not in _latest(call, served)  # type: ignore[attr-defined]
    ]


def _latest(call: Call, served: Sequence[tuple[float, str]]) -> set[str]:
    assert call.ended is not None, "it has not ended"
    ends = [since for since, _ in served[1:]] + [math.inf]
    return {
        revision
        for (since, revision), until in zip(served, ends, strict=True)
        if since <= call.ended + SEEN_LATE_SECONDS and until > call.began
    }
