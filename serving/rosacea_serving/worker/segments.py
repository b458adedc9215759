"""Shared memory for pixels, owned by the gateway, written by one worker, and invisible to others.

A segment is an anonymous file of fixed size, cut into slots. It has no name in any file system: the worker opens it
as `/proc/GATEWAY/fd/NUMBER`, so when the gateway is gone, however it ended, so is the memory. It is sealed against
growing and shrinking, so nobody can pull it away under a reader.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import stat
import threading
from collections import OrderedDict, deque

SEGMENT_NAME = "rosacea-slots"
SEALS = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
PATH_PATTERN = re.compile(r"/proc/[1-9][0-9]{0,9}/fd/[0-9]{1,9}")
MAX_TOMBSTONES = 64


class Segment:
    """The gateway's side of a shared-memory segment of `slots` slots of `slot_bytes` each."""

    def __init__(self, slots: int, slot_bytes: int) -> None:
        if slots < 1 or slot_bytes < 1:
            raise ValueError(f"slots and slot_bytes must be at least 1, got {slots} and {slot_bytes}")
        self.slots = slots
        self.slot_bytes = slot_bytes
        self.fd = os.memfd_create(SEGMENT_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, slots * slot_bytes)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, SEALS)
            self._memory = mmap.mmap(self.fd, slots * slot_bytes, prot=mmap.PROT_READ)
        except BaseException:
            os.close(self.fd)
            raise

    @property
    def path(self) -> str:
        """Path under which a process of the same user can open the segment."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def read(self, index: int, length: int) -> bytes:
        """A copy of the first `length` bytes of a slot."""
        if not 0 <= index < self.slots or not 0 <= length <= self.slot_bytes:
            raise ValueError(
                f"a slot must be below {self.slots} and hold at most {self.slot_bytes} bytes, "
                f"got {length} bytes in slot {index}"
            )
        start = index * self.slot_bytes
        return self._memory[start : start + length]

    def close(self) -> None:
        """Release the memory; the path becomes invalid."""
        self._memory.close()
        os.close(self.fd)

    def bury(self) -> None:
        """Release the memory but keep the descriptor number, so that the path cannot come to mean another segment."""
        self._memory.close()
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(nothing, self.fd, inheritable=False)
        os.close(nothing)


class SegmentPool:
    """A pool of equal segments, each lent to one job at a time.

    A segment goes back with `release` when its job ended well. After any other end a worker may still write into
    it, so `discard` takes it out of use for good.
    """

    def __init__(self, *, slots: int, slot_bytes: int, keep: int = 4) -> None:
        self.slots = slots
        self.slot_bytes = slot_bytes
        self._keep = keep
        self._idle: list[Segment] = []
        self._tombstones: deque[Segment] = deque()
        self._closed = False

    def acquire(self) -> Segment:
        """Return an idle segment or a new one; the caller limits how many are in use."""
        if self._closed:
            raise RuntimeError("the segment pool is closed")
        return self._idle.pop() if self._idle else Segment(self.slots, self.slot_bytes)

    def release(self, segment: Segment) -> None:
        """Return a segment to the pool after its job was answered."""
        if self._closed or len(self._idle) >= self._keep:
            segment.close()
        else:
            self._idle.append(segment)

    def discard(self, segment: Segment) -> None:
        """Discard a segment whose job failed, timed out or was given up.

        A worker that comes to this job late finds the path dead: the number behind it stays taken until many more
        segments have been discarded.
        """
        if self._closed:
            segment.close()
            return
        segment.bury()
        self._tombstones.append(segment)
        if len(self._tombstones) > MAX_TOMBSTONES:
            os.close(self._tombstones.popleft().fd)

    def close(self) -> None:
        """Release all memory; segments still lent are released when they are returned."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        while self._tombstones:
            os.close(self._tombstones.popleft().fd)


class SegmentWriter:
    """The worker's side: writes into segments by path. Thread-safe."""

    def __init__(self, keep: int = 8) -> None:
        self._keep = keep
        self._maps: OrderedDict[tuple[str, int, int, int], mmap.mmap] = OrderedDict()
        self._lock = threading.Lock()

    def write(self, path: str, index: int, slot_bytes: int, data: bytes | bytearray | memoryview) -> bool:
        """Write `data` to slot `index`; returns False if it does not fit.

        Raises ValueError for a path or slot that no segment has, OSError when the segment is gone.
        """
        view = memoryview(data).cast("B")
        memory = self._map(path)
        if index < 0 or slot_bytes < 1 or (index + 1) * slot_bytes > len(memory):
            raise ValueError(f"slot {index} of {slot_bytes} bytes must lie within {len(memory)} bytes")
        if len(view) > slot_bytes:
            return False
        start = index * slot_bytes
        memory[start : start + len(view)] = view
        return True

    def _map(self, path: str) -> mmap.mmap:
        # Looked at anew for every write: the same number may by now stand for something else.
        fd = open_segment(path)
        try:
            status = os.fstat(fd)
            key = (path, status.st_dev, status.st_ino, status.st_size)
            with self._lock:
                memory = self._maps.get(key) or mmap.mmap(fd, status.st_size)
                self._maps[key] = memory
                self._maps.move_to_end(key)
                while len(self._maps) > self._keep:
                    # Not closed by hand: another thread may be writing. It goes with its last user.
                    self._maps.popitem(last=False)
            return memory
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close every open segment."""
        with self._lock:
            self._maps.clear()


def open_segment(path: str) -> int:
    """Open a segment by path and return its descriptor; ValueError if the path leads to anything else."""
    if not PATH_PATTERN.fullmatch(path):
        raise ValueError(f"a segment's path must match {PATH_PATTERN.pattern}, got {path[:80]!r}")
    # Not opened before it is known to be a plain file: opening a device or a pipe has effects.
    if not stat.S_ISREG(os.stat(path).st_mode) or not _is_segment(path):  # noqa: PTH116
        raise ValueError(f"{path} must lead to a segment")
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    if not _is_segment(f"/proc/self/fd/{fd}"):
        os.close(fd)
        raise ValueError(f"{path} must lead to a segment")
    return fd


def _is_segment(path: str) -> bool:
    return os.readlink(path).startswith(f"/memfd:{SEGMENT_NAME}")  # noqa: PTH115
