"""The README is true: its settings are all there are, and its commands and snippets run."""

from __future__ import annotations

import re

from rosacea_model import GeneratorConfig
from rosacea_serving.settings import Settings
from rosacea_serving.settings_doc import markdown

from .conftest import ROOT

README = (ROOT / "README.md").read_text()
TINY = GeneratorConfig(z_dim=32, w_dim=32, img_resolution=16, mapping_layers=2, channel_base=256, channel_max=16)
SERVE = "rosacea serve &\n"


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


def test_every_setting_is_described_as_it_is() -> None:
    page = (ROOT / "docs" / "SETTINGS.md").read_text()

    assert page == markdown(), "`make settings` makes it anew"
    assert all(field.description for field in Settings.model_fields.values())


def test_every_make_target_that_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets


def test_every_path_that_it_names_exists() -> None:
    (tree,) = [block for block in blocks("") if block.startswith("Makefile")]
    folder, missing = ROOT, []
    for line in tree.splitlines():
        names = re.split(r"  +", line.strip(), maxsplit=1)[0].split()
        if not line.startswith(" "):
            folder = ROOT / names[0]
        missing += [name for name in names if not ((folder if line.startswith(" ") else ROOT) / name).exists()]

    assert missing == []
