"""Reports measurements as figures, JSON, a Markdown table and a plot."""

from __future__ import annotations

import platform
from collections import Counter
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from rosacea_contract.marks import software

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from rosacea_client.bench.load import Load, MeasurementWindow
    from rosacea_client.bench.measure import Done

SCHEMA = "rosacea.bench/1"  # changes whenever a field changes its meaning or goes


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Latency of answered calls in milliseconds; percentiles by nearest rank."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, kw_only=True)
class Step:
    """Measured figures of one load."""

    loop: str  # closed or open
    concurrency: int | None  # callers, in a closed loop
    calls_per_second: float | None  # asked for, in an open loop
    seconds: float
    answered: int  # calls
    failed: int
    errors: dict[str, int]  # failed calls by reason
    images_per_second: float
    megabytes_per_second: float  # of image data; a megabyte is 10^6 bytes
    latency: Latency | None  # None where nothing was answered


def step(load: Load, window: MeasurementWindow, calls: Sequence[Done]) -> Step:
    """Compute the figures of a load.

    Images count when they come within the window. The latency of a closed loop is that of calls which end in the
    window; that of an open loop, of calls which were meant to begin in it, however long they took.
    """
    counted = [call for call in calls if window.holds(call.end if load.loop == "closed" else call.start)]
    waits = [1e3 * (call.end - call.start) for call in counted if call.answer]
    errors = Counter(call.error for call in counted if not call.answer)
    came = [call.answer for call in calls if call.answer and window.holds(call.end)]
    return Step(
        loop=load.loop,
        concurrency=load.concurrency,
        calls_per_second=load.calls_per_second,
        seconds=window.seconds,
        answered=len(waits),
        failed=errors.total(),
        errors=dict(sorted(errors.items())),
        images_per_second=sum(answer.images for answer in came) / window.seconds,
        megabytes_per_second=sum(answer.size for answer in came) / 1e6 / window.seconds,
        latency=latency(waits) if waits else None,
    )


def latency(waits: Sequence[float]) -> Latency:
    """Latency percentiles of at least one call."""
    p50, p95, p99 = (float(each) for each in np.quantile(waits, [0.5, 0.95, 0.99], method="inverted_cdf"))
    return Latency(p50_ms=p50, p95_ms=p95, p99_ms=p99, max_ms=max(waits))


def to_json(steps: Sequence[Step], asked: dict[str, Any], *, interrupted: bool) -> dict[str, Any]:
    """The whole report as JSON; `asked` is what all calls have in common."""
    return {
        "schema": SCHEMA,
        "client": {
            "software": software(), "python": platform.python_version(), "grpcio": version("grpcio"),
            "machine": platform.machine(),
        },
        "asked": asked,
        "interrupted": interrupted,
        "steps": [asdict(each) for each in steps],
    }  # fmt: skip


COLUMNS = ("load", "answered", "images/s", "MB/s", "p50 ms", "p95 ms", "p99 ms", "failed")


def markdown(steps: Sequence[Step]) -> str:
    """Format a Markdown table with one row per load."""
    lines = [COLUMNS, ("---", *["---:"] * 6, "---"), *map(_cells, steps)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cells(found: Step) -> tuple[str, ...]:
    waits = found.latency
    times = [f"{each:.1f}" for each in (waits.p50_ms, waits.p95_ms, waits.p99_ms)] if waits else ["-"] * 3
    failed = ", ".join(f"{count} {reason}" for reason, count in found.errors.items()) or "0"
    return (_name(found), str(found.answered), f"{found.images_per_second:.1f}",
            f"{found.megabytes_per_second:.2f}", *times, failed)  # fmt: skip


def _name(found: Step) -> str:
    return f"{found.concurrency} at a time" if found.loop == "closed" else f"{found.calls_per_second:g} calls/s"


def plot(steps: Sequence[Step], title: str) -> Image.Image:
    """Plot throughput and latency by load, closed loop above open loop."""
    from rosacea_client.commands.chart import Panel, chart

    panels = []
    for loop, unit in (("closed", "callers at a time"), ("open", "calls a second asked for")):
        chosen = [each for each in steps if each.loop == loop]
        if chosen:
            ticks = [f"{each.concurrency if loop == 'closed' else each.calls_per_second:g}" for each in chosen]
            waits = {
                name: [getattr(each.latency, f"{name}_ms") if each.latency else None for each in chosen]
                for name in ("p50", "p95", "p99")
            }
            rates = [each.images_per_second for each in chosen]
            panels.append(Panel("images a second", unit, ticks, {"images/s": rates}))
            panels.append(Panel("latency, ms", unit, ticks, waits))
    return chart(title, panels)
