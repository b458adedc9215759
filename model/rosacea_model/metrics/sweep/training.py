"""Trains the runs of a sweep one after the other, each as `rosacea train` in a process of its own.

A run that was killed goes on from its newest checkpoint, bit for bit; one that has reached its end is left alone. When
the sweep itself is killed, the run that it had started ends with it.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...training.reporting.pace import duration
from ...training.reporting.records import read_stats
from .plan import arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from .plan import SweepPlan, SweepRun

RUNS_NAME = "runs"
LOGS_NAME = "logs"
ENVIRONMENT = "ROSACEA_TRAIN_"  # settings of a run are all on its command line
PR_SET_PDEATHSIG = 1
POLL_S, LINE_S = 0.5, 30.0
RELAYED = ("roughly:", "estimate after", "warning:", "error:")  # lines of a run that are shown at once


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """How far a run came."""

    kimg: float
    failure: str = ""  # last line of its log if it ended with an error


@dataclass(kw_only=True)
class SweepTrainer:
    """Trains the runs of a plan in `outdir` and says how far it is."""

    plan: SweepPlan
    outdir: Path
    common: Sequence[str]  # options that all runs share: data, device
    init_from: Sequence[str] = ()  # options of those that start from trained networks
    say: Callable[[str], None]
    program: Sequence[str] = (sys.executable, "-m", "rosacea_model.training")
    printed: float = field(default=0.0, init=False)

    def train_all(self) -> Iterator[dict[str, RunOutcome]]:
        """Train what is not finished and yield all outcomes after each run. One that fails does not stop the rest."""
        outcomes = {run.name: RunOutcome(kimg=kimg_of(self.folder(run))) for run in self.plan.runs}
        for number, run in enumerate(self.plan.runs, 1):
            folder = self.folder(run)
            if finished(folder, run):
                continue
            self.say(f"run {number} of {len(self.plan.runs)}: {run.cell}, seed {run.seed}, in {folder}")
            outcomes[run.name] = self.train(run)
            yield outcomes
        yield outcomes

    def train(self, run: SweepRun) -> RunOutcome:
        """Train one run to its end."""
        folder, failure = self.folder(run), ""
        self.log(run).parent.mkdir(parents=True, exist_ok=True)
        with self.log(run).open("ab") as log:
            start = log.tell()
            process = subprocess.Popen(
                [*self.program, *self.options(run)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
                preexec_fn=_end_with_parent,
            )
            try:
                self._watch(process, run, start)
            except BaseException:
                process.terminate()  # it saves a checkpoint
                process.wait()
                raise
        if process.returncode or not finished(folder, run):
            failure = _last_line(self.log(run)) or f"exit code {process.returncode}"
            self.say(f"{run.cell}, seed {run.seed} failed: {failure}")
        return RunOutcome(kimg=kimg_of(folder), failure=failure)

    def options(self, run: SweepRun) -> list[str]:
        """The command line of a run, after `rosacea train`."""
        networks = self.init_from if run.transfer else ()
        return [*self.common, *networks, "--outdir", str(self.folder(run)), "--resume", *arguments(run)]

    def command(self, run: SweepRun) -> str:
        """The command as a person would type it."""
        return shlex.join(["rosacea", "train", *self.options(run)])

    def folder(self, run: SweepRun) -> Path:
        return self.outdir / RUNS_NAME / run.name

    def log(self, run: SweepRun) -> Path:
        """What the run printed; beside its folder, which is the run's own."""
        return self.outdir / LOGS_NAME / f"{run.name}.log"

    def _watch(self, process: subprocess.Popen[bytes], run: SweepRun, start: int) -> None:
        """Show the first lines of a run, then how far all are."""
        with self.log(run).open("rb") as log:
            log.seek(start)
            while True:
                ended = process.poll() is not None
                for line in log.readlines():
                    text = line.decode(errors="replace").rstrip()
                    if text.startswith(RELAYED):
                        self.say(f"  {text}")
                if ended:
                    return
                self._progress(run)
                time.sleep(POLL_S)

    def _progress(self, run: SweepRun) -> None:
        now = time.monotonic()
        if now - self.printed < LINE_S:
            return
        self.printed = now
        records = read_stats(self.folder(run))
        if not records or "s_per_kimg" not in records[-1]:
            return
        done = sum(min(kimg_of(self.folder(each)), each.config.total_kimg) for each in self.plan.runs)
        left = max(self.plan.total_kimg - done, 0) * records[-1]["s_per_kimg"]
        self.say(
            f"  {run.cell}, seed {run.seed}: {records[-1]['kimg']:g} of {run.config.total_kimg:g} kimg; "
            f"all runs: {done:.4g} of {self.plan.total_kimg:g} kimg, {duration(left)} left"
        )


def finished(folder: Path, run: SweepRun) -> bool:
    """Whether a run has reached its end and measured it."""
    return kimg_of(folder) * 1000 >= run.config.total_kimg * 1000 - 1e-6


def kimg_of(folder: Path) -> float:
    """How far a run's records reach."""
    records = read_stats(folder)
    return float(records[-1]["kimg"]) if records else 0.0


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT)}


def _end_with_parent() -> None:
    """In the new process: end when the sweep does, however that ends. Linux only; elsewhere the run goes on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_bytes()[-4000:].decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
