"""Draws samples with a model so that the bytes of one do not depend on the rest of the batch."""

from .engine import Engine

__all__ = ["Engine"]
