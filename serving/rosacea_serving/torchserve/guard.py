"""Runs a program and kills all its descendants when it or the process that asked for it ends.

    python guard.py DIRECTORY PROGRAM ARGUMENT ...

Its standard input is a pipe whose other end the parent holds. When that end closes, because the parent says so or
because it is gone, however it went, or when the program ends, everything that the program started is killed and
DIRECTORY is removed. SIGTERM is passed on to the program. This is a process of its own because only the standard
library and no threads make it safe to run code between fork and exec, and because orphans come to it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

LOCK_NAME = ".rosacea-held"  # as in scratch.py, which this process cannot import
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main(directory: str, command: list[str]) -> int:
    """Run the command; returns its exit code, or 128 plus the number of the signal that ended it."""
    hold(directory)
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # what the program leaves behind becomes a child of this process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # until there is somebody to pass it on to
    program = start(command)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(program, signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    wait_for_end(program)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    kill_quietly(program)
    status = os.waitpid(program, 0)[1]
    kill_children()
    shutil.rmtree(directory, ignore_errors=True)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def hold(directory: str) -> None:
    """Hold a shared lock on the directory's lock file, if there is one, so that the directory is not removed before
    this process ends."""
    with suppress(OSError):
        fcntl.flock(os.open(Path(directory) / LOCK_NAME, os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB)


def prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


def start(command: list[str]) -> int:
    """Start the program, with an empty standard input, and have the kernel kill it when this process ends; returns its
    process id."""
    guard = os.getpid()
    program = os.fork()
    if program:
        return program
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:
            os._exit(127)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execv(command[0], command)  # noqa: S606 -- no shell, by intent
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
    finally:
        os._exit(127)


def wait_for_end(program: int) -> None:
    """Return when the program has ended or the parent has closed its end of the pipe."""
    ended = os.pidfd_open(program)
    readable: list[int] = []
    while not readable:
        readable = select.select([ended, 0], [], [])[0]
    os.close(ended)


def kill_quietly(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def kill_children() -> None:
    """Kill all children, including orphaned grandchildren, until none is left."""
    while True:
        for child in children():
            kill_quietly(child)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def children() -> list[int]:
    me = os.getpid()
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal() and parent(entry) == me]


def parent(process: Path) -> int:
    """Parent process id, parsed from /proc/PID/stat; 0 if the process has ended."""
    try:
        return int((process / "stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
