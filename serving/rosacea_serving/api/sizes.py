"""Checks a request's lengths before its contents are processed.

Four megabytes hold a million seeds. Going through them takes a tenth of a second, most of it in steps that keep every
other call waiting; a length is there at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rosacea_contract.errors import InvalidSpec
from rosacea_contract.resolved import size_rules, vector_rules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rosacea.v1 import faces_pb2
    from rosacea_contract.reasons import Violation
    from rosacea_contract.resolved import ModelLimits

    Spec = faces_pb2.FaceSpec | faces_pb2.LatentSpec

FLOAT32_BYTES = 4


def numbers(pb: Spec) -> int:
    """Approximate count of numbers in a request."""
    return _source_size(pb) + len(pb.label.vector.values)


def check_sizes(pb: Spec, limits: ModelLimits) -> None:
    """Raise InvalidSpec if the request's lengths alone show that it does not fit the model or the limits."""
    if found := list(_violations(pb, limits)):
        raise InvalidSpec(found)


def _violations(pb: Spec, limits: ModelLimits) -> Iterator[Violation]:
    # An empty source or label is for the full check to tell: there is nothing in it to go through.
    if size := _source_size(pb):
        yield from size_rules(pb.WhichOneof("source") or "", size, limits)
    if size := len(pb.label.vector.values):
        yield from vector_rules(size, limits)


def _source_size(pb: Spec) -> int:
    """Number of seeds or values in the source; 0 for a range of seeds."""
    source = pb.WhichOneof("source")
    if source == "seeds":
        return len(pb.seeds.values)
    if source is None or source == "seed_range":
        return 0
    latents: faces_pb2.Latents = getattr(pb, source)
    return len(latents.values) or len(latents.data) // FLOAT32_BYTES
