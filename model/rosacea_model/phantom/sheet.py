"""A sheet of phantoms: the same faces at each severity, and at each melanin. python -m rosacea_model.phantom.sheet"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from .identity import PhantomSpec, Scene, Subtype, melanin_of_tone, sample_phantom
from .render import render

COLUMNS = 8
SEVERITIES = (0.0, 0.4, 0.9, 1.3, 1.7, 2.2, 2.6, 3.0)
# Face, subtype, tone of the skin; and face, subtype, severity.
BY_SEVERITY = (
    (48, Subtype.etr, 0.02),
    (113, Subtype.ppr, 0.15),
    (202, Subtype.phymatous, 0.08),
    (204, Subtype.etr, 0.35),
)
BY_MELANIN = ((57, Subtype.etr, 2.4), (49, Subtype.healthy, 0.0), (23, Subtype.ppr, 2.0), (62, Subtype.etr, 3.0))


def severity_row(spec: PhantomSpec, subtype: Subtype) -> list[PhantomSpec]:
    """The parameters of one face at rising severity, from healthy to severe."""
    return [replace(spec, condition=with_severity(spec, subtype, severity).condition) for severity in SEVERITIES]


def with_severity(spec: PhantomSpec, subtype: Subtype, severity: float) -> PhantomSpec:
    """Copy of a face's parameters with this severity of this subtype; severity 0 is healthy."""
    kind = subtype if severity else Subtype.healthy
    return replace(spec, condition=replace(spec.condition, subtype=kind, severity=severity))


def with_melanin(spec: PhantomSpec, tone: float) -> PhantomSpec:
    """Copy of a face's parameters with other skin, from 0 (very light) to 1 (very dark), at constant exposure."""
    return replace(spec, identity=replace(spec.identity, melanin=melanin_of_tone(tone)))


def melanin_row(spec: PhantomSpec) -> list[PhantomSpec]:
    """The parameters of one face with rising melanin, from very light to very dark skin."""
    return [with_melanin(spec, column / (COLUMNS - 1)) for column in range(COLUMNS)]


def in_studio(spec: PhantomSpec) -> PhantomSpec:
    """Copy of a face's parameters in fixed light without noise, so that only the skin differs."""
    scene = replace(
        spec.scene,
        light_azimuth=-0.45,
        light_height=0.5,
        softness=0.7,
        warmth=0.0,
        key=1.0,
        fill=0.55,
        exposure=1.15,
        noise=0.0,
    )
    return replace(spec, scene=scene)


def sheet_specs(seed: int = 0) -> list[list[PhantomSpec]]:
    """Eight rows of eight: four identities by severity, four by melanin."""
    rows = []
    for index, subtype, tone in BY_SEVERITY:
        rows.append(severity_row(with_melanin(plain(sample_phantom(seed, index)), tone), subtype))
    for index, subtype, severity in BY_MELANIN:
        rows.append(melanin_row(with_severity(plain(sample_phantom(seed, index)), subtype, severity)))
    return rows


def plain(spec: PhantomSpec) -> PhantomSpec:
    """Copy of a face's parameters without flush, make-up and glasses, with stubble at most and fixed exposure; pose and
    light stay."""
    condition = replace(spec.condition, flush=0.0, makeup=0.0, glasses=0, beard=min(spec.condition.beard, 0.2))
    scene: Scene = replace(spec.scene, exposure=1.05)
    return replace(spec, condition=condition, scene=scene)


def draw_sheet(resolution: int = 256, seed: int = 0) -> Image.Image:
    """The sheet as a picture, 8 * resolution wide and high."""
    rows = [np.concatenate([render(spec, resolution).image for spec in row], axis=1) for row in sheet_specs(seed)]
    return Image.fromarray(np.concatenate(rows, axis=0))


def main(
    out: Annotated[Path, typer.Argument(help="PNG or JPEG to write.")] = Path("docs/images/phantoms.png"),
    resolution: Annotated[int, typer.Option(help="Size of each face as rendered.")] = 256,
    width: Annotated[int, typer.Option(help="Width of the saved sheet.")] = 1024,
) -> None:
    """Command: draw the sheet of phantoms to a PNG or JPEG file."""
    sheet = draw_sheet(resolution)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((width, width), Image.Resampling.LANCZOS).save(out, optimize=True)


if __name__ == "__main__":
    typer.run(main)
