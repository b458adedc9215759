"""Errors of models that a user can act on.

ModelError
  ModelRejected        the file is not a model this version can trust or read
    CheckpointRejected   a foreign checkpoint asks for something no checkpoint needs
  RenderError          this one image cannot be made; its neighbours can
    OutputNotFinite      the network answered with NaN or infinity
"""

from __future__ import annotations


class ModelError(Exception):
    """Base class of the errors of `rosacea_model`, those of data, training and metrics included, except ValueError for
    arguments."""


class ModelRejected(ModelError):
    """A model file was rejected: damaged, unverifiable, or of an unknown format."""


class CheckpointRejected(ModelRejected):
    """A foreign checkpoint was rejected. `offender` names the global, opcode or rule it violates."""

    def __init__(self, message: str, offender: str | None = None) -> None:
        super().__init__(message)
        self.offender = offender


class RenderError(ModelError):
    """One image could not be rendered."""


class OutputNotFinite(RenderError):
    """The network's output for one latent contains NaN or infinity."""
