"""Line charts in one picture, drawn with pillow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 480, 300  # of a panel, in pixels; two stand side by side
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 48, 52
INK, PALE, PAPER = "#1c1917", "#d6d3d1", "white"
COLORS = ("#0b6e99", "#c2410c", "#4d7c0f", "#7e22ce")
RULES = 4


@dataclass(frozen=True)
class Panel:
    """One chart: lines over equally spaced steps. A value of None is left out."""

    title: str
    x_label: str
    ticks: Sequence[str]
    lines: Mapping[str, Sequence[float | None]]


def chart(title: str, panels: Sequence[Panel]) -> Image.Image:
    """Draw panels under one title in two columns; every vertical axis begins at 0."""
    if not panels:
        raise ValueError("a chart needs at least one panel, got none")
    columns, head = min(2, len(panels)), 36
    picture = Image.new("RGB", (columns * WIDTH, math.ceil(len(panels) / columns) * HEIGHT + head), PAPER)
    pen = ImageDraw.Draw(picture)
    pen.text((16, 12), title, fill=INK, font=ImageFont.load_default(15))
    for place, panel in enumerate(panels):
        _draw(pen, place % columns * WIDTH, place // columns * HEIGHT + head, panel)
    return picture


def _draw(pen: ImageDraw.ImageDraw, left: int, top: int, panel: Panel) -> None:
    small = ImageFont.load_default(11)
    rule = _round_up(max((value for line in panel.lines.values() for value in line if value), default=1.0) / RULES)
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def spot(place: int, value: float) -> tuple[float, float]:
        share = (place + 0.5) / len(panel.ticks)
        return left + LEFT + share * width, top + TOP + (1 - value / (rule * RULES)) * height

    pen.text((left + LEFT, top + 8), panel.title, fill=INK, font=ImageFont.load_default(13))
    for number in range(RULES + 1):
        y = spot(0, number * rule)[1]
        pen.line((left + LEFT, y, left + LEFT + width, y), fill=PALE)
        pen.text((left + LEFT - 6, y), f"{number * rule:g}", fill=INK, font=small, anchor="rm")
    for place, tick in enumerate(panel.ticks):
        pen.text((spot(place, 0)[0], top + TOP + height + 6), tick, fill=INK, font=small, anchor="ma")
    pen.text((left + LEFT + width / 2, top + HEIGHT - 22), panel.x_label, fill=INK, font=small, anchor="ma")
    legend = left + LEFT + width
    for number, (name, line) in reversed(list(enumerate(panel.lines.items()))):
        color = COLORS[number % len(COLORS)]
        spots = [spot(place, value) for place, value in enumerate(line) if value is not None]
        for before, after in pairwise(spots):
            pen.line((*before, *after), fill=color, width=2)
        for x, y in spots:
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=color)
        pen.text((legend, top + 30), name, fill=color, font=small, anchor="ra")
        legend -= int(small.getlength(name)) + 14


def _round_up(value: float) -> float:
    """Round up to 1, 2, 2.5, 5 or 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * (1 - 1e-9))
