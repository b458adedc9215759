"""The documentation site has every page and every public name. Put together only: `make docs` builds it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import rosacea_client
import rosacea_model
from rosacea_client.cli import GROUP
from rosacea_serving.settings import Settings

from .conftest import ROOT
from .pages import links

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("website") / "docs"
    subprocess.run([sys.executable, ROOT / "docs" / "website" / "stage.py", folder], check=True)
    return folder


def named(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for each in nav if isinstance(nav, list) else nav.values() if isinstance(nav, dict) else ():
        yield from named(each)


def test_the_navigation_names_every_page_once(staged: Path) -> None:
    pages = sorted(str(page.relative_to(staged)) for page in staged.rglob("*.md"))

    assert sorted(named(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])) == pages


def test_every_page_of_the_docs_is_a_page_of_the_site(staged: Path) -> None:
    pages = [page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")]

    assert len(pages) > 20 and [page for page in pages if not (staged / page).exists()] == []


def test_no_link_of_a_page_leads_out_of_the_site(staged: Path) -> None:
    broken = [
        f"{page.relative_to(staged)}: {link}"
        for page in staged.rglob("*.md")
        for link in links(page)
        if not (page.parent / link).resolve().is_relative_to(staged) or not (page.parent / link).exists()
    ]

    assert broken == []


@pytest.mark.parametrize("package", [rosacea_client, rosacea_model])
def test_the_reference_has_every_public_name(staged: Path, package: Any) -> None:
    page = (staged / "reference" / f"{package.__name__}.md").read_text()

    assert [name for name in package.__all__ if f"::: {package.__name__}.{name}\n" not in page] == []


def test_the_reference_has_every_command_setting_and_field(staged: Path) -> None:
    commands = (staged / "reference" / "cli.md").read_text()
    api = (staged / "reference" / "api.md").read_text()
    settings = (staged / "SETTINGS.md").read_text()

    assert [each.name for each in entry_points(group=GROUP) if f"`rosacea {each.name}`" not in commands] == []
    assert "`rosacea data prepare`" in commands and "`--queue-images`" in commands
    assert [name for name in Settings.model_fields if f"| `{name}` |" not in settings] == []
    assert "rpc GenerateFaces" in api and "enum ErrorReason" in api
    assert "`rosacea_queue_depth`" in (staged / "reference" / "metrics.md").read_text()
