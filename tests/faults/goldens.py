"""What the right answers are: the bytes of faces, drawn by the engine alone before anything is asked of a service."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

from rosacea.render.v1 import render_pb2
from rosacea.v1 import faces_pb2
from rosacea_model import FaceSample
from rosacea_model.engine import Engine
from rosacea_serving.worker.handler import maker_of, to_bytes
from rosacea_serving.worker.marking import Marker
from tests.integration.threads import torch_threads

from .history import digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from rosacea_model.files.modelfile import ModelFile

ENCODINGS = {"png": faces_pb2.IMAGE_FORMAT_PNG, "raw": faces_pb2.IMAGE_FORMAT_RAW}


class Want(NamedTuple):
    """One face, by everything that its bytes depend on."""

    revision: str  # models/NAME/revisions/DIGEST
    seed: int
    psi: float
    format: str


def goldens(
    folder: Path, seeds: Iterable[int], psis: Sequence[float], formats: Sequence[str] = ("raw",)
) -> dict[Want, str]:
    """The digest of every face of one revision."""
    found: dict[Want, str] = {}
    with torch_threads(1):  # as the workers
        engine = Engine.load(folder)
        revision, marker = revision_name(engine.model.file), Marker(maker_of(engine))
        for seed, psi in itertools.product(seeds, psis):
            (pixels,) = engine.render([FaceSample(seed=seed, truncation_psi=psi)])
            for name in formats:
                item = render_pb2.RenderItem(
                    seed=seed, truncation_psi=psi, noise_mode=faces_pb2.NOISE_MODE_CONST, format=ENCODINGS[name]
                )
                found[Want(revision, seed, psi, name)] = digest(to_bytes(item, pixels, marker))
    return found


def revision_name(file: ModelFile) -> str:
    return f"models/{file.name}/revisions/{file.digest}"
