"""The service under test, its two revisions of one model, and what happens to it: kills and swaps."""

from __future__ import annotations

import random
import shutil
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

from rosacea_model import GeneratorConfig
from rosacea_model.fresh import fresh_model
from tests.faults.goldens import Want, goldens, revision_name
from tests.faults.processes import kill
from tests.integration.service import put

from .orders import FORMAT_NAMES, PSIS, SEEDS
from .watched import Watched, role

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TINY = GeneratorConfig(z_dim=32, w_dim=32, img_resolution=64, mapping_layers=2, channel_base=1024, channel_max=32)
WORKERS = 2
FLAGS = ("--workers", str(WORKERS), "--worker-threads", "1")
SWAPS_DONE = 'rosacea_model_swaps_total{outcome="done"}'
SWAP_SECONDS = 600.0
RECOVERY_SECONDS = 300.0  # after which a killed worker counts as lost for good


@dataclass
class Models:
    """Two revisions of one model, and the folder that is served, which holds a copy of one of them."""

    revisions: list[Path]
    names: list[str]  # models/NAME/revisions/DIGEST of each
    served: Path
    golden: dict[Want, str]

    @classmethod
    def make(cls, folder: Path, config: GeneratorConfig = TINY, seeds: range = SEEDS) -> Models:
        """Draw all right answers beforehand."""
        files = [fresh_model(folder / name, config, seed=seed, name="tiny") for seed, name in enumerate(("v1", "v2"))]
        revisions = [file.path.parent for file in files]
        shutil.copytree(revisions[0], folder / "served")
        golden = {want: seen for path in revisions for want, seen in goldens(path, seeds, PSIS, FORMAT_NAMES).items()}
        return cls(revisions, [revision_name(file) for file in files], folder / "served", golden)


@dataclass
class Events:
    """What was done to the service."""

    kills: int = 0
    recovery_seconds: list[float] = field(default_factory=list)  # from a kill until all workers are back
    swap_seconds: list[float] = field(default_factory=list)
    served: list[tuple[float, str]] = field(default_factory=list)  # since when, which revision
    trouble: list[str] = field(default_factory=list)


class Tormentor:
    """Kills workers and swaps models of a running service."""

    def __init__(self, service: Watched, models: Models) -> None:
        self.events = Events(served=[(time.monotonic(), models.names[0])])
        self._service = service
        self._models = models
        self._current = 0
        self._killable: set[int] | None = None  # the workers from before a swap that is under way
        self._rng = random.Random(1)

    def kill(self) -> None:
        """SIGKILL for one worker that serves; returns when there is another in its place.

        Those that a swap is just starting are spared: a revision whose worker dies at its start is refused, rightly.
        """
        workers = [each for each in self._service.workers() if self._killable is None or each.pid in self._killable]
        if not workers:
            return
        victim = self._rng.choice(workers)
        java = victim.parent()
        began = time.monotonic()
        kill(victim)
        self.events.kills += 1
        while java is not None and len(workers_of(java)) < WORKERS:
            if time.monotonic() - began > RECOVERY_SECONDS:
                self.events.trouble.append(f"a killed worker must be replaced within {RECOVERY_SECONDS:g} s")
                return
            if not java.is_running():
                return  # its revision has been replaced meanwhile
            time.sleep(0.2)
        self.events.recovery_seconds.append(time.monotonic() - began)

    def swap(self) -> None:
        """Put the other revision into the served folder and send SIGHUP; returns when it is in service."""
        self._current = 1 - self._current
        began = time.monotonic()
        done = self._service.metric(SWAPS_DONE)
        self._killable = {each.pid for each in self._service.workers()}
        try:
            put(self._models.revisions[self._current], self._models.served)
            self._service.process.send_signal(signal.SIGHUP)
            self._service.wait_for_metric(SWAPS_DONE, done + 1, SWAP_SECONDS)
        except AssertionError as error:
            self.events.trouble.append(f"a swap failed: {error}")
            return
        finally:
            self._killable = None
        self.events.served.append((time.monotonic(), self._models.names[self._current]))
        self.events.swap_seconds.append(time.monotonic() - began)

    def back_to_the_first(self) -> None:
        """As it was at the start, with nothing left of the other revision."""
        if self._current:
            self.swap()
        self.wait_until_retired()

    def wait_until_retired(self) -> None:
        """Return when only one revision has workers."""
        until = time.monotonic() + SWAP_SECONDS
        while len(self._service.workers()) > WORKERS or self._service.metric("rosacea_open_calls"):
            if time.monotonic() > until:
                self.events.trouble.append("the replaced revision must be gone when its calls have ended")
                return
            time.sleep(0.2)


def workers_of(java: psutil.Process) -> Sequence[psutil.Process]:
    try:
        return [each for each in java.children(recursive=True) if role(each) == "worker"]
    except psutil.NoSuchProcess:
        return []
