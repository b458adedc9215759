"""A running `rosacea serve` that tells what it holds: tasks, descriptors, threads, processes, files, memory."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.conftest import ROOT
from tests.faults.leaks import listing
from tests.integration.service import RunningService, cmdline

if TYPE_CHECKING:
    from collections.abc import Sequence

INSIDE = Path(__file__).with_name("inside")
SHARED_MEMORY = Path("/dev/shm")
TELL_SECONDS = 60.0
MIB = 2**20


class Watched(RunningService):
    """The real service, with a look into it. `leak_bytes` plants a leak of so many bytes a call."""

    def __init__(self, models: Sequence[Path], *flags: str, leak_bytes: int = 0) -> None:
        self._told = Path(tempfile.mkdtemp(prefix="told")) / "holdings.json"
        environment = {"PYTHONPATH": f"{INSIDE}:{ROOT}", "SOAK_TELL": str(self._told)}
        if leak_bytes:
            environment["SOAK_LEAK_BYTES"] = str(leak_bytes)
        super().__init__(models, *flags, environment=environment)

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._told.parent, ignore_errors=True)

    def holdings(self) -> Counter[str]:
        """Everything that can be forgotten: inside of the gateway, and around it."""
        return self._inside() + self.processes() + listing(self.temporary) + listing(SHARED_MEMORY)

    def processes(self) -> Counter[str]:
        """The processes below the gateway, by what they are."""
        return Counter(f"process: {role(each)}" for each in self.family())

    def mebibytes(self) -> dict[str, list[float]]:
        """Resident memory by role: the gateway's, and of each process below it, oldest first."""
        found: dict[str, list[float]] = {"gateway": [rss(psutil.Process(self.process.pid))]}
        for each in self.family():
            with suppress(psutil.Error):
                if each.status() != psutil.STATUS_ZOMBIE:
                    found.setdefault(role(each), []).append(rss(each))
        return found

    def _inside(self) -> Counter[str]:
        self._told.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        until = time.monotonic() + TELL_SECONDS
        while not self._told.exists():
            assert time.monotonic() < until, f"the gateway must tell what it holds within {TELL_SECONDS:g} s"
            time.sleep(0.01)
        return Counter(json.loads(self._told.read_text()))


def role(process: psutil.Process) -> str:
    """What a process below the gateway is for."""
    words = cmdline(process)
    if not words:
        return "gone"
    if Path(words[0]).name == "java":
        return "java"
    scripts = {Path(word).name for word in words}
    return "worker" if "model_service_worker.py" in scripts else "guard" if "guard.py" in scripts else words[0]


def rss(process: psutil.Process) -> float:
    """Resident memory in MiB."""
    return float(process.memory_info().rss) / MIB
