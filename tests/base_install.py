"""The package as `pip install rosacea` leaves it, with no extras: as much of this environment as that would bring."""

from __future__ import annotations

import os
import re
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

from .conftest import ROOT

OURS = (
    "clients/python/rosacea_client", "protos/contract/rosacea_contract", "protos/gen/rosacea", "model/rosacea_model",
    "serving/rosacea_serving",
)  # fmt: skip


def base_install(folder: Path) -> tuple[list[str], dict[str, str]]:
    """A Python that finds nothing but the base install, as a command and its environment; it is put into `folder`."""
    for needed in _closure("rosacea", {}).values():
        for name in _top_level(needed):
            source = Path(str(needed.locate_file(name)))
            if source.exists() and not (folder / name).exists():
                (folder / name).symlink_to(source)
    for package in OURS:
        (folder / Path(package).name).symlink_to(ROOT / package)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return [sys.executable, "-S"], environment | {"PYTHONPATH": str(folder)}


def _closure(name: str, found: dict[str, Distribution]) -> dict[str, Distribution]:
    """A distribution and everything that it requires without extras."""
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key not in found:
        found[key] = distribution(name)
        for line in found[key].requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                _closure(requirement.name, found)
    return found


def _top_level(installed: Distribution) -> set[str]:
    names = {file.parts[0] for file in installed.files or ()}
    return {name for name in names if not name.startswith((".", "__")) and not name.endswith(".pth")}
