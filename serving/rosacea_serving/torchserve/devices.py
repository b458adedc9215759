"""Finds the devices workers can use by asking torch, in the workers' environment, before TorchServe is configured.

TorchServe itself counts GPUs by what nvidia-smi prints, or by the commas in CUDA_VISIBLE_DEVICES. Neither says that
torch can use them.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from . import probe
from .errors import StartFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger("rosacea.torchserve")

Device = Literal["auto", "cpu", "cuda"]
HIDDEN = "-1"  # as CUDA_VISIBLE_DEVICES: no GPU, for CUDA and for TorchServe, which then asks nobody
PROBE_SECONDS = 300.0  # a first import of torch from a slow disk takes a minute


@dataclass(frozen=True)
class Devices:
    """The GPUs that workers are spread over, as CUDA_VISIBLE_DEVICES names them; without any, the CPU."""

    gpus: tuple[str, ...] = ()

    def workers(self, each: int) -> int:
        """Number of workers of a model on all devices, given the number per device."""
        return each * max(1, len(self.gpus))

    @property
    def visible(self) -> str:
        """The value of CUDA_VISIBLE_DEVICES for TorchServe and its workers."""
        return ",".join(self.gpus) or HIDDEN

    def __str__(self) -> str:
        return f"GPU {', '.join(self.gpus)}" if self.gpus else "the CPU"


ON_CPU = Devices()


def find_devices(
    wanted: Device,
    environment: Mapping[str, str],
    ask: Callable[[Mapping[str, str]], dict[str, Any]] | None = None,
) -> Devices:
    """Choose the devices and log why. `environment` is the one that workers will have.

    Raises StartFailed where `cuda` is demanded and cannot be had, and for GPUs that TorchServe has no name for.
    """
    if wanted == "cpu":
        log.info("drawing on the CPU: device = cpu")
        return ON_CPU
    answer = (ask or ask_torch)(environment)
    devices = usable(answer["gpus"], environment.get("CUDA_VISIBLE_DEVICES"))
    if devices.gpus:
        log.info("drawing on %s (%s)", devices, ", ".join(sorted({gpu["name"] for gpu in answer["gpus"]})))
        return devices
    trouble = answer["trouble"] or "no GPU that torch sees can be used"
    if wanted == "cuda":
        raise StartFailed(f"device = cuda needs a GPU that torch can use; {trouble}; device = auto would take the CPU")
    log.info("drawing on the CPU: %s", trouble)
    return devices


def usable(gpus: list[dict[str, str]], visible: str | None) -> Devices:
    """The working GPUs, by the numbers they have while CUDA_VISIBLE_DEVICES is unset; StartFailed if `visible`, its
    value, names them otherwise than by number."""
    for place, gpu in enumerate(gpus):
        if gpu["trouble"]:
            log.warning("GPU %d (%s) cannot be used: %s", place, gpu["name"], gpu["trouble"])
    places = [place for place, gpu in enumerate(gpus) if not gpu["trouble"]]
    if not places or visible is None:
        return Devices(tuple(map(str, places)))
    names = [name.strip() for name in visible.split(",")]
    if len(names) < len(gpus) or not all(re.fullmatch(r"[0-9]+", name) for name in names[: len(gpus)]):
        raise StartFailed(
            f"CUDA_VISIBLE_DEVICES must be integers, TorchServe reads no other, got {visible!r}; "
            "name the GPUs by their numbers, or set device = cpu"
        )
    return Devices(tuple(names[place] for place in places))


def ask_torch(environment: Mapping[str, str]) -> dict[str, Any]:
    """Run `probe` in a separate process with the workers' Python."""
    command = [sys.executable, "-P", probe.__file__]
    try:
        done = subprocess.run(command, env=dict(environment), capture_output=True, timeout=PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return probe.nothing(f"torch has not said within {PROBE_SECONDS:.0f} s what it can use")
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer
    except (IndexError, ValueError):
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        how = f"exit code {done.returncode}" + (f", {said[-1][:300]}" if said else "")
        return probe.nothing(f"torch could not say what it can use ({how})")
