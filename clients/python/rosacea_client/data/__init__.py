"""Data sets of synthetic faces for training. Only `data.torch` needs torch.

Example:

    from rosacea_client.data import Labels, Plan
    from rosacea_client.data.torch import FaceLoader, FaceStream

    stream = FaceStream("127.0.0.1:7433", count=10_000, plan=Plan(seed=7, labels=Labels.balanced(4)))
    for batch in FaceLoader(stream, batch_size=32, num_workers=2):
        train(batch["image"], batch["label"])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rosacea_client.data.cache import FaceCache
    from rosacea_client.data.codec import match_codec
    from rosacea_client.data.mixing import Mixed, mix
    from rosacea_client.data.plan import Labels, Plan, Sample
    from rosacea_client.data.request import Look

__all__ = ["FaceCache", "Labels", "Look", "Mixed", "Plan", "Sample", "match_codec", "mix"]

_HOMES = {
    "FaceCache": "cache",
    "Labels": "plan",
    "Look": "request",
    "Mixed": "mixing",
    "Plan": "plan",
    "Sample": "plan",
    "match_codec": "codec",
    "mix": "mixing",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
