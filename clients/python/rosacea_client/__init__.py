"""rosacea's client: synthetic faces from a running service, without torch.

    from rosacea_client import FaceClient

    with FaceClient("127.0.0.1:7433") as client:
        faces = client.generate(seeds=[1, 2, 3], class_index=2, truncation_psi=0.7)

`AsyncFaceClient` is the same to be awaited.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from rosacea_client.relay.forked import switch_fork_support_off

if TYPE_CHECKING:
    from rosacea_client.address import DEFAULT_ADDRESS
    from rosacea_client.async_client import AsyncFaceClient
    from rosacea_client.client import FaceClient
    from rosacea_client.connection import Tls
    from rosacea_client.errors import (
        Cancelled,
        DeadlineExceeded,
        Denied,
        FaceError,
        IntegrityError,
        InvalidRequest,
        InvalidSpec,
        NotFound,
        Overloaded,
        ServerError,
        Unavailable,
    )
    from rosacea_client.face import Face
    from rosacea_client.grid import contact_sheet
    from rosacea_client.inspection import Inspection, inspect_image
    from rosacea_client.latents import Latents
    from rosacea_client.marks import Mark
    from rosacea_client.modelinfo import Limits, ModelInfo
    from rosacea_client.provenance import Timings
    from rosacea_client.reasons import Quota, Reason, Violation
    from rosacea_client.replay import CannotReplay, Difference, Replay, replay_image
    from rosacea_client.spec import FaceSpec, LatentSpec, ModelLimits, SeedRange, StyleMix

switch_fork_support_off()       # the one thing that happens here: once gRPC is imported it is too late

__all__ = [
    "DEFAULT_ADDRESS",
    "AsyncFaceClient",
    "Cancelled",
    "CannotReplay",
    "DeadlineExceeded",
    "Denied",
    "Difference",
    "Face",
    "FaceClient",
    "FaceError",
    "FaceSpec",
    "Inspection",
    "IntegrityError",
    "InvalidRequest",
    "InvalidSpec",
    "LatentSpec",
    "Latents",
    "Limits",
    "Mark",
    "ModelInfo",
    "ModelLimits",
    "NotFound",
    "Overloaded",
    "Quota",
    "Reason",
    "Replay",
    "SeedRange",
    "ServerError",
    "StyleMix",
    "Timings",
    "Tls",
    "Unavailable",
    "Violation",
    "contact_sheet",
    "inspect_image",
    "replay_image",
]

# Loaded when first asked for: the command's help needs neither grpc nor numpy, only the sheet needs pillow.
_HOMES = {
    "AsyncFaceClient": "async_client",
    "CannotReplay": "replay",
    "DEFAULT_ADDRESS": "address",
    "Difference": "replay",
    "Face": "face",
    "FaceClient": "client",
    "FaceSpec": "spec",
    "Inspection": "inspection",
    "LatentSpec": "spec",
    "Latents": "latents",
    "Limits": "modelinfo",
    "Mark": "marks",
    "ModelInfo": "modelinfo",
    "ModelLimits": "spec",
    "Quota": "reasons",
    "Reason": "reasons",
    "Replay": "replay",
    "SeedRange": "spec",
    "StyleMix": "spec",
    "Timings": "provenance",
    "Tls": "connection",
    "Violation": "reasons",
    "contact_sheet": "grid",
    "inspect_image": "inspection",
    "replay_image": "replay",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return __all__
