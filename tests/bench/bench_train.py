"""Training speed against the same training written plainly: `make bench-train`.

A cycle is 16 iterations with lazy regularisation: the generator's and the discriminator's pass and the average of the
weights 16 times each, path length regularisation 4 times, R1 once. Each round times every pass once in both variants,
one after the other and on the same random numbers; a cycle is the sum of the medians, each times its number. What
counts is the ratio: seconds depend on the machine.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import subprocess
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rosacea_model.memory import keep_freed_memory
from rosacea_model.training.config import TrainConfig
from rosacea_model.training.distributed import Ranks
from rosacea_model.training.state import TrainState
from rosacea_model.training.step import Passes

from .plain import DESCRIPTION, plain_training

# The passes of a cycle by the names of `Passes`, and how often each occurs.
CYCLE = {"generator": 16, "path_length": 4, "discriminator": 16, "r1": 1, "update_ema": 16}
CYCLE_STEPS = 16


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is trained."""

    resolution: int
    channel_base: int
    channel_max: int
    batch: int
    p: float
    device: str

    def config(self) -> TrainConfig:
        return TrainConfig(
            resolution=self.resolution,
            total_kimg=1,
            batch=self.batch,
            batch_gpu=self.batch,
            gamma=1,
            ema_kimg=10,
            channel_base=self.channel_base,
            channel_max=self.channel_max,
            aug="fixed",
            p=self.p,
            num_fp16_res=0,
            device=self.device,
        )


class Variant:
    """One of the two ways to train, with networks of its own."""

    def __init__(self, name: str, setting: Setting) -> None:
        self.name = name
        device = torch.device(setting.device)
        self.passes = Passes(TrainState(setting.config(), device), Ranks(device=device))
        shape = (setting.batch, 3, setting.resolution, setting.resolution)
        self.reals: Tensor = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        self.seconds: dict[str, list[float]] = {name: [] for name in CYCLE}

    def run(self, name: str) -> dict[str, float]:
        """Make one pass; the means of what it reports."""
        manner: AbstractContextManager[None] = plain_training() if self.name == "plain" else nullcontext()
        with manner:
            start = _now()
            figures = getattr(self.passes, name)(*(() if name == "update_ema" else (self.reals, None)))
            self.seconds[name].append(_now() - start)
        return {key: figure.mean for key, figure in (figures or {}).items()}

    def images_per_second(self) -> float:
        cycle = sum(CYCLE[name] * statistics.median(seconds) for name, seconds in self.seconds.items())
        return CYCLE_STEPS * len(self.reals) / cycle


def main() -> None:
    """Print one table."""
    options = parse_args()
    torch.set_num_threads(options.threads)
    if options.device == "cpu":
        keep_freed_memory()  # for both, as `train` does
    if options.peak:
        print(peak_mib(options.peak, setting_of(options, options.resolutions[0])))
        return
    print(
        f"torch {torch.__version__}, {platform.machine()} {torch.backends.cpu.get_cpu_capability()}, "
        f"{options.device}, {options.threads} thread(s), batch {options.batch}, channels {options.channel_base}/R "
        f"up to {options.channel_max}, augmentation p {options.p:g}, medians of {options.rounds} rounds in turn"
    )
    print(f"plain = {DESCRIPTION}")
    print(f"command: python -m tests.bench.bench_train {' '.join(sys.argv[1:])}")
    print("resolution  plain img/s  ours img/s  ratio  plain MiB  ours MiB  ratio by pass")
    for resolution in options.resolutions:
        print(row(setting_of(options, resolution), options), flush=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolutions", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--channel-base", type=int, default=4096)
    parser.add_argument("--channel-max", type=int, default=128)
    parser.add_argument("--p", type=float, default=0.2, help="augmentation probability; 0 = the pipe does nothing")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="tiny networks, one round: does it run at all")
    parser.add_argument("--peak", choices=["plain", "ours"], help=argparse.SUPPRESS)  # what a child process is asked
    options = parser.parse_args()
    if options.smoke:
        options.resolutions, options.rounds, options.batch = [16], 1, 4
        options.channel_base, options.channel_max = 128, 8
    return options


def setting_of(options: argparse.Namespace, resolution: int) -> Setting:
    return Setting(
        resolution=resolution,
        channel_base=options.channel_base,
        channel_max=options.channel_max,
        batch=options.batch,
        p=options.p,
        device=options.device,
    )


def row(setting: Setting, options: argparse.Namespace) -> str:
    """Both variants in turn."""
    plain, ours = Variant("plain", setting), Variant("ours", setting)
    for number in range(options.rounds + 1):
        for name in CYCLE:
            told = [variant.run(name) for variant in (plain, ours)]
            if number == 0:
                check_same(name, *told)
        if number == 0:
            for variant in (plain, ours):
                variant.seconds = {name: [] for name in CYCLE}  # warm-up
    ratio = ours.images_per_second() / plain.images_per_second()
    ratios = "  ".join(
        f"{name} {statistics.median(plain.seconds[name]) / statistics.median(ours.seconds[name]):.2f}" for name in CYCLE
    )
    peaks = [peak_of_child(name, setting, options.threads) for name in ("plain", "ours")]
    return (
        f"{setting.resolution:>10} {plain.images_per_second():12.2f} {ours.images_per_second():11.2f} {ratio:6.2f}"
        f" {peaks[0]:10.0f} {peaks[1]:9.0f}  {ratios}"
    )


def check_same(name: str, plain: dict[str, float], ours: dict[str, float]) -> None:
    """Raise RuntimeError unless both variants compute the same thing."""
    for key, value in plain.items():
        # What rounding can make of a loss after some steps of Adam.
        if not key.startswith("signs/") and not math.isclose(value, ours[key], rel_tol=0.02, abs_tol=0.01):
            raise RuntimeError(f"{name}: {key} is {value:g} the plain way and {ours[key]:g} in ours")


def peak_of_child(name: str, setting: Setting, threads: int) -> float:
    """Peak memory in MiB of a process, or on its GPU, that makes every pass twice in one variant."""
    command = [
        sys.executable,
        "-m",
        __spec__.name,
        "--peak",
        name,
        "--resolutions",
        str(setting.resolution),
        "--batch",
        str(setting.batch),
        "--channel-base",
        str(setting.channel_base),
        "--channel-max",
        str(setting.channel_max),
        "--p",
        str(setting.p),
        "--device",
        setting.device,
        "--threads",
        str(threads),
    ]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_mib(name: str, setting: Setting) -> float:
    variant = Variant(name, setting)
    for pass_name in 2 * list(CYCLE):
        variant.run(pass_name)
    if setting.device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    # Not from getrusage, which counts what the parent held when it forked.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _now() -> float:
    """Seconds: on a CPU those that this process computed, so that other work on the machine does not count."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


if __name__ == "__main__":
    main()
