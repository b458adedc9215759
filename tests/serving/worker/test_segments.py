"""Memory that is shared with exactly one job, and never left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rosacea_serving.worker.segments import MAX_TOMBSTONES, Segment, SegmentPool, SegmentWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

WRITE_FROM_OUTSIDE = """
import sys
from rosacea_serving.worker.segments import SegmentWriter
print(SegmentWriter().write(sys.argv[1], int(sys.argv[2]), 100, sys.argv[3].encode()))
"""


@pytest.fixture
def pool() -> Iterator[SegmentPool]:
    pool = SegmentPool(slots=4, slot_bytes=100)
    yield pool
    pool.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_another_process_writes_what_the_gateway_reads(pool: SegmentPool) -> None:
    segment = pool.acquire()

    command = [sys.executable, "-c", WRITE_FROM_OUTSIDE, segment.path, "3", "hello"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout == "True\n"
    assert segment.read(3, 5) == b"hello"
    assert segment.read(2, 5) == bytes(5)
    pool.release(segment)


def test_a_segment_has_no_name_in_any_file_system(pool: SegmentPool) -> None:
    segment = pool.acquire()

    assert str(Path(segment.path).readlink()) == "/memfd:rosacea-slots (deleted)"
    assert os.fstat(segment.fd).st_nlink == 0
    pool.release(segment)


def test_nobody_can_shrink_a_segment_under_its_reader(pool: SegmentPool) -> None:
    segment = pool.acquire()

    with pytest.raises(PermissionError):
        os.ftruncate(segment.fd, 0)
    pool.release(segment)


def test_data_larger_than_a_slot_is_not_written(pool: SegmentPool) -> None:
    segment = pool.acquire()

    assert not SegmentWriter().write(segment.path, 0, 100, bytes(101))
    assert SegmentWriter().write(segment.path, 0, 100, b"x" * 100)
    assert segment.read(0, 100) == b"x" * 100
    assert segment.read(1, 100) == bytes(100)
    pool.release(segment)


@pytest.mark.parametrize(("index", "slot_bytes"), [(4, 100), (-1, 100), (0, 0), (0, 401), (2**40, 2**40)])
def test_a_slot_beyond_the_segment_is_refused(pool: SegmentPool, index: int, slot_bytes: int) -> None:
    segment = pool.acquire()

    with pytest.raises(ValueError, match="must lie within"):
        SegmentWriter().write(segment.path, index, slot_bytes, b"x")
    pool.release(segment)


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "/proc/self/fd/0", "/proc/1/mem", "/proc/1/fd/../mem", "/proc/1/fd/3\n", "proc/1/fd/3", ""],
)
def test_a_path_that_no_segment_has_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path must match"):
        SegmentWriter().write(path, 0, 1, b"x")


def test_an_open_file_that_is_no_segment_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    with victim.open("r+b") as file, pytest.raises(ValueError, match="must lead to a segment"):
        SegmentWriter().write(f"/proc/{os.getpid()}/fd/{file.fileno()}", 0, 1, b"x")

    assert victim.read_bytes() == b"untouched"


def test_a_released_segment_is_used_again(pool: SegmentPool) -> None:
    first = pool.acquire()
    pool.release(first)

    assert pool.acquire() is first
    pool.release(first)


def test_a_late_writer_finds_a_discarded_segment_dead(pool: SegmentPool) -> None:
    writer = SegmentWriter()
    lost = pool.acquire()
    path = lost.path
    writer.write(path, 0, 100, b"in time")
    pool.discard(lost)
    others = [pool.acquire() for _ in range(3)]

    with pytest.raises(ValueError, match="must lead to a segment"):
        writer.write(path, 0, 100, b"too late")
    with pytest.raises(ValueError, match="must lead to a segment"):
        SegmentWriter().write(path, 0, 100, b"too late")
    assert all(other.path != path and other.read(0, 8) == bytes(8) for other in others)
    for other in others:
        pool.release(other)


def test_a_path_that_came_to_mean_another_segment_reaches_that_one() -> None:
    writer = SegmentWriter()
    first = Segment(1, 100)
    path = first.path
    writer.write(path, 0, 100, b"first")
    first.close()
    second = Segment(1, 100)
    assert second.path == path

    writer.write(path, 0, 100, b"second")

    assert second.read(0, 6) == b"second"
    second.close()


def test_no_file_is_left_open() -> None:
    before = open_files()
    pool = SegmentPool(slots=2, slot_bytes=10, keep=2)
    writer = SegmentWriter(keep=2)
    for _ in range(3 * MAX_TOMBSTONES):
        segments = [pool.acquire() for _ in range(3)]
        for segment in segments:
            writer.write(segment.path, 0, 10, b"x")
        pool.discard(segments[0])
        pool.release(segments[1])
        pool.release(segments[2])
    assert open_files() < before + MAX_TOMBSTONES + 10
    lent = pool.acquire()

    pool.close()
    pool.release(lent)
    writer.close()

    assert open_files() == before


@pytest.mark.parametrize(("index", "length"), [(4, 1), (-1, 1), (0, 101), (0, -1)])
def test_reading_beyond_a_slot_is_refused(pool: SegmentPool, index: int, length: int) -> None:
    segment = pool.acquire()

    with pytest.raises(ValueError, match="a slot must be below 4"):
        segment.read(index, length)
    pool.release(segment)
