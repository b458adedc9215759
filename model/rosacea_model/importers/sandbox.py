"""Sandbox for a process that reads an untrusted file. Namespaces and limits need Linux.

The readers run nothing from a file; these are the walls behind them, should one of them be wrong.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from pathlib import Path
from typing import NoReturn

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
PR_SET_NO_NEW_PRIVS = 38
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

# Audit events that reading a checkpoint never raises: programs, sockets, libraries, Python's own unpickler.
FORBIDDEN_PREFIXES = (
    "socket.",
    "urllib.",
    "ftplib.",
    "http.",
    "smtplib.",
    "webbrowser.",
    "subprocess.",
    "pty.",
    "os.exec",
    "os.fork",
    "os.spawn",
    "os.posix_spawn",
    "os.system",
    "os.startfile",
    "os.kill",
    "os.putenv",
    "os.unsetenv",
    "signal.",
    "ctypes.",
    "pickle.find_class",
    "sys.settrace",
    "sys.setprofile",
)
# Events that name files to be changed, and how many of their arguments are paths.
FILE_CHANGES = {
    "os.rename": 2,
    "os.link": 2,
    "os.symlink": 2,
    "shutil.move": 2,
    "os.remove": 1,
    "os.rmdir": 1,
    "os.mkdir": 1,
    "os.truncate": 1,
    "os.chmod": 1,
    "os.chown": 1,
    "os.utime": 1,
    "os.setxattr": 1,
    "os.removexattr": 1,
    "shutil.rmtree": 1,
}


class ForbiddenError(Exception):
    """Sandboxed code attempted a forbidden operation; `args[0]` is the audit event."""


def enter_namespaces() -> bool:
    """Rule out gaining privileges and, where permitted, cut off the network; returns whether it is cut off. Call before
    any thread is started."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return any(libc.unshare(flags) == 0 for flags in (CLONE_NEWUSER | CLONE_NEWNET, CLONE_NEWNET))


def set_limits(*, memory: int, cpu_seconds: int, file_bytes: int) -> None:
    """Limit address space, CPU time and file sizes, and disable core dumps."""
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in limits.items():
        _, hard = resource.getrlimit(kind)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))


def address_space() -> int:
    """Bytes of address space in use; 0 if unknown."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def forbid_all_but(folder: Path) -> None:
    """For the rest of the process, raise ForbiddenError for sockets, programs, signals, ctypes, Python's unpickler, and
    writing outside `folder`."""
    root = os.path.realpath(folder)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event.startswith(FORBIDDEN_PREFIXES):
            _refuse(event)
        if event == "open" and _writes(arguments):
            _check_inside(root, event, arguments[:1])
        elif event in FILE_CHANGES:
            _check_inside(root, event, arguments[: FILE_CHANGES[event]])

    sys.addaudithook(hook)


def _writes(arguments: tuple[object, ...]) -> bool:
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & WRITING)


def _check_inside(root: str, event: str, paths: tuple[object, ...]) -> None:
    for path in paths:
        if isinstance(path, int):  # an open descriptor, which was checked when it was opened
            continue
        if not isinstance(path, str | bytes | os.PathLike):
            _refuse(event)
        where = os.path.realpath(os.fsdecode(path))
        if where != root and not where.startswith(root + os.sep):
            _refuse(event)


def _refuse(event: str) -> NoReturn:
    raise ForbiddenError(event)
