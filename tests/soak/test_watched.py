"""The look into a process and around it finds what was planted there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import psutil

from tests.conftest import ROOT
from tests.faults.leaks import listing
from tests.faults.processes import carriers

from .watched import INSIDE, role

if TYPE_CHECKING:
    from pathlib import Path

# A service that forgets two tasks, a socket, a slot of shared memory and a thread when it is told to.
FORGETFUL = """
import asyncio, socket, sys, threading
from rosacea_serving.worker.segments import Segment

async def forgotten():
    await asyncio.sleep(600)

async def main():
    told = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    print("ready", flush=True)
    await told
    kept = [asyncio.create_task(forgotten()) for _ in range(2)] + [socket.socket(), Segment(1, 4096)]
    threading.Thread(target=threading.Event().wait, name="left", daemon=True).start()
    print("forgotten", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""

SLOT = "descriptor: /memfd:rosacea-slots (deleted)"  # one for the memory, one for its map


def told(process: subprocess.Popen[str], path: Path) -> Counter[str]:
    path.unlink(missing_ok=True)
    process.send_signal(signal.SIGUSR1)
    until = time.monotonic() + 240
    while not path.exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    return Counter(json.loads(path.read_text()))


def test_a_process_tells_of_the_tasks_descriptors_slots_and_threads_that_it_forgets(tmp_path: Path) -> None:
    path = tmp_path / "told.json"
    environment = {**os.environ, "PYTHONPATH": f"{INSIDE}:{ROOT}", "SOAK_TELL": str(path)}
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", FORGETFUL]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdout.readline()
            before = told(process, path)
            process.stdin.write("\n")
            process.stdin.flush()
            process.stdout.readline()
            after = told(process, path)
        finally:
            process.kill()

    forgotten = {"task: forgotten": 2, "descriptor: socket:[]": 1, SLOT: 2, "thread: left": 1}
    assert after - before == Counter(forgotten)


def test_a_file_that_is_left_is_found_whatever_its_neighbours_are_called(tmp_path: Path) -> None:
    for run in ("one", "two"):
        lots = {"one": ("rosacea-abcd1234", "tmp_x9k2m4q", "00"), "two": ("rosacea-zyxw9876", "tmpq1w2e3r4", "17")}[run]
        (tmp_path / run / "svc" / lots[0] / "t" / lots[1]).mkdir(parents=True)
        (tmp_path / run / "svc" / lots[0] / f".ts.sock.{lots[2]}").touch()
        (tmp_path / run / "svc" / lots[0] / (lots[2] * 16)).touch()
    before = listing(tmp_path / "one" / "svc")

    assert listing(tmp_path / "two" / "svc") == before
    (tmp_path / "two" / "svc" / "left").touch()
    assert listing(tmp_path / "two" / "svc") - before == Counter({"file: svc/left": 1})


def test_an_orphan_is_known_by_what_it_inherited(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)}
    # The shell ends at once, and its child belongs to nobody.
    subprocess.run(["sh", "-c", "sleep 600 >/dev/null 2>&1 &"], env=environment, check=True)
    found = carriers("TMPDIR", str(tmp_path))
    for each in found:
        each.kill()
    psutil.wait_procs(found, timeout=60)

    assert [each.name() for each in found if each.is_running()] == []
    assert len(found) == 1
    assert carriers("TMPDIR", str(tmp_path)) == []


def test_processes_are_told_apart_by_what_they_run() -> None:
    for script, what in (("model_service_worker.py", "worker"), ("guard.py", "guard")):
        command = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()", f"/x/{script}"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.readline()  # a process that is only just being made has no arguments yet
            assert role(psutil.Process(process.pid)) == what
