"""What stops a training run, in words that its owner can act on.

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
    """Base of what training raises on purpose, beside ValueError for settings."""


class NotFinite(TrainingError):
    """A loss, gradient or weight holds NaN or infinity. `tensor` names the first, `found` all of them."""

    def __init__(self, tensor: str, phase: str, step: int, found: Sequence[str] = ()) -> None:
        super().__init__(f"{tensor} is not finite in step {step} ({phase}): stopped before the optimiser used it")
        self.tensor, self.phase, self.step, self.found = tensor, phase, step, tuple(found) or (tensor,)

    def facts(self) -> dict[str, object]:
        """What is kept with the run."""
        return {"error": str(self), "step": self.step, "phase": self.phase, "not_finite": self.found}


class PictureUnreadable(TrainingError):
    """An image of the data set cannot be used, though the data set could be opened. The message names it."""


class CheckpointDamaged(TrainingError):
    """A checkpoint cannot be trusted."""


class NoGoodCheckpoint(CheckpointDamaged):
    """There are checkpoints, and none of them can be trusted. The command ends with an exit code of its own."""

    exit_code = 3


class RunBusy(TrainingError):
    """The run directory belongs to a trainer that is alive."""


class LoaderDied(TrainingError):
    """A process that loads images is gone, or has been silent for too long."""


class TransferMismatch(TrainingError):
    """The networks to start from are of another make."""
