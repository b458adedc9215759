"""What the worker measured of a job."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, eq=False, kw_only=True)
class JobFacts:
    """What a job took, shared by its images."""

    render_seconds: float  # of which mapping_seconds
    encode_seconds: float  # of which copy_seconds
    mapping_seconds: float = 0.0
    copy_seconds: float = 0.0
    fingerprint: str
