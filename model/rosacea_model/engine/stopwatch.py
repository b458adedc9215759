"""Times work on a device."""

from __future__ import annotations

import time

import torch


class Stopwatch:
    """Measures time on a device without a wait for it, until `seconds` are asked for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if device.type == "cuda" else []
        self._times = [0.0, 0.0]

    def __enter__(self) -> None:
        self._mark(0)

    def __exit__(self, *exception: object) -> None:
        self._mark(1)

    def _mark(self, place: int) -> None:
        self._times[place] = time.perf_counter()
        if self._events:
            with torch.cuda.device(self._device):  # an event belongs to the device that is current at its record
                self._events[place].record()

    @property
    def seconds(self) -> float:
        if self._events:
            self._events[1].synchronize()  # no wait once the results are there
            return float(self._events[0].elapsed_time(self._events[1])) / 1000
        return self._times[1] - self._times[0]
