"""Starts the helper process when a channel needs it, and ends it with the last channel."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import socket
import subprocess
import sys
import threading
import weakref


class Helper:
    """The helper process, restarted if it has ended."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._links: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._channels: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def register(self) -> int:
        """Register a channel and return its number; the helper runs while there are channels."""
        number = next(self._numbers)
        with self._lock:
            self._channels.add(number)
        return number

    def release(self, number: int) -> None:
        """Unregister a closed channel; the helper ends with the last one."""
        with self._lock:
            self._channels.discard(number)
            if not self._channels:
                self._end()

    def link(self) -> socket.socket:
        """Open a socket to the helper for one call; OSError if no helper can be started."""
        ours, theirs = socket.socketpair()
        try:
            with theirs, self._lock:
                socket.send_fds(self._running(), [b"c"], [theirs.fileno()])
        except BaseException:
            ours.close()
            raise
        self._links.add(ours)
        return ours

    def end(self) -> None:
        """Stop the helper; the next call starts another."""
        with self._lock:
            self._end()

    def _running(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._control is None:
            self._start()
        assert self._control is not None
        return self._control

    def _start(self) -> None:
        control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "rosacea_client.relay.process", str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )  # fmt: skip
        self._control = control
        atexit.register(self.end)

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.wait()
        self._control = self._process = None
        atexit.unregister(self.end)

    def leave_to_parent(self) -> None:
        """After a fork: leave the helper to the parent."""
        with contextlib.suppress(OSError):
            for inherited in [self._control, *self._links]:
                if inherited is not None:
                    inherited.close()
        self._forget()


HELPER = Helper()
os.register_at_fork(after_in_child=HELPER.leave_to_parent)
