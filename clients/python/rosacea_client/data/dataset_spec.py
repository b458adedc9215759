"""The definition of a data set on disk: its `dataset.json`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from rosacea_client.data.plan import MAX_INDEX, Plan
from rosacea_client.data.request import Look
from rosacea_client.data.shards import SUFFIXES, Form

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """All that the images and layout of a data set depend on."""

    revision: str  # models/NAME/revisions/DIGEST
    count: int
    shard_size: int
    form: Form
    plan: Plan
    look: Look
    classes: int = 0  # of the model; 0 for an unconditional one

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAX_INDEX + 1:
            raise ValueError(f"count must be from 1 to 2**32, got {self.count}")
        if self.shard_size < 1:
            raise ValueError(f"shard_size must be at least 1, got {self.shard_size}")
        if self.form not in SUFFIXES:
            raise ValueError(f"format must be one of {', '.join(SUFFIXES)}, got {self.form!r}")
        allowed = ("png",) if self.form == "stylegan-zip" else ("png", "jpeg")
        if self.look.format not in allowed:
            raise ValueError(f"images of {self.form} must be {' or '.join(allowed)}, got {self.look.format}")

    @property
    def shards(self) -> int:
        """Number of shards; the last may be smaller."""
        return -(-self.count // self.shard_size)

    def indices(self, shard: int) -> range:
        """Sample indices of a shard."""
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.count))

    def to_json(self) -> dict[str, Any]:
        """The definition as JSON data."""
        return {**asdict(self), "version": VERSION, "plan": self.plan.to_json(), "look": asdict(self.look)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Parse a definition from JSON data."""
        rest = dict(data)
        if rest.pop("version", None) != VERSION:
            raise ValueError(f"the version of a data set must be {VERSION}, got {data.get('version')}")
        return cls(**{**rest, "plan": Plan.from_json(rest["plan"]), "look": Look(**rest["look"])})

    @property
    def digest(self) -> str:
        """SHA-256 of the definition."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()
