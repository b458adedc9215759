"""`rosacea data faces`: groups pictures by person, so that one person stays on one side of a hold-out."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from PIL import Image, ImageDraw
from rich.console import Console

from rosacea_model.data.errors import DataRejected, Unusable, printable
from rosacea_model.data.pictures.decode import DecodeOptions, decode
from rosacea_model.data.progress import progress_on
from rosacea_model.data.screening.faces import DetectedFace, FaceFinder, aligned
from rosacea_model.data.screening.people import people
from rosacea_model.data.source import Picture, Reader, open_source
from rosacea_model.data.worker import most_bytes
from rosacea_model.files.modelfile import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FORMAT = "rosacea-faces-report/1"
TILE, MAX_ROWS, MAX_COLUMNS = 96, 40, 10
LISTED = 10


@dataclass(kw_only=True)
class FaceSurvey:
    """Faces found in the pictures of a source."""

    faces: dict[str, DetectedFace] = field(default_factory=dict)  # the face of each picture that has just one
    none: list[str] = field(default_factory=list)
    several: dict[str, int] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    groups: list[list[str]] = field(default_factory=list)  # pictures that look like one person
    tiles: dict[str, Image.Image] = field(default_factory=dict)


def faces(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder or zip of pictures.")],
    out: Annotated[Path, typer.Option(metavar="CSV", help="File to write: file,subject for data prepare --subjects.")],
    align: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write each face, turned upright by its eyes.")
    ] = None,
    resolution: Annotated[int, typer.Option(min=16, max=4096, help="Pixels a side of aligned faces.")] = 512,
) -> None:
    """Find the face in each picture and group pictures that look like one person.

    Pictures without a face, or with several, are listed. Needs the extra `faces`: pip install 'rosacea[faces]'.
    """
    if not out.parent.is_dir():
        raise DataRejected(f"{out}: there is no folder {out.parent}")
    finder, console = FaceFinder(), Console(stderr=True, highlight=False)
    with progress_on(console, "pictures") as progress:
        found = look(source, finder, progress, align=align, resolution=resolution)
    write_atomically(out, subjects_csv(found))
    write_atomically(out.with_suffix(".json"), report(found))
    written = [out, out.with_suffix(".json")]
    if found.groups:
        written.append(out.with_name(f"{out.stem}-people.png"))
        people_sheet(found).save(written[-1])
    tell(console, found)
    for path in written:
        typer.echo(str(path))


def look(
    source: Path,
    finder: FaceFinder,
    progress: Callable[[int, int], None],
    *,
    align: Path | None = None,
    resolution: int = 512,
) -> FaceSurvey:
    """Find the faces of a source and group similar ones. Pictures are read as in `data prepare`."""
    listed, reader, found = open_source(source, labels=False), Reader(source), FaceSurvey()
    targets = _targets(listed.pictures, align) if align else {}
    for done, picture in enumerate(listed.pictures, 1):
        progress(done, len(listed.pictures))
        try:
            image = _read(reader, picture)
        except Unusable as reason:
            found.unusable[picture.name] = str(reason)
            continue
        seen = finder.find(image)
        if len(seen) == 1:
            found.faces[picture.name] = seen[0]
            found.tiles[picture.name] = aligned(image, seen[0], TILE)
            if target := targets.get(picture.name):
                target.parent.mkdir(parents=True, exist_ok=True)
                aligned(image, seen[0], resolution).save(target)
        elif seen:
            found.several[picture.name] = len(seen)
        else:
            found.none.append(picture.name)
    names = list(found.faces)
    embeddings = np.stack([face.embedding for face in found.faces.values()]) if names else np.zeros((0, 128))
    found.groups = [[names[place] for place in group] for group in people(embeddings.astype(np.float32))]
    return found


def _targets(pictures: Sequence[Picture], folder: Path) -> dict[str, Path]:
    """Where each aligned picture goes: NAME.png, or NAME.jpg.png where two pictures differ by their suffix alone."""
    plain = {picture.name: (folder / picture.name).with_suffix(".png") for picture in pictures}
    shared = Counter(plain.values())
    return {name: path if shared[path] == 1 else folder / f"{name}.png" for name, path in plain.items()}


def _read(reader: Reader, picture: Picture) -> Image.Image:
    if picture.problem:
        raise Unusable(picture.reason, picture.problem)
    options = DecodeOptions(min_size=1)
    return decode(reader.read(picture.name, picture.member, most_bytes(options)), options).image


def people_of(found: FaceSurvey) -> dict[str, str]:
    """The person of each grouped picture."""
    return {name: f"person-{number:04d}" for number, group in enumerate(found.groups, 1) for name in group}


def subjects_csv(found: FaceSurvey) -> bytes:
    """CSV with one row for each grouped picture: file and person."""
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(["file", "subject"])
    rows.writerows(people_of(found).items())
    return buffer.getvalue().encode()


def report(found: FaceSurvey) -> bytes:
    """The findings as JSON. They name files, so they stay with the owner of the pictures."""
    entries = {
        "format": FORMAT,
        "people": found.groups,
        "without_a_face": found.none,
        "several_faces": found.several,
        "unusable": found.unusable,
        "faces": {
            name: {
                "box": [round(edge, 1) for edge in (face.left, face.top, face.right, face.bottom)],
                "certainty": round(face.certainty, 2),
                "eyes": [[round(value, 1) for value in eye] for eye in face.eyes],
            }
            for name, face in found.faces.items()
        },
    }
    return (json.dumps(entries, indent=1) + "\n").encode()


def people_sheet(found: FaceSurvey) -> Image.Image:
    """Picture sheet with one row per person, largest groups first."""
    groups = sorted(found.groups, key=len, reverse=True)[:MAX_ROWS]
    columns = min(max(map(len, groups)), MAX_COLUMNS)
    sheet = Image.new("RGB", (columns * TILE, len(groups) * TILE), (250, 250, 250))
    for row, group in enumerate(groups):
        for column, name in enumerate(group[:columns]):
            sheet.paste(found.tiles[name], (column * TILE, row * TILE))
        if len(group) > columns:
            more = f"+{len(group) - columns}"
            ImageDraw.Draw(sheet).text((columns * TILE - 30, row * TILE + 4), more, fill=(220, 0, 90))
    return sheet


def tell(console: Console, found: FaceSurvey) -> None:
    """Print how many faces were found, and where there is none or several."""
    alike = sum(map(len, found.groups))
    console.print(
        f"{len(found.faces)} pictures with one face, {len(found.none)} without, {len(found.several)} with several, "
        f"{len(found.unusable)} unusable; {alike} look like another one, in {len(found.groups)} groups",
        soft_wrap=True,
    )
    odd = [*((name, "no face") for name in found.none), *((name, "several faces") for name in found.several)]
    for name, what in [*odd, *found.unusable.items()][:LISTED]:
        console.print(f"{printable(name)}: {what}", markup=False, soft_wrap=True)
