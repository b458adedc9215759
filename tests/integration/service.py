"""A real service as an operator starts it: `rosacea serve` in a process of its own, watched from outside."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ..ports import free_port
from ..waiting import HANG_SECONDS, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

START_SECONDS = 300.0
STOP_SECONDS = 120.0
BRIEF_START = {"ROSACEA_SERVE_WARMUP_JOBS": "20"}  # not 500: a start takes 6 instead of 8 CPU seconds


class RunningService:
    """`with RunningService([model]) as service:` - started, SERVING, and stopped without a trace at the end."""

    def __init__(self, models: Sequence[Path], *flags: str, environment: dict[str, str] | None = None) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.metrics_address = f"127.0.0.1:{free_port()}"
        # A folder of its own for everything temporary, so that leftovers are seen. Short: UNIX sockets lie in it.
        self.temporary = Path(tempfile.mkdtemp(prefix="svc"))
        self._log = (self.temporary.parent / f"{self.temporary.name}.log").open("w+")
        rosacea = Path(sys.executable).with_name("rosacea")
        command = [str(rosacea), "serve", *map(str, models), "--address", self.address]
        command += ["--metrics-address", self.metrics_address, *flags]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **BRIEF_START, "TMPDIR": str(self.temporary), **(environment or {})},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        try:
            self.wait_for_health(START_SECONDS)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop it, kill what is left, and remove its log."""
        family = self.family()
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self.process.wait()
        self._log.close()
        Path(self._log.name).unlink()
        shutil.rmtree(self.temporary)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)

    def log(self) -> str:
        """Everything it printed so far."""
        return Path(self._log.name).read_text()

    def wait_for_log(self, text: str) -> None:
        """A line is written a moment after what it tells of."""
        wait_for(lambda: text in self.log())

    def family(self) -> list[psutil.Process]:
        """The processes below it: TorchServe's guard, Java, workers."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def workers(self) -> list[psutil.Process]:
        return [each for each in self.family() if "model_service_worker.py" in " ".join(cmdline(each))]

    def java(self) -> psutil.Process:
        (process,) = [each for each in self.family() if "java" in Path(next(iter(cmdline(each)), "")).name]
        return process

    def health(self) -> int:
        """The serving status, UNKNOWN where nothing answers."""
        with grpc.insecure_channel(self.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            try:
                return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=HANG_SECONDS).status)
            except grpc.RpcError:
                return int(health_pb2.HealthCheckResponse.UNKNOWN)

    def wait_for_health(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.health() != health_pb2.HealthCheckResponse.SERVING:
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"the service is not SERVING; it said:\n{self.log()}")
            time.sleep(0.1)

    def metric(self, sample: str) -> float:
        """A sample as Prometheus would scrape it, for instance `rosacea_open_calls`; 0 where there is none yet."""
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=HANG_SECONDS) as response:
            rows = response.read().decode().splitlines()
        return next((float(row.rpartition(" ")[2]) for row in rows if row.rpartition(" ")[0] == sample), 0.0)

    def wait_for_metric(self, sample: str, value: float, seconds: float = HANG_SECONDS) -> None:
        until = time.monotonic() + seconds
        while (seen := self.metric(sample)) != value:
            if time.monotonic() > until:
                raise AssertionError(f"{sample} must become {value}, it is {seen}")
            time.sleep(0.02)

    def leftovers(self) -> list[str]:
        """What it left in its temporary folder."""
        return sorted(str(path.relative_to(self.temporary)) for path in self.temporary.rglob("*"))


def put(revision: Path, served: Path) -> None:
    """Write over a served folder in place, as `cp` does."""
    for file in revision.iterdir():
        (served / file.name).write_bytes(file.read_bytes())


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def gone(processes: Sequence[psutil.Process], seconds: float = HANG_SECONDS) -> bool:
    """Whether all of them end in time."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not alive
