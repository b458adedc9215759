"""The roofline of a model on a device: the least time of each layer beside what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .layers import TOTAL, layer_seconds
from .rates import Rates, measure_rates
from .work import Work, work

if TYPE_CHECKING:
    from ...model import Model


@dataclass(frozen=True)
class Row:
    """One layer, or all of them."""

    name: str
    operations: int
    bytes: int
    floor_seconds: float  # the longer of computing and moving, at the rates measured
    seconds: float

    @property
    def share(self) -> float:
        """How much of its time a layer would need at the least; above 1 where caches beat memory."""
        return self.floor_seconds / self.seconds


@dataclass(frozen=True)
class Roofline:
    """One image on one device."""

    device: str
    threads: int
    rates: Rates
    layers: list[Row]
    total: Row  # measured without a wait between layers, so not the sum of their seconds


def roofline(model: Model, repeats: int = 9) -> Roofline:
    """Measure the device, then the layers; takes some seconds, on an otherwise idle device."""
    import torch

    rates = measure_rates(model.device)
    seconds = layer_seconds(model, repeats)
    rows = [_row(layer, rates, seconds[layer.name]) for layer in work(model.config, cuda=model.device.type == "cuda")]
    floor = sum(row.floor_seconds for row in rows)
    sums = sum(row.operations for row in rows), sum(row.bytes for row in rows)
    return Roofline(str(model.device), torch.get_num_threads(), rates, rows, Row(TOTAL, *sums, floor, seconds[TOTAL]))


def _row(layer: Work, rates: Rates, seconds: float) -> Row:
    floor = max(layer.operations / rates.operations, layer.bytes / rates.bytes)
    return Row(layer.name, layer.operations, layer.bytes, floor, seconds)
