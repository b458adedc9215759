"""Draws histograms of a series of phantoms: `python -m rosacea_model.phantom.histograms OUT --count 10000`."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .drawing.skin import MELANIN_RANGE
from .identity import TONE_POWER, melanin_of_tone, sample_phantom
from .measure import calm_skin, central_face, erythema_index, ita
from .render import render

if TYPE_CHECKING:
    from collections.abc import Callable

Facts = dict[str, float | str]
Bars = list[tuple[str, int]]
Numbers = NDArray[np.float64]

MEASURED_AT = 64
PANEL_PX = (360, 240)
MARGIN_PX = 34
INK, BAR, PAPER = (40, 40, 40), (178, 74, 66), (255, 255, 255)


def facts_of(seed: int, index: int) -> Facts:
    """Attributes of one phantom, with measurements of its picture."""
    spec = sample_phantom(seed, index)
    phantom = render(spec, MEASURED_AT)
    condition = spec.condition
    hidden = (
        ("flush", condition.flush),
        ("make-up", condition.makeup),
        ("glasses", condition.glasses),
        ("beard", condition.beard),
    )
    return {
        "severity": str(condition.grade),
        "subtype": condition.subtype.value,
        "melanin": spec.identity.melanin,
        "age": spec.identity.age,
        "hair": spec.identity.hair.value,
        "ita": ita(phantom.image, calm_skin(spec, phantom.face_mask)),
        "erythema": erythema_index(phantom.image, central_face(spec, MEASURED_AT)),
        "confounders": ", ".join(name for name, amount in hidden if amount) or "none",
    }


def gather(seed: int, count: int) -> list[Facts]:
    """Facts of every face of a series, on all cores."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        return list(pool.map(partial(facts_of, seed), range(count), chunksize=100))


def panels(facts: list[Facts]) -> list[tuple[str, Bars]]:
    """Title and bars of each histogram of phantom attributes, from the facts of all faces."""
    named = Counter(name for face in facts for name in str(face["confounders"]).split(", "))
    low, high = MELANIN_RANGE
    tones = (np.log(_numbers(facts, "melanin") / low) / np.log(high / low)) ** (1 / TONE_POWER)
    return [
        ("severity", _counted(facts, "severity")),
        ("subtype", _counted(facts, "subtype")),
        ("melanin, %, in equal steps of tone", _binned(tones, 0, 1, lambda tone: f"{100 * melanin_of_tone(tone):.1f}")),
        ("individual typology angle, degrees", _binned(_numbers(facts, "ita"), -60, 70, lambda edge: f"{edge:.0f}")),
        ("erythema index, central face", _binned(_numbers(facts, "erythema"), 0.1, 0.6, lambda edge: f"{edge:.2f}")),
        ("confounders (a face can have several)", sorted(named.items())),
        ("age, years", _binned(_numbers(facts, "age"), 18, 80, lambda edge: f"{edge:.0f}")),
        ("hair", _counted(facts, "hair")),
    ]


def draw(facts: list[Facts], title: str) -> Image.Image:
    """All histograms on one page, two columns."""
    every = panels(facts)
    wide, high = PANEL_PX
    rows = -(-len(every) // 2)
    page = Image.new("RGB", (2 * wide, rows * high + MARGIN_PX), PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((12, 10), title, fill=INK, font=ImageFont.load_default(15))
    for place, (name, bars) in enumerate(every):
        _panel(pen, (place % 2 * wide, place // 2 * high + MARGIN_PX), name, bars)
    return page


def _panel(pen: ImageDraw.ImageDraw, corner: tuple[int, int], title: str, bars: Bars) -> None:
    small = ImageFont.load_default(10)
    left, top = corner[0] + 12, corner[1] + 26
    width, height = PANEL_PX[0] - 24, PANEL_PX[1] - 70
    most = max(count for _, count in bars)
    step = width / len(bars)
    pen.text((left, corner[1] + 6), f"{title}   (tallest bar: {most})", fill=INK, font=ImageFont.load_default(12))
    for place, (name, count) in enumerate(bars):
        x = left + place * step
        pen.rectangle((x + 1, top + height - count / most * height, x + step - 2, top + height), fill=BAR)
        text = name if len(name) < 12 else name[:10] + "."
        lowered = 12 if place % 2 and len(bars) > 5 else 0
        pen.text((x + step / 2, top + height + 4 + lowered), text, fill=INK, font=small, anchor="ma")


def _numbers(facts: list[Facts], key: str) -> Numbers:
    return np.array([float(face[key]) for face in facts])


def _counted(facts: list[Facts], key: str) -> Bars:
    return sorted(Counter(str(face[key]) for face in facts).items())


def _binned(values: Numbers, low: float, high: float, name: Callable[[float], str]) -> Bars:
    counts, edges = np.histogram(np.clip(values, low, high), bins=12, range=(low, high))
    return [(name((a + b) / 2), int(count)) for a, b, count in zip(edges, edges[1:], counts, strict=False)]


def main(
    out: Annotated[Path, typer.Argument(path_type=Path, help="PNG to write.")],
    count: Annotated[int, typer.Option(min=1, help="How many faces.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Which series.")] = 0,
) -> None:
    """Command: draw histograms of the attributes of a series of phantoms (rendered faces) to a PNG file."""
    facts = gather(seed, count)
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(facts, f"{count} phantoms, seed {seed}, measured at {MEASURED_AT} px").save(out, optimize=True)


if __name__ == "__main__":
    typer.run(main)
