"""Draws the faces of a data set from a model on disk, in this process instead of by a service. Needs
`rosacea[model]`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosacea_client.results.face import Face
from rosacea_client.results.provenance import Timings

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from rosacea_client.data.feed import Drawn
    from rosacea_client.data.plan import Sample
    from rosacea_client.data.request import Look

DRAWING = "rosacea_model.inprocess"  # by name: this package knows the API alone, and works without that one


@dataclass(frozen=True, kw_only=True)
class LocalInfo:
    """The facts about a model that a data set needs."""

    revision: str
    label_dim: int


class LocalFeed:
    """Draws faces from one model on disk, with the methods of `Feed`. Each forked worker loads its own model."""

    def __init__(self, path: str, look: Look) -> None:
        if look.format == "jpeg":
            raise ValueError("format must be raw or png where no service codes the images, got jpeg")
        self.look = look
        self._model: Any = importlib.import_module(DRAWING).InProcess(path)

    def model(self, name: str = "") -> LocalInfo:
        """Describe the model file."""
        file = self._model.file
        return LocalInfo(revision=f"models/{file.name}/revisions/{file.digest}", label_dim=file.config.c_dim)

    def faces(self, revision: str, samples: Iterable[Sample]) -> Generator[Drawn, None, None]:
        """Yield the samples with their faces, in order."""
        for sample in samples:
            yield sample, self._face(revision, sample)

    def fetch(self, revision: str, samples: list[Sample]) -> list[Drawn]:
        """Draw all samples at once."""
        return list(self.faces(revision, samples))

    def _face(self, revision: str, sample: Sample) -> Face:
        look, config = self.look, self._model.file.config
        pixels = self._model.render(
            sample.seed,
            sample.class_index,
            truncation_psi=1.0 if look.truncation_psi is None else look.truncation_psi,
            truncation_cutoff=look.truncation_cutoff,
            noise_mode=look.noise_mode,
            noise_seed=look.noise_seed or 0,
        )
        return Face(
            index=sample.index,
            seed=sample.seed,
            image=pixels.tobytes(),
            format="raw",
            width=config.img_resolution,
            height=config.img_resolution,
            channels=config.img_channels,
            finish_reason="complete",
            model=revision,
            digest=self._model.file.digest,
            fingerprint=self._model.engine.fingerprint,
            seed_scheme="numpy-randomstate",
            timings=Timings(queue_seconds=0.0, render_seconds=0.0, encode_seconds=0.0),
        )


def is_local(model: str) -> bool:
    """Whether the model is a path on disk rather than a name on the service."""
    return bool(model) and Path(model).exists()
