"""Errors of measurements, worded for the owner of the model or the data.

ModelError
  MetricError          these images, features or settings allow no such measurement
    WeightsMissing     an encoder's weight file is not there, or is another one than was pinned
"""

from __future__ import annotations

from ..errors import ModelError


class MetricError(ModelError):
    """Images, features or settings do not allow a measurement; the message says what would."""


class WeightsMissing(MetricError):
    """The weight file of an encoder is missing, or its SHA-256 differs from the pinned one."""
