"""Long streams through the SDK: their reader's memory is flat, and the same samples come however they are read."""

from __future__ import annotations

import itertools
import signal
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from tests.client.data.conftest import Job
from tests.client.data.service import GatewayProcess
from tests.conftest import ROOT
from tests.ports import free_port

from .forks import BUSY_LOOPS, busy_loops
from .report import Row

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FACES, TENTH = 100_000, 10_000
MOST_GROWTH = 0.05
SAMPLES, CUT = 10_000, 3_777
TIMES = 10

# Prints the resident memory after every 500 faces.
READER = """
import sys
import psutil
from rosacea_client import FaceClient
process = psutil.Process()
with FaceClient(sys.argv[1], timeout_seconds=7200, in_helper=sys.argv[3] == "True") as client:
    for number, face in enumerate(client.stream(range(int(sys.argv[2])), format="raw", class_index=0), start=1):
        assert face.seed == number - 1 and len(face.image) == 768
        if number % 500 == 0:
            print(process.memory_info().rss, flush=True)
"""


def streams(folder: Path) -> list[Row]:
    """The memory of readers of 100,000 faces."""
    with GatewayProcess(free_port(), seconds=0.002) as service:
        return [flat(service.address, in_helper) for in_helper in (False, True)]


def flat(address: str, in_helper: bool) -> Row:
    """Memory in the last tenth against that in the first."""
    done = subprocess.run(
        [sys.executable, "-c", READER, address, str(FACES), str(in_helper)], cwd=ROOT, capture_output=True, text=True
    )
    held = [int(line) for line in done.stdout.split()]
    complete = done.returncode == 0 and len(held) == FACES // 500
    if not complete:
        return Row("D7 memory", "all faces come", f"{len(held) * 500} of {FACES}", [done.stderr[-500:]])
    first, last = (statistics.median(part) for part in (held[: TENTH // 500], held[-TENTH // 500 :]))
    growth = last / first - 1
    return Row(
        f"D7 memory{', in a helper' if in_helper else ''}",
        f"{FACES} faces grow their reader by at most {MOST_GROWTH:.0%}",
        f"{first / 2**20:.1f} -> {last / 2**20:.1f} MiB, {growth:+.1%}", ["it grew"] if growth > MOST_GROWTH else [],
    )  # fmt: skip


def maps(folder: Path) -> list[Row]:
    """The same 10,000 samples, ten times each way, beside busy loops."""
    broken: list[str] = []
    with busy_loops(BUSY_LOOPS):
        with GatewayProcess(free_port(), seconds=0.0) as service:
            whole = read(folder, address=service.address, count=SAMPLES)
            for number, (name, way) in itertools.product(range(TIMES), WAYS.items()):
                began = time.monotonic()
                if sorted(way(folder, service.address)) != sorted(whole):
                    broken.append(f"{name}, time {number + 1}")
                print(f"maps: {name}, {number + 1} of {TIMES}, {time.monotonic() - began:.0f} s", flush=True)
        for number in range(TIMES):
            how = (signal.SIGTERM, signal.SIGKILL)[number % 2]
            if restarted(folder, how) != whole:
                broken.append(f"a service that was restarted, time {number + 1}")
            print(f"maps: a restarted service, {number + 1} of {TIMES}", flush=True)
    return [Row("D1 maps", f"{SAMPLES} samples are the same faces, 10 times each way",
                f"{len(broken)} of {TIMES * (len(WAYS) + 1)} differ", broken)]  # fmt: skip


Rows = list[tuple[int, int, str, int]]


def read(folder: Path, **told: Any) -> Rows:
    """What a reader in a process of its own got."""
    return Job(folder, told).wait()


def two_ranks(folder: Path, address: str) -> Rows:
    """The samples of both ranks, read side by side."""
    both = {"address": address, "count": SAMPLES, "workers": 2, "ranks": 2}
    jobs = [Job(folder, {**both, "rank": rank}) for rank in range(2)]
    return [row for job in jobs for row in job.wait()]


def cut_and_resumed(folder: Path, address: str) -> Rows:
    """The samples of a run that stops after some and goes on with other workers."""
    first = read(folder, address=address, count=SAMPLES, workers=1, batch=3, stop=CUT)
    return first + read(folder, address=address, count=SAMPLES, workers=3, batch=7, resume=True)


WAYS: dict[str, Callable[[Path, str], Rows]] = {
    "one worker": lambda folder, address: read(folder, address=address, count=SAMPLES, workers=1),
    "four workers": lambda folder, address: read(folder, address=address, count=SAMPLES, workers=4),
    "two ranks with two workers": two_ranks,
    "cut and resumed": cut_and_resumed,
}


def restarted(folder: Path, how: signal.Signals) -> Rows:
    """The samples of a reader whose service goes away in the middle and comes back."""
    port = free_port()
    with GatewayProcess(port, seconds=0.005) as service:
        job = Job(folder, {"address": service.address, "count": SAMPLES, "workers": 2})
        while len(job.rows()) < CUT and job.process.is_alive():
            time.sleep(0.05)
        service.end(how)
    with GatewayProcess(port, seconds=0.0):
        return job.wait()
