"""Which workers are there, and which of them hang, asked of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
import pytest

from rosacea_serving.torchserve.census import Census, kill_hung

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY = "print('on', flush=True)\nwhile True: pass"
ASLEEP = "import time; print('on', flush=True); time.sleep(1000)"


@contextmanager
def process(code: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE) as started:
        try:
            assert started.stdout is not None and started.stdout.readline()
            yield started
        finally:
            started.kill()


@pytest.mark.parametrize("code", [BUSY, ASLEEP])
def test_a_stopped_worker_is_killed_and_another_is_not(code: str) -> None:
    with process(code) as stopped, process(code) as other:
        os.kill(stopped.pid, signal.SIGSTOP)
        while psutil.Process(stopped.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)

        assert kill_hung([stopped.pid, other.pid]) == [stopped.pid]
        assert stopped.wait(120) == -signal.SIGKILL
        assert other.poll() is None


@pytest.mark.parametrize("code", [BUSY, ASLEEP])
def test_the_only_worker_is_killed_whatever_it_does(code: str) -> None:
    with process(code) as only:
        assert kill_hung([only.pid]) == [only.pid]
        assert only.wait(120) == -signal.SIGKILL


def test_of_several_that_run_none_is_guessed_at() -> None:
    with process(BUSY) as first, process(ASLEEP) as second:
        assert kill_hung([first.pid, second.pid]) == []
        assert (first.poll(), second.poll()) == (None, None)


def test_a_worker_that_is_gone_already_is_no_trouble() -> None:
    with process(ASLEEP) as asleep:
        pass

    assert kill_hung([asleep.pid]) == [asleep.pid]


def test_the_lost_are_counted_until_one_answers() -> None:
    census = Census()
    for pids in ([1, 2], [2], [2, 3], [3]):
        census.count(pids)

    assert census.lost == 2
    census.proven()
    assert census.lost == 0


def test_workers_that_stay_are_not_lost() -> None:
    census = Census()
    for _ in range(10):
        census.count([1, 2])

    assert census.lost == 0
