"""Put the pages of the documentation site together, for `make docs`: `python docs/website/stage.py build/docs`.

They are the pages of docs/, README and a few like it, and the reference, which is made from the code. Links to files
that are no page become plain text: the site holds no source code.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from reference import pages

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
WEBSITE = Path(__file__).resolve().parent
# Files beside docs/ that are pages of the site, too.
BESIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "clients/examples/README.md": "how-to/examples.md",
    "model/rosacea_model/demo/README.md": "demo-model/card.md",
}
# Where links to these lead.
INSTEAD = {"protos/rosacea/v1/faces.proto": "reference/api.md", "protos/rosacea/v1/reasons.proto": "reference/api.md"}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")
FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def stage(out: Path) -> None:
    """Fill the folder anew."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(DOCS, out, ignore=shutil.ignore_patterns("website", "__pycache__"))
    for page in DOCS.rglob("*.md"):
        write(out, str(page.relative_to(DOCS)), relinked(page, str(page.relative_to(DOCS))))
    for source, name in BESIDE.items():
        write(out, name, relinked(ROOT / source, name))
    for name, text in pages(ROOT).items():
        write(out, name, text)


def write(out: Path, name: str, text: str) -> None:
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def relinked(source: Path, name: str) -> str:
    """The text of a page that will lie at `name`, with its links as they must be there."""
    parts = FENCE.split(source.read_text())
    return "".join(
        part if part.startswith("```") else LINK.sub(lambda m: link(m, source, name), part) for part in parts
    )


def link(found: re.Match[str], source: Path, name: str) -> str:
    mark, text, target, fragment = found[1], found[2], found[3], found[4] or ""
    if not target or "://" in target:
        return found[0]
    place = place_of((source.parent / target).resolve())
    if place is None:
        return text
    return f"{mark}[{text}]({os.path.relpath(place, Path(name).parent)}{fragment})"


def place_of(file: Path) -> str | None:
    """Where a file of the repository lies in the site; None where it does not."""
    if file.is_relative_to(DOCS):
        return str(file.relative_to(DOCS))
    inside = str(file.relative_to(ROOT))
    return BESIDE.get(inside) or INSTEAD.get(inside)


if __name__ == "__main__":
    stage(Path(sys.argv[1]))
