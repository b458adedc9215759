"""Recognises checkpoint formats by their first bytes instead of their suffix. Needs no torch."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from ..files.archive import check_directory_size

if TYPE_CHECKING:
    from pathlib import Path

ZIP = b"PK\x03\x04"
PICKLE = b"\x80"
OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
NETWORKS_NAME = "networks.safetensors"  # beside a model that was imported to train from: G, G_ema and D


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a pickle or a torch.save zip; TorchServe archives are zips of another kind."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(4)
    return start.startswith(PICKLE) or (start == ZIP and not is_archive(path))


def is_archive(path: Path) -> bool:
    """Whether a file is an archive of TorchServe (.mar)."""
    try:
        check_directory_size(path)
        with zipfile.ZipFile(path) as archive:
            return "MAR-INF/MANIFEST.json" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
