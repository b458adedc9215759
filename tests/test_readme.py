"""The pages are true: settings are all there are, make targets, files and links that they name exist."""

from __future__ import annotations

import re

import pytest

from rosacea_serving.settings import Settings
from rosacea_serving.settings_doc import markdown

from .conftest import ROOT
from .pages import PAGES, blocks, links

TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
LINKED = sorted({*PAGES, "CONTRIBUTING.md", *(str(each.relative_to(ROOT)) for each in (ROOT / "docs").rglob("*.md"))})


def test_the_readme_fits_on_a_few_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_every_setting_is_described_as_it_is() -> None:
    page = (ROOT / "docs" / "SETTINGS.md").read_text()

    assert page == markdown(), "`make settings` makes it anew"
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize("page", LINKED)
def test_every_make_target_and_every_link_of_a_page_exists(page: str) -> None:
    named = re.findall(r"`make ([a-z0-9-]+)", (ROOT / page).read_text())
    named += [word for _, text in blocks(page, "sh") for word in re.findall(r"^make ([a-z0-9-]+)", text, re.MULTILINE)]

    assert set(named) <= TARGETS
    assert [link for link in links(ROOT / page) if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_every_path_of_the_map_exists() -> None:
    (tree,) = [text for _, text in blocks("docs/ARCHITECTURE.md", "") if text.startswith("Makefile")]
    folder, missing = ROOT, []
    for line in tree.splitlines():
        names = re.split(r"  +", line.strip(), maxsplit=1)[0].split()
        if not line.startswith(" "):
            folder = ROOT / names[0]
        missing += [name for name in names if not ((folder if line.startswith(" ") else ROOT) / name).exists()]

    assert missing == []
