"""`make sbom` lists everything that is installed, with its version."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from ..conftest import ROOT

pytestmark = pytest.mark.long


def test_the_sbom_has_every_installed_distribution(tmp_path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^sbom:.*\n(?:\t.*\n)*\t\$\(BIN\)/(cyclonedx-py .*)$", makefile, re.MULTILINE)
    assert recipe is not None
    program, *arguments = recipe[1].replace("$(BIN)", str(Path(sys.executable).parent)).split()
    out = tmp_path / "sbom.json"
    arguments[arguments.index("-o") + 1] = str(out)

    subprocess.run([Path(sys.executable).with_name(program), *arguments], check=True, capture_output=True)

    listed = json.loads(out.read_text())
    assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.6")
    found = {(each["name"].lower(), each["version"]) for each in listed["components"]}
    assert found == {(each.metadata["Name"].lower(), each.version) for each in metadata.distributions()}
