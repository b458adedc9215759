"""The demo model that ships with the package: faces of 64 px, conditional on the severity of rosacea. Needs no torch.

    model = rosacea_model.load(demo.folder())

Its card is README.md in this folder; `model/runs/demo-64.sh` made it.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ..errors import ModelRejected

MAX_BYTES = 16 * 2**20  # of all its files: every installation carries them
CARD_NAME = "README.md"
SEVERITIES = ("none", "mild", "moderate", "severe")  # what labels 0 to 3 ask for
DEFAULT_CLASS = 2  # of requests without a label


def folder() -> Path:
    """Folder of the shipped model. Raises ModelRejected if the package runs from inside a zip."""
    found = files(__name__)
    if not isinstance(found, Path):
        raise ModelRejected(f"{found}: the demo model must lie in a folder; unpack the package")
    return found
