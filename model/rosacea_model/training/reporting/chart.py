"""Draws curves over kimg, or another amount, as SVG, in a figure of a self-contained HTML page."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Point = tuple[float, float]  # amount, value
WIDTH, HEIGHT, MARGIN = 420, 180, 34
COLORS = ("#0b6e99", "#c2410c", "#4d7c0f", "#7e22ce", "#a16207", "#0f766e", "#be185d", "#57534e", "#1d4ed8", "#b91c1c")
MOST_DOTS = 40  # of a curve; beyond, its points are too close to be told apart
STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1c1917}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2rem;border-bottom:1px solid #e7e5e4}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(420px,1fr));gap:1rem}figure{margin:0}
figcaption{font-weight:600;font-size:.9rem}table{border-collapse:collapse;font-size:.85rem}
td,th{padding:.1rem .8rem .1rem 0;vertical-align:top;text-align:left}img{max-width:100%}
img.small{width:100%;image-rendering:pixelated}
.sheets{display:flex;flex-wrap:wrap;gap:1rem}.sheets figure{flex:1 1 24rem}
p{margin:.2rem 0;font-size:.8rem}svg text{font-size:10px;fill:#57534e}"""


@dataclass(frozen=True, kw_only=True)
class ChartCurve:
    """A named curve, with a band of uncertainty where there is one."""

    name: str
    points: Sequence[Point]
    band: Sequence[tuple[float, float, float]] = ()  # amount, low, high


@dataclass(frozen=True)
class _Axes:
    """Where kimg and values lie in the drawing."""

    left: float
    right: float
    low: float
    high: float

    @classmethod
    def of(cls, curves: Sequence[ChartCurve]) -> _Axes:
        across = [x for curve in curves for x, _ in curve.points]
        up = [y for curve in curves for _, y in curve.points]
        up += [y for curve in curves for _, low, high in curve.band for y in (low, high)]
        return cls(*_range(across), *_range(up))

    def place(self, x: float, y: float) -> str:
        return (
            f"{MARGIN + (x - self.left) / (self.right - self.left) * (WIDTH - 2 * MARGIN):.1f},"
            f"{HEIGHT - MARGIN / 2 - (y - self.low) / (self.high - self.low) * (HEIGHT - MARGIN):.1f}"
        )

    def drawn(self, unit: str) -> str:
        return (
            f'<path d="M{MARGIN} {MARGIN / 2}V{HEIGHT - MARGIN / 2}H{WIDTH - MARGIN}" fill=none stroke="#a8a29e" />'
            f"<text x=0 y={MARGIN / 2 + 4}>{self.high:.3g}</text>"
            f"<text x=0 y={HEIGHT - MARGIN / 2}>{self.low:.3g}</text>"
            f"<text x={MARGIN} y={HEIGHT - 4}>{self.left:g}</text>"
            f"<text x={WIDTH - MARGIN} y={HEIGHT - 4} text-anchor=end>{self.right:g} {unit}</text>"
        )


def chart(title: str, curves: Sequence[ChartCurve], meaning: str, *, unit: str = "kimg") -> str:
    """A figure with the curves in one pair of axes; empty if there are fewer than two points."""
    if sum(len(curve.points) for curve in curves) < 2:
        return ""
    axes = _Axes.of(curves)
    lines, legend = "", ""
    for number, curve in enumerate(curves):
        color = COLORS[number % len(COLORS)]
        lines += _band(curve, axes, color) + _line(curve, axes, color)
        legend += f'<span style="color:{color}">&#9644; {html.escape(curve.name)}</span> '
    drawing = axes.drawn(unit) + lines
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role=img aria-label="{html.escape(title)}">{drawing}</svg>'
    return f"<figure><figcaption>{html.escape(title)}</figcaption><small>{legend}</small>{svg}<p>{meaning}</p></figure>"


def _line(curve: ChartCurve, axes: _Axes, color: str) -> str:
    places = [axes.place(x, y) for x, y in curve.points]
    line = f'<polyline points="{" ".join(places)}" fill=none stroke="{color}" stroke-width=1.5 />'
    return line + "".join(_dot(place, color) for place in places if len(places) <= MOST_DOTS)


def _band(curve: ChartCurve, axes: _Axes, color: str) -> str:
    if not curve.band:
        return ""
    outline = [axes.place(x, low) for x, low, _ in curve.band] + [
        axes.place(x, high) for x, _, high in curve.band[::-1]
    ]
    return f'<polygon points="{" ".join(outline)}" fill="{color}" opacity=0.15 />'


def _dot(point: str, color: str) -> str:
    x, y = point.split(",")
    return f'<circle cx={x} cy={y} r=2 fill="{color}" />'


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
