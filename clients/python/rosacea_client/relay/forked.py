"""Whether this process was forked, and what it must then leave alone."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path
from typing import Any

_FORKED_WITHOUT_EXEC = 0x40     # PF_FORKNOEXEC of the Linux kernel, among the flags of /proc/PID/stat


class _Past:
    """What has happened to this process and its ancestors."""

    forked = False              # since this module was imported
    opened_channels = False     # here, or in an ancestor


def is_forked() -> bool:
    """Whether this process is a fork that began no other program, as DataLoader workers are by default."""
    return _Past.forked or _kernel_says_forked()


def note_channel() -> None:
    """Remember that gRPC is in use here."""
    _Past.opened_channels = True


def inherited_grpc() -> bool:
    """Whether an ancestor is known to have used gRPC before it forked this process."""
    return _Past.forked and _Past.opened_channels


def keep_for_ever(thing: Any) -> None:
    """Never free an object of the parent's gRPC here, not even when the interpreter ends: freeing it enters gRPC."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _kernel_says_forked() -> bool:
    """What Linux says, which knows also of forks before this module was imported; False elsewhere."""
    try:
        stat = Path("/proc/self/stat").read_text()
    except OSError:
        return False
    flags = int(stat.rpartition(")")[2].split()[6])
    return bool(flags & _FORKED_WITHOUT_EXEC)


def _after_fork() -> None:
    _Past.forked = True
    if _Past.opened_channels:
        gc.freeze()     # garbage of the parent that nobody has collected yet may hold gRPC's objects too


os.register_at_fork(after_in_child=_after_fork)
