"""Detects forked processes, in which gRPC must not be used."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from pathlib import Path
from typing import Any

FORK_SUPPORT = "GRPC_ENABLE_FORK_SUPPORT"  # unset means on
OFF = ("0", "false", "no")
_FORKED_WITHOUT_EXEC = 0x40  # PF_FORKNOEXEC of the Linux kernel, among the flags of /proc/PID/stat


class _Past:
    """What is known of forks and gRPC use in this process and its ancestors."""

    forked = False  # since this module was imported
    entered_grpc = False  # by our doing, here or in an ancestor
    inherited_grpc = False  # by our doing, in an ancestor
    fork_support_off = False  # of gRPC, in this process


def is_forked() -> bool:
    """Whether this process was forked without starting another program, as DataLoader workers are."""
    return _Past.forked or _kernel_says_forked()


def may_enter_grpc() -> bool:
    """Whether this process can use gRPC and still fork safely afterwards."""
    return _Past.fork_support_off and not is_forked()


def switch_fork_support_off() -> None:
    """Disable gRPC's fork handlers; must run before gRPC is imported.

    By default gRPC begins its threads again in each forked child. They read from the connections that the child has
    inherited, and what they read is lost to the parent. Where gRPC was imported before, or the environment wants its
    fork support on, nothing changes; `may_enter_grpc` says so.
    """
    if "grpc" not in sys.modules:
        os.environ.setdefault(FORK_SUPPORT, "0")
    _Past.fork_support_off = os.environ.get(FORK_SUPPORT, "").lower() in OFF


def note_channel() -> None:
    """Record that this process uses gRPC, so that children forked later keep clear of what they inherit
    (`inherited_grpc`)."""
    _Past.entered_grpc = True


def inherited_grpc() -> bool:
    """Whether an ancestor used gRPC before it forked this process."""
    return _Past.inherited_grpc


def keep_for_ever(thing: Any) -> None:
    """Keep a parent's gRPC object alive for ever, even at exit, because freeing it would enter gRPC."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _kernel_says_forked() -> bool:
    """Whether Linux reports this process as forked, which covers forks before this module was imported; False
    elsewhere."""
    try:
        stat = Path("/proc/self/stat").read_text()
    except OSError:
        return False
    flags = int(stat.rpartition(")")[2].split()[6])
    return bool(flags & _FORKED_WITHOUT_EXEC)


def _after_fork() -> None:
    _Past.forked = True
    _Past.inherited_grpc = _Past.entered_grpc
    if _Past.inherited_grpc:
        gc.freeze()  # garbage of the parent that nobody has collected yet may hold gRPC's objects too


os.register_at_fork(after_in_child=_after_fork)
