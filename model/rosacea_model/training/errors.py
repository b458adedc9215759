"""What stops a training run, told so that its owner can act on it.

ModelError
  TrainingError
    NotFinite            a loss or gradient is NaN or infinite; nothing was stepped with it
    CheckpointDamaged    a checkpoint is not what its manifest says, or none is left that is
    RunBusy              another process trains in this run directory
    LoaderDied           a process that loads images was killed or crashed
    TransferMismatch     the source does not fit the networks that are to start from it
"""

from __future__ import annotations

from ..errors import ModelError


class TrainingError(ModelError):
    """Base of what training raises on purpose, beside ValueError for settings."""


class NotFinite(TrainingError):
    """A loss, gradient or weight holds NaN or infinity. `tensor` names it."""

    def __init__(self, tensor: str, phase: str, step: int) -> None:
        super().__init__(f"{tensor} is not finite in step {step} ({phase}): stopped before the optimiser used it")
        self.tensor = tensor


class CheckpointDamaged(TrainingError):
    """A checkpoint cannot be trusted."""


class RunBusy(TrainingError):
    """The run directory belongs to a trainer that is alive."""


class LoaderDied(TrainingError):
    """A process that loads images is gone."""


class TransferMismatch(TrainingError):
    """The networks to start from are of another make."""
