"""DataLoaders whose workers are forked, spawned or begun by a forkserver, beside busy loops: none hangs, none fails.

Every run is a process of its own that reads three epochs. Before it forks, it has used no client, or it has made calls,
or it has a stream open that must go on unharmed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psutil

from tests.client.data.service import GatewayProcess
from tests.ports import free_port

from .report import Row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUNS = {"fork": 300, "spawn": 30, "forkserver": 30}
BUSY_LOOPS = 6
LANES = 3  # runs side by side
# A run hangs if it spends less than WORK_SECONDS of CPU time between two looks, several times in a row: how long it may
# take depends on what else the machine does.
LOOK_SECONDS, WORK_SECONDS, HUNG_LOOKS = 30.0, 0.5, 4

PROGRAM = """
import sys
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader
from rosacea_client import FaceClient
from rosacea_client.data import Labels, Look, Plan
from rosacea_client.data.torch import FaceDataset, FaceLoader, FaceStream

def main(address, kind, past, workers, start, persistent):
    client = FaceClient(address, timeout_seconds=3600)  # its stream is read last, and the machine is busy
    if past != "nothing":
        client.generate(range(3), class_index=1)
    if past == "a stream":
        stream = client.stream(range(500), class_index=0)
        next(stream)
    plan, look = Plan(seed=7, labels=Labels.balanced(3)), Look(format="raw")
    options = {"batch_size": 8, "num_workers": int(workers), "multiprocessing_context": start,
               "persistent_workers": persistent == "True"}
    if kind == "FaceDataset":
        loader = DataLoader(FaceDataset(address, count=64, plan=plan, look=look), **options)
    elif kind == "FaceLoader":
        loader = FaceLoader(FaceStream(address, count=64, plan=plan, look=look), **options)
    else:
        made = {"FaceStream": DataLoader, "StatefulDataLoader": StatefulDataLoader}[kind]
        loader = made(FaceStream(address, count=64, plan=plan, look=look, block=8), **options)
    for epoch in range(3):
        seen = sorted(index for batch in loader for index in batch["index"].tolist())
        assert seen == list(range(64)), seen
    if past == "a stream":
        assert [face.seed for face in stream] == list(range(1, 500))
    if past != "nothing":
        client.generate([5], class_index=1)

if __name__ == "__main__":
    main(*sys.argv[1:])
"""

KINDS = ("FaceStream", "FaceDataset", "FaceLoader", "StatefulDataLoader")
PASTS = ("nothing", "calls", "a stream")
WAYS = list(itertools.product(KINDS, PASTS, ("2", "4"), ("False", "True")))


def forks(folder: Path) -> list[Row]:
    """A row for each way to start workers."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    with busy_loops(BUSY_LOOPS), GatewayProcess(free_port(), seconds=0.002) as service:
        return [row(program, service.address, start, runs) for start, runs in RUNS.items()]


def row(program: Path, address: str, start: str, runs: int) -> Row:
    """`runs` runs, LANES at a time, with each kind of reader, past and number of workers in turn."""
    broken, began = [], time.monotonic()
    ways = list(itertools.islice(itertools.cycle(WAYS), runs))
    with ThreadPoolExecutor(LANES) as lanes:
        troubles = lanes.map(lambda way: one(program, address, start, way), ways)
        for number, (way, trouble) in enumerate(zip(ways, troubles, strict=True), start=1):
            if trouble:
                broken.append(f"{', '.join(way)}: {trouble}")
            if number % 10 == 0:
                left = (time.monotonic() - began) / number * (runs - number)
                print(f"{start}: {number} of {runs} runs, {len(broken)} broken, {left:.0f} s to go", flush=True)
    return Row(f"C5 {start}", "no run of 3 epochs hangs or fails", f"{len(broken)} of {runs}", broken)


def one(program: Path, address: str, start: str, way: tuple[str, ...]) -> str:
    """What went wrong in a run; nothing where all went well."""
    kind, past, workers, persistent = way
    arguments = (address, kind, past, workers, start, persistent)
    run = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(program), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    spent, looks = 0.0, 0
    while True:
        try:
            _, stderr = run.communicate(timeout=LOOK_SECONDS)
            return "" if run.returncode == 0 else f"exit code {run.returncode}: {stderr[-2000:]}"
        except subprocess.TimeoutExpired:
            before, spent = spent, cpu_seconds(run.pid)
            looks = 0 if spent - before > WORK_SECONDS else looks + 1
        if looks == HUNG_LOOKS:
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()
            return "it hung"


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its descendants, those included that have ended."""
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(pid)
        return sum(sum(each.cpu_times()[:4]) for each in (parent, *parent.children(recursive=True)))
    return 0.0


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Processes that take all the time they get."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
