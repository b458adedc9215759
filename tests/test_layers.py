"""The arrows of the architecture: who may import what. Each probe is a fresh interpreter."""

from __future__ import annotations

import ast
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from .conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

TORCH_FREE = [
    "rosacea_client",
    "rosacea_client.cli",
    "rosacea_client.commands",
    "rosacea_client.health",
    "rosacea_model",
    "rosacea_model.archive",
    "rosacea_model.cli",
    "rosacea_model.data.cli",
    "rosacea_model.demo",
    "rosacea_model.fidelity.cli",
    "rosacea_model.signing",
    "rosacea_model.training.cli",
    "rosacea_serving.cli",
    "rosacea_serving.gateway",
    "rosacea_serving.handler",
]
# Package to the packages of ours that it may import. Generated code is everyone's.
ARROWS = {
    "clients/python/rosacea_client": {"rosacea"},
    "model/rosacea_model": set(),
    "serving/rosacea_serving": {"rosacea", "rosacea_client", "rosacea_model"},
}
OURS = {"rosacea_client", "rosacea_model", "rosacea_serving", "rosacea"}


@pytest.mark.parametrize("module", TORCH_FREE)
def test_does_not_pull_in_torch(module: str) -> None:
    probe = f"import sys, {module}; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_the_probe_notices_torch() -> None:
    probe = "import sys, rosacea_model.engine; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 1


@pytest.mark.parametrize("package", ARROWS)
def test_imports_only_what_its_layer_may(package: str) -> None:
    allowed = ARROWS[package] | {package.rpartition("/")[2]}
    found = {
        f"{file.name} imports {name}"
        for file in (ROOT / package).rglob("*.py")
        for name in imported(file)
        if name in OURS - allowed
    }

    assert found == set()


def test_the_model_package_knows_no_protobuf() -> None:
    names = {name for file in (ROOT / "model/rosacea_model").rglob("*.py") for name in imported(file)}

    assert names & {"grpc", "google", "rosacea"} == set()


def test_every_package_has_types_for_its_users() -> None:
    assert [package for package in ARROWS if not (ROOT / package / "py.typed").exists()] == []


def imported(file: Path) -> set[str]:
    """Top-level names of everything a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module).partition(".")[0])
    return names
