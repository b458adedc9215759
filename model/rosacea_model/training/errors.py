"""Errors that stop a training run, worded for its owner.

ModelError
  TrainingError
    NotFinite            a loss or gradient is NaN or infinite; nothing was stepped with it
    PictureUnreadable    an image of the data set cannot be read any more
    CheckpointDamaged    a checkpoint is not what its manifest says
      NoGoodCheckpoint     and none is left that is
    RunBusy              another process trains in this run directory
    LoaderDied           a process that loads images was killed, crashed or hangs
    TransferMismatch     the source does not fit the networks that are to start from it
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence


class TrainingError(ModelError):
    """Base class of training errors, except ValueError for settings."""


class NotFinite(TrainingError):
    """A loss, gradient or weight contains NaN or infinity. `tensor` names the first, `found` lists all."""

    def __init__(self, tensor: str, phase: str, step: int, found: Sequence[str] = ()) -> None:
        super().__init__(f"{tensor} is not finite in step {step} ({phase}): stopped before the optimiser used it")
        self.tensor, self.phase, self.step, self.found = tensor, phase, step, tuple(found) or (tensor,)

    def facts(self) -> dict[str, object]:
        """Facts to store with the run."""
        return {"error": str(self), "step": self.step, "phase": self.phase, "not_finite": self.found}


class PictureUnreadable(TrainingError):
    """An image of the data set cannot be read. The message names it."""


class CheckpointDamaged(TrainingError):
    """A checkpoint is damaged."""


class NoGoodCheckpoint(CheckpointDamaged):
    """All checkpoints of a run are damaged. The command ends with exit code 3."""

    exit_code = 3


class RunBusy(TrainingError):
    """The run directory is in use by a running trainer."""


class LoaderDied(TrainingError):
    """A data loading process has died or stopped responding."""


class TransferMismatch(TrainingError):
    """The starting networks have an incompatible architecture."""
