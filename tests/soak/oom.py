"""S26: a worker that runs out of memory, killed by the kernel for it or told so by its allocator.

The gateway must live, no face may be wrong, and there must be answers again within 30 s.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil

from rosacea_client import FaceClient
from rosacea_model import GeneratorConfig
from tests.faults.cgroup import NotPermittedError, memory_group
from tests.faults.history import History, violations

from .clients import PATIENCE_SECONDS, buy
from .orders import Order
from .report import Row
from .scene import Models
from .watched import Watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

# A face takes some 100 MB while it is drawn.
LARGE = GeneratorConfig(z_dim=32, w_dim=32, img_resolution=256, mapping_layers=2, channel_base=16384, channel_max=64)
SPARE_BYTES = 8 * 2**20
RECOVERY_SECONDS, SLACK = 30.0, 3  # the promise, and how much longer a busy machine may take
BIG = Order([1, 2, 3, 4, 5, 6, 7, 8])
REFUSED = "faces could not be drawn"  # the handler's words
PROMISE = f"no wrong face, gateway alive, answers again within {RECOVERY_SECONDS:g} s (x{SLACK} on a busy machine)"


def oom(folder: Path) -> list[Row]:
    """The rows of S26."""
    models = Models.make(folder, LARGE, range(9))
    with Watched([models.served], "--workers", "1", "--worker-threads", "1") as service:
        return [
            row("S26 killed", service, models, killed_by_the_kernel, ["Unavailable"]),
            row("S26 refused", service, models, refused_by_the_allocator, ["Unavailable", "ServerError"]),
        ]


def row(
    name: str,
    service: Watched,
    models: Models,
    fault: Callable[[Watched, psutil.Process], AbstractContextManager[Callable[[], str]]],
    allowed: list[str],
) -> Row:
    """Ask for much as it is, then under the fault, then again until there is an answer."""
    history = History()
    (worker,) = service.workers()
    with FaceClient(service.address, timeout_seconds=PATIENCE_SECONDS) as client:
        buy(client, history, BIG, "before")
        broken = [] if worker.is_running() else ["the worker died without the fault: the row proves nothing"]
        try:
            with fault(service, worker) as bit:
                buy(client, history, BIG, "under the fault")
                effect = bit()
        except NotPermittedError as error:
            return Row(name, PROMISE, "", skipped=str(error))
        healed = time.monotonic()
        while not history.calls[-1].ok and time.monotonic() - healed < 2 * SLACK * RECOVERY_SECONDS:
            time.sleep(0.2)
            buy(client, history, BIG, "after")
    seconds = time.monotonic() - history.calls[1].began
    broken += violations(history, models.golden, allowed=allowed, late_seconds=10)
    if not effect:
        broken.append("the fault had no effect: the row proves nothing")
    if not history.calls[-1].ok or seconds > SLACK * RECOVERY_SECONDS:
        broken.append(f"answers must come again within {SLACK * RECOVERY_SECONDS:g} s, it took {seconds:.1f} s")
    if service.process.poll() is not None:
        broken.append("the gateway has ended")
    measured = f"{effect}; calls ended {history.errors()}; an answer {seconds:.1f} s after what was too much"
    return Row(name, PROMISE, measured, broken)


@contextmanager
def killed_by_the_kernel(service: Watched, worker: psutil.Process) -> Iterator[Callable[[], str]]:
    """From now on the worker has room for hardly anything more."""
    with memory_group(SPARE_BYTES) as group:
        group.add(worker.pid)
        yield lambda: f"{group.kills} worker killed by the kernel" if group.kills else ""


@contextmanager
def refused_by_the_allocator(service: Watched, worker: psutil.Process) -> Iterator[Callable[[], str]]:
    """The same, but its allocator fails, and Python raises."""
    before = worker.rlimit(psutil.RLIMIT_AS)
    try:
        worker.rlimit(psutil.RLIMIT_AS, (worker.memory_info().vms + SPARE_BYTES, before[1]))
    except (psutil.AccessDenied, OSError) as error:
        raise NotPermittedError(f"RLIMIT_AS of another process: {error}") from error
    try:
        yield lambda: "no memory for a job, told in the log" if REFUSED in service.log() else ""
    finally:
        if worker.is_running():
            worker.rlimit(psutil.RLIMIT_AS, before)
