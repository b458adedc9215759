"""Whether memory is flat: what a thing held in the last tenth of a run, beside what it held in the first.

Medians of tenths, because single samples also hold what is just under way. The run begins after the warm-up.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

PER = 10_000  # calls that growth is counted in, as the promise (P8) has it
PARTS = 10


@dataclass(frozen=True)
class Growth:
    """From the first tenth of a run to the last."""

    first: float  # MiB
    last: float  # MiB
    calls: float  # between the middle of the one and the middle of the other

    @property
    def mebibytes(self) -> float:
        return self.last - self.first

    @property
    def per_10k(self) -> float:
        return self.mebibytes * PER / self.calls

    def beyond(self, per_10k: float, at_least: float = 0.0) -> bool:
        """Whether it is more than so many MiB for 10,000 calls; never, if it is less than `at_least`."""
        return self.mebibytes > max(per_10k * self.calls / PER, at_least)

    def __str__(self) -> str:
        return f"{self.first:.1f} to {self.last:.1f} MiB ({self.mebibytes:+.1f}) in {self.calls:,.0f} calls"


@dataclass
class Samples:
    """The memory of one thing over a run."""

    calls: list[int] = field(default_factory=list)  # that had ended by then
    mebibytes: list[float] = field(default_factory=list)

    def add(self, calls: int, mebibytes: float) -> None:
        self.calls.append(calls)
        self.mebibytes.append(mebibytes)

    def growth(self) -> Growth:
        """AssertionError for fewer samples than there are parts: they would prove nothing."""
        part = len(self.calls) // PARTS
        assert part, f"growth needs at least {PARTS} samples, got {len(self.calls)}"
        first, last = self.mebibytes[:part], self.mebibytes[-part:]
        calls = statistics.median(self.calls[-part:]) - statistics.median(self.calls[:part])
        return Growth(statistics.median(first), statistics.median(last), calls)
