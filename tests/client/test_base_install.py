"""What the base install is enough for, and what it costs to import."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ..base_install import base_install

if TYPE_CHECKING:
    from pathlib import Path

DRAW = """
import sys
from pathlib import Path
from rosacea_client import FaceClient, contact_sheet

with FaceClient(sys.argv[1]) as client:
    faces = client.generate([1, 2, 3])
    faces[0].save(Path(sys.argv[2]) / "face.png")
    contact_sheet(faces).save(Path(sys.argv[2]) / "sheet.png")
    assert [face.array().shape for face in client.stream(range(5), format="raw")] == [faces[0].array().shape] * 5
assert "torch" not in sys.modules
"""
COMMAND = "from rosacea_client.cli import main; main()"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, str]]:
    return base_install(tmp_path_factory.mktemp("base"))


def run(bare: tuple[list[str], dict[str, str]], *arguments: str) -> subprocess.CompletedProcess[str]:
    command, environment = bare
    return subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, check=False)


def test_the_base_install_draws_by_library_and_by_command(
    bare: tuple[list[str], dict[str, str]], address: str, tmp_path: Path
) -> None:
    library = run(bare, "-W", "error", "-c", DRAW, address, str(tmp_path))
    command = run(bare, "-c", COMMAND, "generate", "--seeds", "0-3", "--out", str(tmp_path), "--address", address)

    assert (library.stderr, library.returncode) == ("", 0)
    assert (command.stdout, command.returncode) == (f"4 faces in {tmp_path}\n", 0)
    assert {"face.png", "sheet.png", "face_000003.png"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("module", ["torch", "pytest", "rosacea_model.engine", "rosacea_serving.gateway", "pyarrow"])
def test_the_base_install_has_nothing_else(bare: tuple[list[str], dict[str, str]], module: str) -> None:
    assert "ModuleNotFoundError" in run(bare, "-c", f"import {module}").stderr


def test_a_command_whose_part_is_missing_says_how_to_install_it(bare: tuple[list[str], dict[str, str]]) -> None:
    done = run(bare, "-c", COMMAND, "serve")

    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install" in done.stderr


@pytest.mark.parametrize("statement", ["import rosacea_client", "from rosacea_client import FaceClient"])
def test_importing_the_client_imports_no_command_line_and_no_torch(statement: str) -> None:
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", statement], capture_output=True, text=True, check=True
    ).stderr

    imported = {name.partition(".")[0] for name in re.findall(r"\| +([\w.]+)$", told, re.MULTILINE)}
    assert "rosacea_client" in imported
    assert imported & {"torch", "typer", "rich", "PIL", "opentelemetry", "pyarrow", "rosacea_model"} == set()
