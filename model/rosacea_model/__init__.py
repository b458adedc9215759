"""rosacea's generators: load them, map latents, draw faces. Knows nothing of serving.

    import rosacea_model

    model = rosacea_model.load("models/demo")
    ws = model.map(rosacea_model.latents([0, 1], model.config.z_dim), label=3, truncation_psi=0.7)
    images = model.synthesize(ws)                               # float32 NCHW, nominally in [-1, 1]

torch is imported when a name that needs it is first used, so that reading a model's manifest stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .config import GeneratorConfig
from .errors import CheckpointRejected, ModelError, ModelRejected, OutputNotFinite, RenderError
from .sample import FaceSample, MixedRows, latents

if TYPE_CHECKING:
    from .engine import Engine
    from .model import Model, load

__all__ = [
    "CheckpointRejected",
    "Engine",
    "FaceSample",
    "GeneratorConfig",
    "MixedRows",
    "Model",
    "ModelError",
    "ModelRejected",
    "OutputNotFinite",
    "RenderError",
    "latents",
    "load",
]

_NEEDS_TORCH = {"Engine": "engine", "Model": "model", "load": "model"}


def __getattr__(name: str) -> Any:
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_NEEDS_TORCH[name]}", __name__), name)
