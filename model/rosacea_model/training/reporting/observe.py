"""Records and shows a run's progress: stats.jsonl, console output, image sheets, snapshots."""

from __future__ import annotations

import copy
import json
import math
import os
import resource
import shutil
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from torch import Tensor

from ...behind import model_name
from ...classes import classes_fact
from ...files import weights
from ...files.modelfile import write_atomically, write_manifest
from ..ada import ALARM_RATIO, Leak, leak
from ..feed import Mirrored, to_unit
from ..stop import Stop
from . import grids
from .events import Events
from .pace import LINE_S, LIVE_S, StepTimer
from .records import BEST_NAME, STATS_NAME, read_best, read_stats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from rich.console import RenderableType

    from ...files.modelfile import ModelFile
    from ...networks.generator import Generator
    from ..config import TrainConfig
    from ..feed import TrainingSet
    from ..state import TrainState
    from ..step import Figures

SHOWN_REALS = 256
TRUNCATION_ROWS = 4
COUNTED = ("skipped",)
MEASURE = "sliced Wasserstein distance of pyramid patches"


class Tally:
    """Accumulates statistics since the last tick."""

    def __init__(self) -> None:
        self.totals: dict[str, float] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)

    def add(self, figures: Figures) -> None:
        for name, figure in figures.items():
            self.totals[name] += figure.total
            self.counts[name] += figure.count

    def take_means(self) -> dict[str, float]:
        """Return the means (or sums, for names in COUNTED) since the last call, and reset."""
        means = {
            name: self.totals[name] / (1 if name in COUNTED else self.counts[name]) for name in sorted(self.totals)
        }
        self.totals.clear()
        self.counts.clear()
        return means


class SnapshotMeasure(Protocol):
    """A measure that ranks snapshots in place of the built-in one; lower is better."""

    @property
    def figure(self) -> str:
        """Its name in stats.jsonl."""
        ...

    @property
    def name(self) -> str:
        """What it is, for people."""
        ...

    def __call__(self, reals: NDArray[np.uint8], fakes: NDArray[np.uint8]) -> float:
        """Measure fakes [M, H, W, C] against reals [N, H, W, C], which are the same in every call."""
        ...


class Stopped(Exception):
    """A stop was requested while drawing."""


@dataclass(frozen=True, kw_only=True)
class WrittenSnapshot:
    """A written and measured snapshot: its folder, its distance to the reals, and whether augmentations leak."""

    folder: Path
    distance: float
    leak: Leak


class RunReporter:
    """Writes and shows a run's progress, on the leading rank only."""

    def __init__(
        self,
        run: Path,
        config: TrainConfig,
        images: TrainingSet,
        labels: Tensor | None,
        classes: Sequence[str] = (),
        stop: Stop | None = None,
        measure: SnapshotMeasure | None = None,
    ) -> None:
        self.run = run
        self.stop = stop or Stop()
        self.measure = measure
        self.config = config
        self.classes = classes
        # Shuffled, so that the first few seeds are not all of the first class.
        self.labels = None if labels is None else labels[np.random.default_rng(0).permutation(len(labels))]
        self.tally = Tally()
        self.reals = _sample_of(Mirrored(images, mirror=config.mirror))  # uint8 [N, C, H, W]
        self.display = Display(config)
        self.pace = StepTimer(config)
        self.events: Events | None = None
        self.started = self.ticked = self.snapped = time.monotonic()
        self.nimg_at_tick = 0
        self.last: dict[str, float] = {}
        self.untrained: Generator | None = None  # what the run began from, until it has been looked at
        self.untrained_p = 0.0
        self.settled = False  # whether fakes have ever varied no more than reals; an alarm needs a before

    def begin(self, state: TrainState) -> None:
        """Discard records later than the restored state, and write the sheet of reals."""
        self.nimg_at_tick = int(state.nimg)
        if self.config.tensorboard:
            self.events = Events(self.run, int(state.nimg))
        _keep_stats_until(self.run / STATS_NAME, int(state.nimg))
        shown = to_unit(self.reals[: self.config.grid_images])
        grids.save_sheet(self.run / "grids" / "reals.png", shown, grids.columns_for(len(shown)))
        if not state.nimg:
            self.untrained = copy.deepcopy(state.G_ema)
            self.untrained_p = state.p
            return
        self.settled = any(
            max(record["leak_orientation"], record["leak_color"]) <= ALARM_RATIO
            for record in read_stats(self.run)
            if "leak_orientation" in record and "leak_color" in record
        )
        # A checkpoint is saved before its own snapshot is measured; figures of another measure do not compare.
        best = read_best(self.run)
        known = min(float(state.best), best.get("distance", math.inf))
        state.best.fill_(known if best.get("measure", self._measured_by) == self._measured_by else math.inf)

    def first_look(self) -> None:
        """Draw and measure the initial state once; later snapshots are compared with it.

        It takes a while, and so it comes after the first estimate.
        """
        generator, self.untrained = self.untrained, None
        if generator is None:
            return
        with suppress(Stopped):
            self._sheets(generator, 0)
            _, found = self._compare(self._draw(generator))
            self.settled = not found.alarm
            self._write({"kimg": 0, "step": 0, "p": self.untrained_p, **self.last})

    def step(self, state: TrainState) -> None:
        """End the timing of a step; when due, print an estimate (then draw the initial state) or a progress line."""
        self.pace.end()
        kimg = int(state.nimg) / 1000
        for line in self.pace.estimate(kimg):
            self.display.say(line)
        if self.pace.announced:
            self.first_look()
        if now := self.pace.line(kimg, LIVE_S if self.display.live else LINE_S):
            self.display.progress(now)

    def tick(self, state: TrainState) -> dict[str, float]:
        """Write and show the statistics since the last tick."""
        self.first_look()
        now = time.monotonic()
        shown = int(state.nimg) - self.nimg_at_tick
        speed = shown / max(now - self.ticked, 1e-9)
        left = max(self.config.total_kimg * 1000 - float(state.nimg), 0)
        record = {
            "kimg": int(state.nimg) / 1000,
            "step": int(state.step),
            **self.tally.take_means(),
            "p": state.p,
            "pl_mean": float(state.pl_mean),
            **self.last,
            "img_per_s": speed,
            "s_per_kimg": 1000 / max(speed, 1e-9),
            "eta_s": left / max(speed, 1e-9),
            "elapsed_s": now - self.started,
            **memory(state.device),
        }
        self._write(record)
        self.display.show(record)
        if "skipped" in record:
            self.display.warn(f"{record['skipped']:g} optimiser steps were skipped: their gradients were not finite")
        self.ticked, self.nimg_at_tick = now, int(state.nimg)
        return record

    def snapshot_is_due(self) -> bool:
        """Whether a snapshot is due by time."""
        minutes = self.config.snap_minutes
        return minutes is not None and time.monotonic() - self.snapped >= minutes * 60

    def keep(self, state: TrainState) -> ModelFile:
        """Save the averaged generator as a model folder, whatever its quality."""
        name = self._name(state)
        return weights.save(
            self.run / "snapshots" / name, state.G_ema.config, state.G_ema.state_dict(), **self._manifest_facts(state)
        )

    def snapshot(self, state: TrainState) -> WrittenSnapshot | None:
        """Save the averaged generator, draw its sheets, and measure its distance to the reals.

        None where a stop was asked for meanwhile: the model is kept, and not measured.
        """
        self.first_look()
        self.snapped = time.monotonic()
        file = self.keep(state)
        try:
            return self._measure(state, file)
        except Stopped:
            return None

    @property
    def _measured_by(self) -> str:
        """The measure that ranks this run's snapshots."""
        return self.measure.name if self.measure else MEASURE

    def _measure(self, state: TrainState, file: ModelFile) -> WrittenSnapshot:
        distance, found = self._compare(self._draw(state.G_ema))
        name, folder = self._name(state), file.path.parent
        write_manifest(folder, digest=file.digest, **self._manifest_facts(state), distance=f"{distance:.6g}")
        if distance < float(state.best):
            state.best.fill_(distance)
            best = {"snapshot": name, "step": int(state.step), "distance": distance, "measure": self._measured_by}
            write_atomically(self.run / "snapshots" / BEST_NAME, (json.dumps(best, indent=2) + "\n").encode())
        self._prune()
        self._sheets(state.G_ema, int(state.nimg))
        self.settled |= not found.alarm
        if found.alarm and self.settled and state.p > 0:
            self.display.warn(
                f"leak alarm (p {state.p:.3f}): fakes vary {found.orientation:.1f} times as much as reals in "
                f"orientation, {found.color:.1f} times in colour"
            )
        return WrittenSnapshot(folder=folder, distance=distance, leak=found)

    def _sheets(self, generator: Generator, nimg: int) -> None:
        """Draw the fixed seeds, and the first of them at several truncations."""
        stem = f"{nimg / 1000:010.3f}"
        fakes = grids.draw(generator, range(self.config.grid_images), self.labels, heed=self._heed)
        grids.save_sheet(self.run / "grids" / f"fakes-{stem}.png", fakes, grids.columns_for(len(fakes)))
        truncated = grids.draw_truncations(generator, TRUNCATION_ROWS, self.labels, self._heed)
        grids.save_sheet(self.run / "grids" / f"truncation-{stem}.png", truncated, len(grids.PSIS))

    def finish(self) -> None:
        self.display.stop()
        if self.events is not None:
            self.events.close()

    def _draw(self, generator: Generator) -> Tensor:
        count = min(len(self.reals), 4 * self.config.grid_images)
        return grids.draw(generator, range(count), self.labels, heed=self._heed)

    def _heed(self) -> None:
        if self.stop.wanted:
            raise Stopped

    def _name(self, state: TrainState) -> str:
        return f"kimg-{int(state.nimg) / 1000:010.3f}"

    def _manifest_facts(self, state: TrainState) -> dict[str, str]:
        """Facts to write into a snapshot's manifest."""
        return {
            "name": model_name(f"{self.run.resolve().name}-{self._name(state)}"),
            "kimg": str(int(state.nimg) / 1000),
            "seed": str(self.config.seed),
            **classes_fact(self.classes),
        }

    def _compare(self, fakes: Tensor) -> tuple[float, Leak]:
        """The distance that ranks the snapshot, and the leak; all figures go into the records."""
        distance, found = grids.distance(self.reals, fakes), leak(self.reals, fakes)
        self.last = {
            "distance": distance,
            "layout": grids.layout(self.reals, fakes),
            "leak_orientation": found.orientation,
            "leak_color": found.color,
        }
        if self.measure is None:
            return distance, found
        reals = self.reals.permute(0, 2, 3, 1).numpy()
        self.last[self.measure.figure] = self.measure(reals, grids.to_levels(fakes))
        return self.last[self.measure.figure], found

    def _write(self, record: Mapping[str, float]) -> None:
        with (self.run / STATS_NAME).open("a") as file:
            rounded = {name: _rounded(value) for name, value in record.items() if math.isfinite(value)}
            file.write(json.dumps(rounded, allow_nan=False) + "\n")
        if self.events is not None:
            self.events.write(record)

    def _prune(self) -> None:
        folder = self.run / "snapshots"
        for path in sorted(folder.glob("kimg-*"))[: -self.config.keep_last]:
            if path.name != read_best(self.run).get("snapshot"):
                shutil.rmtree(path)


class Display:
    """A live table on a terminal; elsewhere one line for each tick, `name value` pairs after the word tick."""

    SHOWN = (
        "kimg",
        "img_per_s",
        "s_per_kimg",
        "eta_s",
        "p",
        "signs/real",
        "r1_penalty",
        "path_length",
        "G/loss",
        "D/loss",
        "distance",
        "layout",
        "kid",
        "memory_gb",
        "gpu_memory_gb",
    )

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.console = Console(highlight=False, soft_wrap=True)
        self.live: Live | None = None
        if self.console.is_terminal:
            self.shown: list[RenderableType] = [f"training: first figures after {config.tick_kimg:g} kimg", ""]
            self.live = Live(Group(*self.shown), console=self.console, auto_refresh=False)
            self.live.start(refresh=True)

    def show(self, record: dict[str, float]) -> None:
        if self.live is None:
            pairs = " ".join(f"{name} {record[name]:.5g}" for name in self.SHOWN if name in record)
            self.console.print(f"tick {pairs}", markup=False)
            return
        table = Table(title="training", title_justify="left", show_header=False)
        table.add_row("progress", _bar(record["kimg"] / max(self.config.total_kimg, 1e-9)))
        for name in self.SHOWN:
            if name in record:
                value = _clock(record[name]) if name == "eta_s" else f"{record[name]:.5g}"
                table.add_row("time left" if name == "eta_s" else name, value)
        self._update(0, table)

    def progress(self, line: str) -> None:
        """Print a progress line, which replaces the previous one on a terminal."""
        if self.live is None:
            self.say(line)
        else:
            self._update(1, line)

    def _update(self, place: int, shown: RenderableType) -> None:
        assert self.live is not None
        self.shown[place] = shown
        self.live.update(Group(*self.shown), refresh=True)

    def say(self, text: str) -> None:
        """Print a line; warnings in colour."""
        self.console.print(text, style="bold red" if text.startswith("warning: ") else None, markup=False)

    def warn(self, text: str) -> None:
        self.say(f"warning: {text}")

    def stop(self) -> None:
        if self.live is not None:
            self.live.stop()


def memory(device: torch.device) -> dict[str, float]:
    """Peak memory of this process so far."""
    peaks = {"memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    if device.type == "cuda":
        peaks["gpu_memory_gb"] = torch.cuda.max_memory_allocated(device) / 2**30
    return peaks


def _keep_stats_until(path: Path, nimg: int) -> None:
    records = [record for record in read_stats(path.parent) if record["kimg"] * 1000 <= nimg + 0.5]
    write_atomically(path, "".join(json.dumps(record) + "\n" for record in records).encode())


def _sample_of(images: Mirrored) -> Tensor:  # => uint8 [N, C, H, W]
    """Reals spread evenly over the set, flipped ones included if training uses them."""
    places = np.linspace(0, len(images) - 1, min(len(images), SHOWN_REALS)).astype(int)
    return torch.stack([images[int(place)][0] for place in places])


def _rounded(value: float) -> float | int:
    return value if isinstance(value, int) else float(f"{value:.7g}")


def _bar(part: float) -> str:
    width = min(max(os.get_terminal_size().columns - 40, 10), 40) if os.isatty(1) else 40
    full = round(width * min(part, 1))
    return "█" * full + "░" * (width - full) + f" {part:.1%}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
