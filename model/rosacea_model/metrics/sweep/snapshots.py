"""Measures the snapshots that the runs of a sweep kept, by KID against real images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...engine import Engine
from ..features import features
from ..fidelity.kernel import kid
from ..images import ModelImages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..encoders.protocol import Encoder
    from ..images import DatasetImages

CACHE_NAME = "features"
PREFIX = "kimg-"


@dataclass(frozen=True, kw_only=True)
class SnapshotJudge:
    """Compares snapshots with real images. Features are kept in `folder`, so that nothing is measured twice."""

    reals: DatasetImages
    encoder: Encoder
    folder: Path
    fakes: int = 300
    seen: bool = True  # whether the runs were trained on these images
    seed: int = 0

    @property
    def words(self) -> str:
        """What the measure is, for people."""
        seen = "trained on" if self.seen else "not trained on"
        limits = "" if self.encoder.comparable else "; not comparable with numbers of other encoders"
        return (
            f"KID of {self.fakes} faces to {len(self.reals)} images that the runs were {seen} ({self.reals.name}), "
            f"by the encoder {self.encoder.name}, {self.encoder.resize}{limits}"
        )

    def curve(self, run: Path) -> list[tuple[float, float]]:
        """KID by kimg of the snapshots that the run kept."""
        return list(self._points(run))

    def _points(self, run: Path) -> Iterator[tuple[float, float]]:
        cache = self.folder / CACHE_NAME
        for path in sorted((run / "snapshots").glob(f"{PREFIX}*")):
            engine = Engine.load(path)
            labels = self.reals.labels if engine.config.c_dim else None
            drawn = features(ModelImages(engine, range(self.fakes), labels=labels), self.encoder, cache=cache)
            known = features(self.reals, self.encoder, cache=cache)
            yield float(path.name.removeprefix(PREFIX)), kid(known, drawn, seed=self.seed).value
