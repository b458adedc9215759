"""Writes a self-contained HTML report on a run, with SVG curves. Needs no torch."""

from __future__ import annotations

import base64
import html
import json
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from PIL import Image

from ...files.modelfile import write_atomically
from .records import read_best, read_object, read_stats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

WIDTH, HEIGHT, MARGIN = 420, 180, 34
# Title, curves, and what a good run looks like.
CHARTS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "Losses",
        ("G/loss", "D/loss"),
        "What each network minimises. They pull against each other: neither has to fall, and a generator's loss that "
        "only rises says that the discriminator wins.",
    ),
    (
        "Mean sign of the discriminator's output",
        ("signs/real", "signs/fake"),
        "How often it takes images for real (1) or not (-1). Where reals stay near 1 it knows them by heart; "
        "augmentation steers them to its target.",
    ),
    (
        "Augmentation probability",
        ("p",),
        "How often images are altered before the discriminator sees them. It rises while that one overfits; at its "
        "upper bound the data is too small for the run.",
    ),
    (
        "R1 penalty",
        ("r1_penalty",),
        "The squared gradient of the discriminator at real images. It should stay small and even; jumps come before a "
        "collapse.",
    ),
    (
        "Path length",
        ("path_length", "pl_mean"),
        "How far images move with latents, and its running mean. It should settle: latents then change images evenly.",
    ),
    (
        "Distance to the reals (sliced Wasserstein, pyramid patches)",
        ("distance",),
        "How unlike the reals colours and texture of the images are, 0 being alike. It ranks the snapshots of this "
        "run; the lowest is the best snapshot.",
    ),
    (
        "Distance to the layout of the reals (Frechet, coarse pixels)",
        ("layout",),
        "How differently whole images are laid out: 0 is alike, 1 as far as flat images of the mean colour.",
    ),
    (
        "Spread of fakes over that of reals",
        ("leak_orientation", "leak_color"),
        "How much images vary in orientation and colour, in units of the reals. Far above 1 augmentation leaks into "
        "them; far below 1 they are all alike.",
    ),
    (
        "Images a second",
        ("img_per_s",),
        "Real images shown in a second, with everything in between. Dips are sheets and snapshots.",
    ),
)
COLORS = ("#0b6e99", "#c2410c")
AT_SNAPSHOTS = {"distance", "layout", "leak_orientation", "leak_color"}  # records between repeat them
MOST_DOTS = 40  # of a curve; beyond, its points are too close to be told apart
SMALL_SHEET = 320  # pixels; smaller ones are shown larger, pixel by pixel
STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1c1917}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2rem;border-bottom:1px solid #e7e5e4}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(420px,1fr));gap:1rem}figure{margin:0}
figcaption{font-weight:600;font-size:.9rem}table{border-collapse:collapse;font-size:.85rem}
td{padding:.1rem .8rem .1rem 0;vertical-align:top}img{max-width:100%}img.small{width:100%;image-rendering:pixelated}
.sheets{display:flex;flex-wrap:wrap;gap:1rem}.sheets figure{flex:1 1 24rem}
p{margin:.2rem 0;font-size:.8rem}svg text{font-size:10px;fill:#57534e}"""


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write the report of a run directory and return its path."""
    config_path = run / "train.json"
    if not config_path.exists():
        raise ValueError(f"{run} must be a run directory, it holds no train.json")
    config = read_object(config_path)
    path = out or run / "report.html"
    write_atomically(path, _page(run, config, read_stats(run)).encode(errors="replace"))
    return path


def _page(run: Path, config: Mapping[str, Any], records: Sequence[Mapping[str, float]]) -> str:
    last = records[-1] if records else {}
    # Every start begins to count anew, so the time of a run is the sum over its stretches.
    facts = {
        "kimg": f"{last.get('kimg', 0):g} of {_plain(config.get('total_kimg'))}",
        "time": f"{_elapsed(records) / 3600:.2f} h on {config.get('device')}",
        "seconds a kimg": f"{last.get('s_per_kimg', 0):.3g}",
        "peak memory": f"{last.get('memory_gb', 0):.2f} GB, {last.get('gpu_memory_gb', 0):.2f} GB on the GPU",
        **_best(run),
    }
    charts = "".join(_chart(title, names, explanation, records) for title, names, explanation in CHARTS)
    name = html.escape(run.resolve().name)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Run {name}</title><style>{STYLE}</style>"
        f"<h1>Run {name}</h1>{_table(facts)}<h2>Curves</h2><div class=charts>{charts}</div>"
        f"<h2>Images</h2><div class=sheets>{_sheets(run)}</div><h2>Config</h2>{_table(config)}"
        f"{_datasheet(run)}</html>\n"
    )


def _plain(value: object) -> object:
    return f"{value:g}" if isinstance(value, float) else value


def _elapsed(records: Sequence[Mapping[str, float]]) -> float:
    times = [record["elapsed_s"] for record in records if "elapsed_s" in record]
    stretches = [time for time, after in pairwise(times) if after < time]
    return sum(stretches) + (times[-1] if times else 0.0)


def _best(run: Path) -> dict[str, str]:
    best = read_best(run)
    if not best:
        return {}
    return {"best snapshot": f"{best['snapshot']} ({best['measure']}: {best['distance']:.4g})"}


def _chart(title: str, names: Sequence[str], meaning: str, records: Sequence[Mapping[str, float]]) -> str:
    curves = {name: _curve(name, records) for name in names}
    points = [point for curve in curves.values() for point in curve]
    if len(points) < 2:
        return ""
    (left, right), (low, high) = _range([x for x, _ in points]), _range([y for _, y in points])

    def place(x: float, y: float) -> str:
        return (
            f"{MARGIN + (x - left) / (right - left) * (WIDTH - 2 * MARGIN):.1f},"
            f"{HEIGHT - MARGIN / 2 - (y - low) / (high - low) * (HEIGHT - MARGIN):.1f}"
        )

    lines, legend = "", ""
    for number, (name, curve) in enumerate(curves.items()):
        path = " ".join(place(x, y) for x, y in curve)
        lines += f'<polyline points="{path}" fill=none stroke="{COLORS[number]}" stroke-width=1.5 />'
        if len(curve) <= MOST_DOTS:
            lines += "".join(_dot(point, COLORS[number]) for point in path.split())
        legend += f'<span style="color:{COLORS[number]}">&#9644; {html.escape(name)}</span> '
    axes = (
        f'<path d="M{MARGIN} {MARGIN / 2}V{HEIGHT - MARGIN / 2}H{WIDTH - MARGIN}" fill=none stroke="#a8a29e" />'
        f"<text x=0 y={MARGIN / 2 + 4}>{high:.3g}</text><text x=0 y={HEIGHT - MARGIN / 2}>{low:.3g}</text>"
        f"<text x={MARGIN} y={HEIGHT - 4}>{left:g}</text>"
        f"<text x={WIDTH - MARGIN} y={HEIGHT - 4} text-anchor=end>{right:g} kimg</text>"
    )
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role=img aria-label="{html.escape(title)}">{axes}{lines}</svg>'
    return f"<figure><figcaption>{html.escape(title)}</figcaption><small>{legend}</small>{svg}<p>{meaning}</p></figure>"


def _curve(name: str, records: Sequence[Mapping[str, float]]) -> list[tuple[float, float]]:
    """The points of a curve, each where it was measured."""
    points = [(record["kimg"], record[name]) for record in records if math.isfinite(record.get(name, math.nan))]
    if name in AT_SNAPSHOTS:
        return points[:1] + [after for before, after in pairwise(points) if after[1] != before[1]]
    return points


def _dot(point: str, color: str) -> str:
    x, y = point.split(",")
    return f'<circle cx={x} cy={y} r=2 fill="{color}" />'


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _sheets(run: Path) -> str:
    folder = run / "grids"
    chosen: list[Path] = [path for path in (folder / "reals.png",) if path.exists()]
    for kind in ("fakes", "truncation"):
        found = sorted(folder.glob(f"{kind}-*.png"))
        chosen += found[:1] + found[-1:] if len(found) > 1 and kind == "fakes" else found[-1:]
    return "".join(
        f"<figure><figcaption>{html.escape(_caption(path.stem))}</figcaption>"
        f'<img{" class=small" if _width(path) < SMALL_SHEET else ""} alt="{html.escape(path.stem)}" '
        f'src="data:image/png;base64,{_base64(path)}">'
        "</figure>"
        for path in chosen
    )


def _caption(stem: str) -> str:
    """Caption of a sheet, such as `Generated at 12 kimg` for `fakes-000012.000`."""
    kind, _, kimg = stem.partition("-")
    if not kimg:
        return "Real images"
    when = f"at {float(kimg):g} kimg" if kimg.replace(".", "", 1).isdigit() else kimg
    return f"Generated {when}" if kind == "fakes" else f"The first seeds {when}, truncation psi from 0 to 1"


def _width(path: Path) -> int:
    with Image.open(path) as sheet:
        return sheet.width


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _datasheet(run: Path) -> str:
    path = run / "datasheet.json"
    if not path.exists():
        return ""
    return f"<h2>Data</h2>{_table(read_object(path))}"


def _table(facts: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(str(name))}<td>{html.escape(value if isinstance(value, str) else json.dumps(value))}"
        for name, value in facts.items()
    )
    return f"<table>{rows}</table>"
