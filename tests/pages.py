"""The pages whose commands and snippets are run: README, tutorials and how-to pages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PAGES = ["README.md", *(str(each.relative_to(ROOT)) for name in ("tutorials", "how-to")
                        for each in sorted((ROOT / "docs" / name).glob("*.md")))]  # fmt: skip
# Commands that a test does in its own way: it has a service already, and its environment is active.
ELSEWHERE = re.compile(r"^(rosacea serve .*&|rosacea serve &|\. \.venv/bin/activate)\n", re.MULTILINE)


def blocks(page: str, *languages: str) -> list[tuple[str, str]]:
    """The code blocks of a page in these languages, in order: language and text."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    return [(name, text) for name, text in found if name in languages]


def steps(page: str) -> list[tuple[str, str]]:
    """What a reader types, in order: "sh" or "python", and the text; without `make` and what is done elsewhere."""
    found = [(name, ELSEWHERE.sub("", text)) for name, text in blocks(page, "sh", "python")]
    return [(name, text) for name, text in found if not text.startswith("make ")]


def links(page: Path) -> list[str]:
    """The relative links of a page, without what stands after a #."""
    found = re.findall(r"\]\(([^)#\s]+)", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE))
    return [link for link in found if "://" not in link]
