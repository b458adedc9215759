"""Compares the runs of a sweep: levels, differences between them, and a winner if the intervals allow one.

Each run gives one value of a measure, lower being better. Runs of one seed are paired, so differences between seeds are
taken off first: value = combination + seed + rest (a randomised block design; Montgomery, "Design and Analysis of
Experiments", chapter 4). The rest, pooled over all combinations, gives the intervals, by Student's t and corrected for
the number of comparisons after Bonferroni. Only seeds that every combination has finished count.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..intervals import LEVEL, Estimate, student_t

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class PairDifference:
    """Mean of one group of runs less that of another, paired by seed."""

    first: str
    second: str
    estimate: Estimate

    @property
    def told_apart(self) -> bool:
        """Whether the interval excludes 0."""
        return self.estimate.low > 0 or self.estimate.high < 0


@dataclass(frozen=True, kw_only=True)
class FactorEffect:
    """What one factor does, averaged over the levels of the others."""

    factor: str
    levels: tuple[Any, ...]
    means: tuple[float, ...]
    differences: tuple[PairDifference, ...]  # of every pair of levels
    share: float  # of the variation between runs that goes with the factor, 0 to 1


@dataclass(frozen=True, kw_only=True)
class SweepVerdict:
    """What a sweep allows to say about one measure."""

    measure: str
    seeds: tuple[int, ...]  # that count
    means: Mapping[str, float]  # of each combination
    intervals: Mapping[str, Estimate]  # of those means; this and all differences are empty with one seed
    seed_share: float  # of the variation between runs that goes with the seed
    effects: tuple[FactorEffect, ...]
    differences: tuple[PairDifference, ...]  # of the best combination to each other one
    best: str  # lowest mean
    candidates: tuple[str, ...]  # the best, and what cannot be told from it
    winner: str | None  # the best, if it differs from every other beyond chance; else None

    def sentence(self) -> str:
        """The recommendation with its uncertainty."""
        if len(self.seeds) < 2:
            return (
                f"No recommendation: {self.best} has the lowest {self.measure}, but {len(self.seeds)} seed tells "
                "nothing of how much runs differ by themselves."
            )
        if self.winner:
            return f"Recommended: {self.winner}. Its {self.measure} is below that of every other combination."
        others = ", ".join(each for each in self.candidates if each != self.best)
        return (
            f"No winner: {self.best} has the lowest {self.measure}, but with {len(self.seeds)} seeds it cannot be told "
            f"from {others}."
        )


def analyse(
    measure: str,
    values: Mapping[tuple[str, int], float],  # (combination, seed) -> value
    levels: Mapping[str, Mapping[str, Any]],  # combination -> factor -> level
    *,
    factorial: bool = True,
) -> SweepVerdict | None:
    """Compare combinations by the seeds that all of them have; None if there is no such seed."""
    cells = list(levels)
    seeds = complete_seeds(values, cells)
    if not seeds or not cells:
        return None
    table = np.array([[values[cell, seed] for seed in seeds] for cell in cells])
    means = dict(zip(cells, table.mean(axis=1).tolist(), strict=True))
    best = min(cells, key=lambda cell: means[cell])
    residual = Residual.of(table)
    others = [cell for cell in cells if cell != best]
    pairs = math.comb(len(cells), 2)
    differences = tuple(
        residual.difference(best, cell, table[cells.index(best)], table[cells.index(cell)], pairs)
        for cell in others
        if residual.freedom
    )
    unclear = [each.second for each in differences if not each.told_apart]
    return SweepVerdict(
        measure=measure,
        seeds=tuple(seeds),
        means=means,
        intervals=means_of(values, cells),
        seed_share=_share(table.mean(axis=0), len(cells), table),
        effects=_effects(table, cells, levels, residual) if factorial and residual.freedom else (),
        differences=differences,
        best=best,
        candidates=(best, *unclear),
        winner=best if others and len(seeds) > 1 and not unclear else None,
    )


def complete_seeds(values: Mapping[tuple[str, int], float], cells: Sequence[str]) -> list[int]:
    """Seeds that every combination has a value of."""
    return [seed for seed in sorted({seed for _, seed in values}) if all((cell, seed) in values for cell in cells)]


def means_of(values: Mapping[tuple[str, int], float], cells: Sequence[str]) -> dict[str, Estimate]:
    """Mean of each combination with its interval for comparing; empty with fewer than two complete seeds."""
    seeds = complete_seeds(values, cells)
    table = np.array([[values[cell, seed] for seed in seeds] for cell in cells])
    if len(seeds) < 2 or len(cells) < 2:
        return {}
    residual = Residual.of(table)
    return {cell: residual.mean(row) for cell, row in zip(cells, table, strict=True)}


@dataclass(frozen=True)
class Residual:
    """What is left of the variation when combination and seed are taken off."""

    variance: float  # pooled mean square
    freedom: int
    seeds: int

    @classmethod
    def of(cls, table: NDArray[np.float64]) -> Residual:  # [combinations, seeds]
        rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
        freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
        return cls(float(np.square(rest).sum() / freedom) if freedom else 0.0, freedom, table.shape[1])

    def difference(
        self, first: str, second: str, one: NDArray[np.float64], other: NDArray[np.float64], comparisons: int
    ) -> PairDifference:
        """PairDifference of the means of two groups of runs, the same number of each seed in both."""
        return PairDifference(
            first=first,
            second=second,
            estimate=self._estimate(float(one.mean() - other.mean()), 2 / one.size, comparisons),
        )

    def mean(self, row: NDArray[np.float64]) -> Estimate:
        """Mean of one combination, with an interval for comparing combinations: without the seeds' own part."""
        return self._estimate(float(row.mean()), 1 / row.size, 1)

    def _estimate(self, value: float, weight: float, comparisons: int) -> Estimate:
        half = student_t(1 - (1 - LEVEL) / comparisons, self.freedom) * math.sqrt(self.variance * weight)
        return Estimate(
            value=value,
            low=value - half,
            high=value + half,
            n=self.seeds,
            method=f"paired by seed, t with {self.freedom} degrees of freedom, {comparisons} comparisons",
        )


def _effects(
    table: NDArray[np.float64], cells: Sequence[str], levels: Mapping[str, Mapping[str, Any]], residual: Residual
) -> tuple[FactorEffect, ...]:
    return tuple(
        _effect(factor, [levels[cell][factor] for cell in cells], table, residual)
        for factor in (levels[cells[0]] if cells else ())
    )


def _effect(factor: str, level_of: Sequence[Any], table: NDArray[np.float64], residual: Residual) -> FactorEffect:
    names = list(dict.fromkeys(level_of))
    rows = {level: table[[number for number, each in enumerate(level_of) if each == level]] for level in names}
    pairs = list(itertools.combinations(names, 2))
    means = np.array([rows[level].mean() for level in names])
    return FactorEffect(
        factor=factor,
        levels=tuple(names),
        means=tuple(means.tolist()),
        differences=tuple(
            residual.difference(f"{factor} {one:g}", f"{factor} {other:g}", rows[one], rows[other], len(pairs))
            for one, other in pairs
        ),
        share=_share(means, table.size // len(names), table),
    )


def _share(means: NDArray[np.float64], repeats: int, table: NDArray[np.float64]) -> float:
    """Share of the squared deviations of all runs that lies between groups of equal size with these means."""
    total = float(np.square(table - table.mean()).sum())
    return float(repeats * np.square(means - table.mean()).sum() / total) if total else 0.0
