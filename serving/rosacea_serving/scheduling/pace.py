"""Estimates job durations from recent jobs, for deadline checks and retry hints."""

from __future__ import annotations

import math

PAST = 0.9  # what the jobs before count for, each time one ends
FORGET_SECONDS = 10.0  # after so long without a job, nothing is known any more
NOTHING: tuple[float, ...] = (0.0,) * 5


class Pace:
    """Fits `seconds = fixed + each * images` to recent jobs, older ones counting less.

    It errs towards promising too much: before jobs of different sizes were seen, all the time counts as fixed. And
    what it knows it forgets, or else one slow minute could keep refusing every call for good.
    """

    def __init__(self) -> None:
        # Weighted sums of 1, n, t, n * n and n * t, over jobs of n images that took t seconds.
        self._sums = NOTHING
        self._fitted = (0.0, 0.0)  # seconds of a job, and of each image in it
        self._last = -math.inf
        self._under_way = 0

    def began(self, now: float) -> None:
        """Count a job as begun; forgets earlier jobs if none ran for FORGET_SECONDS."""
        self._forget(now)
        self._under_way += 1

    def ended(self, now: float) -> None:
        """Count a job as ended, successful or not; `note` records its duration."""
        self._last = now
        self._under_way -= 1

    def note(self, images: int, seconds: float, now: float) -> None:
        """Record that a job of this many images, ending now, took this long."""
        self._forget(now)
        self._last = now
        terms = (1, images, seconds, images * images, images * seconds)
        self._sums = tuple(before * PAST + now for before, now in zip(self._sums, terms, strict=True))
        self._fitted = _fit(*self._sums)

    def seconds(self, images: int, now: float, *, max_batch: int, jobs_in_flight: int) -> float:
        """Estimated seconds for this many images once a worker starts; 0 if nothing is known."""
        fixed, each = (0.0, 0.0) if self._stale(now) else self._fitted
        jobs = math.ceil(images / max_batch)
        return math.ceil(jobs / jobs_in_flight) * fixed + each * images / max(1, min(jobs, jobs_in_flight))

    def _stale(self, now: float) -> bool:
        return not self._under_way and now - self._last > FORGET_SECONDS

    def _forget(self, now: float) -> None:
        if self._stale(now):
            self._sums, self._fitted = NOTHING, (0.0, 0.0)


def _fit(weight: float, images: float, seconds: float, squares: float, products: float) -> tuple[float, float]:
    """Least-squares fit to weighted sums, with both coefficients at least 0."""
    images, seconds, squares, products = images / weight, seconds / weight, squares / weight, products / weight
    variance = squares - images * images
    if variance < 1e-6 * squares:
        return seconds, 0.0
    each = max(0.0, (products - images * seconds) / variance)
    fixed = seconds - each * images
    return (fixed, each) if fixed >= 0 else (0.0, seconds / images)
