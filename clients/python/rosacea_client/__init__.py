"""Client of rosacea: synthetic faces from a running service, without torch.

    from rosacea_client import FaceClient

    with FaceClient("127.0.0.1:7433") as client:
        faces = client.generate(seeds=[1, 2, 3], class_index=2, truncation_psi=0.7)

`AsyncFaceClient` is the asyncio version.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from rosacea_client.relay.forked import switch_fork_support_off

if TYPE_CHECKING:
    from rosacea_client.async_client import AsyncFaceClient
    from rosacea_client.client import FaceClient
    from rosacea_client.commands.inspection import Inspection, inspect_image
    from rosacea_client.commands.replay import CannotReplay, Difference, Replay, replay_image
    from rosacea_client.errors import (
        Cancelled,
        DeadlineExceeded,
        Denied,
        FaceError,
        Forbidden,
        IntegrityError,
        InvalidRequest,
        InvalidSpec,
        NotFound,
        Overloaded,
        ServerError,
        Unauthenticated,
        Unavailable,
    )
    from rosacea_client.results.face import Face
    from rosacea_client.results.faces import Faces
    from rosacea_client.results.grid import contact_sheet
    from rosacea_client.results.latents import Latents
    from rosacea_client.results.modelinfo import Limits, ModelInfo
    from rosacea_client.results.provenance import Timings
    from rosacea_client.rpc.address import DEFAULT_ADDRESS
    from rosacea_client.rpc.connection import Tls
    from rosacea_contract.marks import Mark
    from rosacea_contract.reasons import Quota, Reason, Violation
    from rosacea_contract.resolved import ModelLimits
    from rosacea_contract.spec import FaceSpec, LatentSpec, SeedRange, StyleMix

switch_fork_support_off()  # the one thing that happens here: once gRPC is imported it is too late

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
    "Faces",
    "Forbidden",
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
    "Unauthenticated",
    "Unavailable",
    "Violation",
    "contact_sheet",
    "inspect_image",
    "replay_image",
]

# Loaded when first asked for: the command's help needs neither grpc nor numpy, only the sheet needs pillow.
_HOMES = {
    "AsyncFaceClient": "rosacea_client.async_client",
    "CannotReplay": "rosacea_client.commands.replay",
    "DEFAULT_ADDRESS": "rosacea_client.rpc.address",
    "Difference": "rosacea_client.commands.replay",
    "Face": "rosacea_client.results.face",
    "FaceClient": "rosacea_client.client",
    "FaceSpec": "rosacea_contract.spec",
    "Faces": "rosacea_client.results.faces",
    "Inspection": "rosacea_client.commands.inspection",
    "LatentSpec": "rosacea_contract.spec",
    "Latents": "rosacea_client.results.latents",
    "Limits": "rosacea_client.results.modelinfo",
    "Mark": "rosacea_contract.marks",
    "ModelInfo": "rosacea_client.results.modelinfo",
    "ModelLimits": "rosacea_contract.resolved",
    "Quota": "rosacea_contract.reasons",
    "Reason": "rosacea_contract.reasons",
    "Replay": "rosacea_client.commands.replay",
    "SeedRange": "rosacea_contract.spec",
    "StyleMix": "rosacea_contract.spec",
    "Timings": "rosacea_client.results.provenance",
    "Tls": "rosacea_client.rpc.connection",
    "Violation": "rosacea_contract.reasons",
    "contact_sheet": "rosacea_client.results.grid",
    "inspect_image": "rosacea_client.commands.inspection",
    "replay_image": "rosacea_client.commands.replay",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES.get(name, "rosacea_client.errors")), name)


def __dir__() -> list[str]:
    return __all__
