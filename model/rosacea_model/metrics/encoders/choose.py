"""Encoders by name."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from .protocol import Encoder


class EncoderName(StrEnum):
    """The encoders that there are."""

    builtin = "builtin"
    inception = "inception"
    dinov2 = "dinov2"
    identity = "identity"


def open_encoder(name: EncoderName, folder: Path | None = None, *, device: str = "cpu") -> Encoder:
    """Load an encoder; `folder` holds the weight files of `inception` and `dinov2`, None = the usual place.

    WeightsMissing says which file to put where, DataRejected what to install.
    """
    if name is EncoderName.builtin:
        from .builtin import BuiltinEncoder

        return BuiltinEncoder(device=device)
    if name is EncoderName.identity:
        from .identity import IdentityEncoder

        return IdentityEncoder()
    from .local import NETWORKS, LocalEncoder, default_folder

    return LocalEncoder(NETWORKS[name], folder or default_folder())
