"""Writes a self-contained HTML report on a run, with SVG curves. Needs no torch."""

from __future__ import annotations

import base64
import html
import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from PIL import Image

from ...files.modelfile import write_atomically
from .chart import STYLE, ChartCurve, chart
from .records import curve, read_best, read_object, read_stats

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

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
        "How unlike the reals colours and texture of the images are, 0 being alike. It ranks the snapshots of runs "
        "on grey images; the lowest is the best snapshot.",
    ),
    (
        "KID x 1000 against the reals (encoder builtin)",
        ("kid",),
        "How unlike the reals whole faces are to a network that was trained on phantoms: about 0 is alike. It ranks "
        "the snapshots of runs in colour; the lowest is the best snapshot.",
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
SMALL_SHEET = 320  # pixels; smaller ones are shown larger, pixel by pixel


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
    name = html.escape(run.resolve().name)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Run {name}</title><style>{STYLE}</style>"
        f"<h1>Run {name}</h1>{table(facts)}<h2>Curves</h2>{curves(records)}"
        f"<h2>Images</h2><div class=sheets>{_sheets(run)}</div><h2>Config</h2>{table(config)}"
        f"{_datasheet(run)}</html>\n"
    )


def curves(records: Sequence[Mapping[str, float]]) -> str:
    """All charts of a run's statistics."""
    charts = "".join(_chart(title, names, explanation, records) for title, names, explanation in CHARTS)
    return f"<div class=charts>{charts}</div>"


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
    return chart(title, [ChartCurve(name=name, points=curve(name, records)) for name in names], meaning)


def _sheets(run: Path) -> str:
    folder = run / "grids"
    chosen: list[Path] = [path for path in (folder / "reals.png",) if path.exists()]
    for kind in ("fakes", "truncation"):
        found = sorted(folder.glob(f"{kind}-*.png"))
        chosen += found[:1] + found[-1:] if len(found) > 1 and kind == "fakes" else found[-1:]
    return "".join(sheet(path, _caption(path.stem)) for path in chosen)


def sheet(path: Path, caption: str) -> str:
    """A figure of a sheet of images, embedded in the page."""
    small = " class=small" if _width(path) < SMALL_SHEET else ""
    return (
        f'<figure><figcaption>{html.escape(caption)}</figcaption><img{small} alt="{html.escape(path.stem)}" '
        f'src="data:image/png;base64,{embedded(path)}"></figure>'
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


def embedded(path: Path) -> str:
    """The file in base64, for a page that needs no other file."""
    return base64.b64encode(path.read_bytes()).decode()


def _datasheet(run: Path) -> str:
    path = run / "datasheet.json"
    if not path.exists():
        return ""
    return f"<h2>Data</h2>{table(read_object(path))}"


def table(facts: Mapping[str, Any]) -> str:
    """Facts as rows of a table."""
    rows = "".join(
        f"<tr><td>{html.escape(str(name))}<td>{html.escape(value if isinstance(value, str) else json.dumps(value))}"
        for name, value in facts.items()
    )
    return f"<table>{rows}</table>"


def rows(body: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    """A table of words with a heading for each column."""
    top = "".join(f"<th>{html.escape(word)}" for word in head)
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in row) for row in body)
    return f"<table><tr>{top}{cells}</table>"
