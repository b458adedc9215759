"""Measurements of a job by the worker."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, eq=False, kw_only=True)
class JobFacts:
    """The worker's timings of a job, and its fingerprint, shared by the job's images."""

    render_seconds: float  # of which mapping_seconds
    encode_seconds: float  # of which copy_seconds
    mapping_seconds: float = 0.0
    copy_seconds: float = 0.0
    fingerprint: str
