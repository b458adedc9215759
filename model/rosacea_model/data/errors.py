"""Errors of data sets, worded for their owner.

ModelError
  DataError
    DataRejected     the folder or archive as a whole cannot be used or trusted
    Unusable         this one picture cannot be used; its neighbours can
"""

from __future__ import annotations

from enum import StrEnum

from rosacea_model.errors import ModelError


class UnusableReason(StrEnum):
    """Why a picture is unusable: a closed set, so that reports can be counted."""

    empty = "empty"  # no bytes at all
    too_big_file = "too big a file"  # more bytes than any photograph needs
    unreadable = "unreadable"  # the file system or the archive would not give it
    wrong_format = "wrong format"  # none that is read here, whatever its name says
    corrupt = "corrupt"  # the bytes break the rules of their format
    truncated = "truncated"  # the bytes end too early
    bomb = "decompression bomb"  # more pixels than allowed, or than its bytes could describe
    animated = "animated"  # several frames or pages
    wrong_mode = "wrong mode"  # numbers that are no levels, or high dynamic range
    too_small = "too small"  # fewer pixels on the shorter side than asked for
    no_label = "no label"  # the others have one
    crashed = "crashed"  # the process that decoded it died
    too_slow = "too slow"  # decoding took longer than allowed


def printable(text: str) -> str:
    """Escape control characters and broken code points, so that text cannot steer a terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class DataError(ModelError):
    """Base class of the errors of `rosacea_model.data`, except ValueError for arguments."""


class DataRejected(DataError):
    """A data source was rejected: hostile, damaged, or not what the command needs."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))  # it may name files of the source


class Unusable(DataError):
    """One picture is unusable: a reason from `UnusableReason`, and a detail such as its size. It may be raised, or
    returned as a result."""

    def __init__(self, reason: UnusableReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.sha256 = ""  # of the bytes, where there were any to read

    def __str__(self) -> str:
        return printable(f"{self.reason}: {self.detail}")
