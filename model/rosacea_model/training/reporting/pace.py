"""Measures a run's speed and estimates its end, after a few steps and then regularly."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config import TrainConfig

FIRST_STEPS, FIRST_S = 10, 15.0  # the first estimate comes after as many steps, or as many seconds
LINE_S, LIVE_S = 60.0, 0.5  # how often there is a line in a log, and a new one on a terminal
LONG_S = 2 * 86400.0
REMEDY = "fewer --kimg, a smaller network (--cbase, --cmax), a smaller picture, or a GPU would shorten it"


@dataclass
class StepTimer:
    """Times steps; work between them, such as drawing and saving, is not counted."""

    config: TrainConfig
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = datetime.now
    begun: float = 0.0
    seconds: list[float] = field(default_factory=list)  # of the steps that count
    steps: int = 0
    announced: bool = False
    shown: float = 0.0

    def begin(self) -> None:
        """Start timing a step."""
        self.begun = self.clock()
        self.shown = self.shown or self.begun

    def end(self) -> None:
        """Stop timing a step. The first one, a warm-up, counts only until there is another."""
        self.steps += 1
        if self.steps == 2:
            self.seconds.clear()
        self.seconds.append(self.clock() - self.begun)
        del self.seconds[:-200]

    @property
    def s_per_kimg(self) -> float:
        return 1000 * sum(self.seconds) / len(self.seconds) / self.config.batch

    def left_s(self, kimg: float) -> float:
        """Estimated seconds to the end of the run."""
        return max(self.config.total_kimg - kimg, 0) * self.s_per_kimg

    def estimate(self, kimg: float) -> list[str]:
        """Lines with the first estimate when it is due; empty before and after."""
        due = self.steps >= FIRST_STEPS or sum(self.seconds) >= FIRST_S
        if self.announced or not due:
            return []
        self.announced = True
        left = self.left_s(kimg)
        until = (self.now() + timedelta(seconds=left)).strftime("%Y-%m-%d %H:%M")
        count = f"{self.steps} step{'s' if self.steps > 1 else ''}"
        line = (
            f"estimate after {count}: {self.s_per_kimg:.3g} s a kimg, {duration(left)} for what is left of "
            f"{self.config.total_kimg:g} kimg, until {until}"
        )
        return [line, *_warning(left)]

    def line(self, kimg: float, every_s: float) -> str | None:
        """A progress line when due, else None."""
        if not self.announced or self.clock() - self.shown < every_s:
            return None
        self.shown = self.clock()
        part = kimg / max(self.config.total_kimg, 1e-9)
        return (
            f"at {kimg:.3f} of {self.config.total_kimg:g} kimg ({part:.1%}), {self.s_per_kimg:.3g} s a kimg, "
            f"{duration(self.left_s(kimg))} left"
        )


def rough(config: TrainConfig, kimg: float, s_per_kimg: float) -> list[str]:
    """A rough estimate before the first step."""
    left = max(config.total_kimg - kimg, 0) * s_per_kimg
    total = f"{config.total_kimg:g} kimg"
    line = f"roughly: {s_per_kimg:.2g} s a kimg, {duration(left)} for {total}; better after ten steps"
    return [line, *_warning(left)]


def _warning(left_s: float) -> list[str]:
    """A warning if the run takes days."""
    return [f"warning: that is {left_s / 86400:.1f} days on this machine: {REMEDY}"] if left_s > LONG_S else []


def duration(seconds: float) -> str:
    """Format a duration such as `41 s`, `12 min`, `3.4 h` or `12.5 days`."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}" if seconds < 1000 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.3g} s"
