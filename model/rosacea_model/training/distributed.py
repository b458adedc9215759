"""Distributed training with torchrun; without it, a world of one process.

Every random number is drawn alike on all ranks, and what ranks compute apart is summed, so that all of them hold the
same state: one rank's checkpoint is everybody's.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CPU = torch.device("cpu")
TIMEOUT_S = 120.0  # a rank that hangs costs the others this long, not gloo's half hour
PATIENCE_S = 3600.0  # but so long the others wait while the leader draws, measures or saves


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """One process of a distributed training run: its rank, the number of ranks, and sums, broadcasts and barriers among
    them."""

    rank: int = 0
    world: int = 1
    device: torch.device = CPU
    patient: dist.ProcessGroup | None = None  # the same ranks, on the CPU, with a longer timeout

    @property
    def leads(self) -> bool:
        """Whether this rank writes files and prints."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum a tensor over all ranks in place; the result is bitwise equal on each."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the condition holds on any rank."""
        if self.world == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=self.device)) > 0)

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Broadcast the leader's values to every rank."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Wait for all ranks, long enough for work that the leader does alone."""
        if self.world > 1:
            dist.all_reduce(torch.zeros([]), group=self.patient)


def processes() -> int:
    """Number of processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def join(device: str, timeout_s: float = TIMEOUT_S) -> Iterator[Ranks]:
    """Join the process group by torchrun's variables. On CUDA each local rank uses the GPU of its number."""
    if processes() == 1:
        yield Ranks(device=torch.device(device))
        return
    where = torch.device(device)
    if where.type == "cuda":
        where = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(where)
    backend = "nccl" if where.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
    try:
        patient = dist.new_group(backend="gloo", timeout=timedelta(seconds=PATIENCE_S))
        yield Ranks(rank=dist.get_rank(), world=dist.get_world_size(), device=where, patient=patient)
    finally:
        dist.destroy_process_group()
