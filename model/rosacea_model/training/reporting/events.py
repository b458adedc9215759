"""Writes a run's statistics as TensorBoard event files (`--tensorboard`)."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from rosacea_contract.install import missing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FOLDER = "tensorboard"
NOT_FIGURES = ("kimg", "step")  # where a figure stands, not what it is


def check_installed() -> None:
    """Raise ValueError, naming what to install, unless event files can be written."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError(missing("--tensorboard", "tensorboard", "tensorboard"))


class Events:
    """Writes all statistics of each tick against the number of real images shown."""

    def __init__(self, run: Path, nimg: int) -> None:
        """Continue from this number of images; later events of an interrupted run are hidden."""
        check_installed()
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(run / FOLDER, purge_step=nimg + 1 if nimg else 0)

    def write(self, record: Mapping[str, float]) -> None:
        nimg = round(record["kimg"] * 1000)
        for name, value in record.items():
            if name not in NOT_FIGURES:
                self.writer.add_scalar(name, value, nimg)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
