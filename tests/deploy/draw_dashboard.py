"""Draw the dashboard's panels: `python -m tests.deploy.draw_dashboard --out docs/images/dashboard.png`.

A real service, a real Prometheus and the committed dashboard's own queries; only the drawing is not Grafana's. What
happens meanwhile: ordinary load, then a crowd that asks for more than can be drawn, then a worker that is killed.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from rosacea_model import GeneratorConfig
from rosacea_model.fresh import fresh_model

from ..integration.service import RunningService
from .dashboard import Drawing, drawings
from .load import Load
from .prometheus import Prometheus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.ticker import Locator

COLUMNS = 3
WINDOW = "10s"
MOST_SERIES = 8
CONFIG = GeneratorConfig(z_dim=64, w_dim=64, img_resolution=64, mapping_layers=2, channel_base=2048, channel_max=64)
UNITS = {
    "reqps": "calls per second",
    "cps": "images per second",
    "Bps": "bytes per second",
    "s": "seconds",
    "percentunit": "percent",
    "bytes": "bytes",
    "short": "number",
}
COLOURS = ("#3274d9", "#56a64b", "#e0752d", "#a352cc", "#e02f44", "#f2cc0c", "#1f9e9e", "#8f6b4a")
LIGHT, DARK, PAPER = "#e4e7ec", "#3b4252", "#ffffff"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images/dashboard.png"))
    parser.add_argument("--seconds", type=float, default=240.0, help="how long the service is watched")
    arguments = parser.parse_args()
    draw(record(arguments.seconds), arguments.seconds, arguments.out)
    print(arguments.out)


def record(seconds: float) -> list[tuple[Drawing, list[tuple[str, Any]]]]:
    """Each panel with the series of its queries over a run of so many seconds, by legend."""
    with tempfile.TemporaryDirectory() as folder:
        model = fresh_model(Path(folder) / "model", CONFIG, seed=1, name="demo").path.parent
        with (
            RunningService([model], "--queue-images", "256") as service,
            Prometheus(service.metrics_address) as prometheus,
            Load(service.address, callers=2) as load,
        ):
            time.sleep(seconds * 0.25)
            load.greedy(seconds * 0.15)
            time.sleep(seconds * 0.3)
            service.workers()[0].kill()
            time.sleep(seconds * 0.45)
            return [(panel, series(prometheus, panel, seconds)) for panel in drawings(window=WINDOW)]


def series(prometheus: Prometheus, panel: Drawing, seconds: float) -> list[tuple[str, Any]]:
    """Name and points [N, 2] of each line of a panel: time in seconds before now, value."""
    found = []
    for query, legend in panel.queries:
        for each in prometheus.history(query, seconds):
            points = np.array(each["values"], float)
            points[:, 0] -= time.time()
            found.append((named(legend, each["metric"]), points))
    return sorted(found, key=lambda line: -float(np.nanmax(line[1][:, 1], initial=0.0)))[:MOST_SERIES]


def named(legend: str, labels: dict[str, str]) -> str:
    """Grafana's legend: `{{label}}` stands for its value."""
    for name, value in labels.items():
        legend = legend.replace("{{" + name + "}}", value)
    return legend


def draw(panels: Sequence[tuple[Drawing, list[tuple[str, Any]]]], seconds: float, out: Path) -> None:
    """All panels side by side, as a PNG."""
    rows = -(-len(panels) // COLUMNS)
    plt.rcParams.update({"font.family": "DejaVu Sans", "font.size": 8, "axes.edgecolor": LIGHT, "text.color": DARK})
    figure, grid = plt.subplots(rows, COLUMNS, figsize=(15, 2.9 * rows), facecolor=PAPER)
    figure.subplots_adjust(left=0.05, right=0.985, top=0.98, bottom=0.035, wspace=0.22, hspace=0.75)
    for axes, (panel, lines) in zip(grid.flat, panels, strict=False):
        draw_panel(axes, panel, lines, seconds)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_axis_off()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=100)
    plt.close(figure)


def draw_panel(axes: Axes, panel: Drawing, lines: Sequence[tuple[str, Any]], seconds: float) -> None:
    """One panel: its lines, or areas on top of each other, against the time before now."""
    times = np.arange(-seconds, 0.0)
    below = np.zeros_like(times)
    for colour, (name, points) in zip(COLOURS, lines, strict=False):
        values = np.interp(times, points[:, 0], points[:, 1], left=np.nan, right=np.nan)
        if panel.stacked:
            values = below + np.nan_to_num(values)
            axes.fill_between(times, below, values, color=colour, alpha=0.35, linewidth=0, label=name)
            if (values > below).any():
                axes.plot(times, np.where(values > below, values, np.nan), color=colour, linewidth=0.8)
            below = values
        else:
            axes.plot(times, values, color=colour, linewidth=1.3, label=name)
    axes.set_title(panel.title, loc="left", fontsize=10, fontweight="bold", color=DARK)
    axes.set_ylabel(UNITS[panel.unit])
    axes.set_xlabel("seconds before now")
    axes.set_xlim(-seconds, 0)
    axes.set_ylim(0, max(axes.get_ylim()[1], 0.01))
    axes.yaxis.set_major_locator(locator(axes.get_ylim()[1], panel.unit))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value, panel.unit)))
    axes.tick_params(colors=DARK, length=0)
    axes.grid(color=LIGHT, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.2),
        ncols=4,
        columnspacing=1.2,
        frameon=False,
        fontsize=7,
        handlelength=1,
    )


def locator(most: float, unit: str) -> Locator:
    """Where the lines of the grid are: round numbers, for bytes powers of two."""
    if unit in ("bytes", "Bps"):
        return MultipleLocator(2.0 ** math.ceil(math.log2(most / 5)))
    return MaxNLocator(5)


def written(value: float, unit: str) -> str:
    """A number as people read it."""
    if unit == "percentunit":
        return f"{value * 100:g}"
    if unit in ("bytes", "Bps"):
        for size, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
            if value >= size:
                return f"{value / size:.3g} {name}"
    return f"{value:g}"


if __name__ == "__main__":
    main()
