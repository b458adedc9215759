"""TorchServe's own metrics under Prometheus names. TorchServe's are camel case, without standard units, and some
counters lack `_total`. They are read over its UNIX socket in the thread of a scrape, never in the event loop."""

from __future__ import annotations

import http.client
import re
import socket
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_SECONDS = 0.3
MAX_BYTES = 2**20
SAMPLE = re.compile(r"(?P<name>\w+)\{.*\} (?P<value>\S+)")


@dataclass(frozen=True)
class Number:
    """The Prometheus metric for one metric of TorchServe: name, help text, kind, and the factor that converts
    TorchServe's unit."""

    name: str
    text: str
    kind: Literal["counter", "gauge"] = "gauge"
    unit: float = 1.0  # of theirs in ours


NUMBERS = {
    "ts_inference_requests_total": Number(
        "rosacea_torchserve_jobs", "Jobs that this TorchServe has taken, its canaries among them.", "counter"
    ),
    "QueueTime": Number("rosacea_torchserve_queue_seconds", "How long its last job waited in TorchServe.", unit=1e-3),
    "WorkerThreadTime": Number(
        "rosacea_torchserve_overhead_seconds", "What its last job took in TorchServe beside the worker.", unit=1e-3
    ),
    "HandlerTime": Number("rosacea_torchserve_handler_seconds", "What its last job took in our handler.", unit=1e-3),
    "PredictionTime": Number("rosacea_torchserve_prediction_seconds", "What its last job took in a worker.", unit=1e-3),
    "WorkerLoadTime": Number(
        "rosacea_torchserve_worker_load_seconds", "How long its slowest worker took to load.", unit=1e-3
    ),
}


def ask(path: Path) -> dict[str, float]:
    """Read TorchServe's metrics, under its own names and units. Raises OSError or HTTPException."""
    with closing(_Connection(path)) as connection:
        connection.request("GET", "/metrics")
        return parse(connection.getresponse().read(MAX_BYTES).decode("utf-8", "replace"))


def parse(text: str) -> dict[str, float]:
    """Parse the page: the largest sample of each known metric, of which each worker has one."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        match = SAMPLE.fullmatch(line)
        if match and match["name"] in NUMBERS:
            found[match["name"]] = max(float(match["value"]), found.get(match["name"], 0.0))
    return found


class _Connection(http.client.HTTPConnection):
    """HTTP connection over a UNIX socket, for TorchServe's metrics."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
