"""The training state: everything a restart must restore, listed in `TrainState.parts`.

All of it is tensors, and the same on every rank. Randomness comes from generators kept here and from nowhere else.
"""

from __future__ import annotations

import copy
import platform
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..networks.discriminator import Discriminator, DiscriminatorConfig
from ..networks.generator import Generator
from .ada import AdaController
from .augment import AUGMENT_SETS, AugmentPipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .config import TrainConfig

STREAMS = ("z", "label", "noise", "mixing", "augment")
PHASES = ("G/main", "G/path", "D/main", "D/r1")


class CheckpointPart(Protocol):
    """Interface of a part of the state that saves and loads as tensors."""

    def save(self) -> dict[str, Tensor]: ...

    def load(self, tensors: Mapping[str, Tensor]) -> None: ...


class ModulePart:
    """Parameters and buffers of a network."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def save(self) -> dict[str, Tensor]:
        return dict(self.module.state_dict())

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self.module.load_state_dict(tensors)


class AdamPart:
    """Moments and step counts of an Adam optimiser, under the network's parameter names."""

    def __init__(self, optimiser: torch.optim.Adam, module: nn.Module) -> None:
        self.optimiser = optimiser
        self.names = dict(module.named_parameters())

    def save(self) -> dict[str, Tensor]:
        moments = self.optimiser.state
        return {
            f"{name}/{key}": value
            for name, parameter in self.names.items()
            if parameter in moments
            for key, value in moments[parameter].items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self.optimiser.state.clear()
        for full_name, value in tensors.items():
            name, _, key = full_name.rpartition("/")
            parameter = self.names[name]
            device = value.device if key == "step" else parameter.device
            self.optimiser.state[parameter][key] = value.clone().to(device)  # never the caller's own tensor


class ValuesPart:
    """A part of the training state that consists of named numbers, restored in place."""

    def __init__(self, **values: Tensor) -> None:
        self.values = values

    def save(self) -> dict[str, Tensor]:
        return dict(self.values)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        for name, value in self.values.items():
            value.copy_(tensors[name])


class GeneratorPart:
    """The state of a random generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def save(self) -> dict[str, Tensor]:
        return {"state": self.generator.get_state()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self.generator.set_state(tensors["state"])


class TrainState:
    """Networks, optimisers, and all numbers that persist between steps."""

    def __init__(self, config: TrainConfig, device: torch.device | None = None) -> None:
        self.config = config
        self.device = device or torch.device("cpu")
        self.G, self.D = fresh_networks(config, self.device)
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        self.trainable_D = [parameter for parameter in self.D.parameters() if parameter.requires_grad]
        self.G_opt = lazy_adam(self.G, config.glr, config.pl_interval if config.pl_weight else None, config)
        self.D_opt = lazy_adam(self.D, config.dlr, config.r1_interval if config.gamma else None, config)
        self.pipe = None if config.aug == "noaug" else AugmentPipe(AUGMENT_SETS[config.augpipe], config.p)
        self.ada: AdaController | None = None
        if self.pipe is not None:
            self.pipe.to(self.device)
            self.ada = AdaController(config, self.pipe.p) if config.aug == "ada" else None
        self.pl_mean = torch.zeros([], device=self.device)
        self.streams = fresh_streams(config.seed)
        self.position = torch.zeros([], dtype=torch.int64)  # of the sampler
        self.step = torch.zeros([], dtype=torch.int64)  # iterations done
        self.nimg = torch.zeros([], dtype=torch.int64)  # real images shown
        # Optimiser steps skipped since the last good one, of each pass.
        self.bad_steps = torch.zeros(len(PHASES), dtype=torch.int64)
        self.best = torch.full([], torch.inf, dtype=torch.float64)  # least distance of a snapshot so far

    @property
    def p(self) -> float:
        """The augmentation probability."""
        return 0.0 if self.pipe is None else float(self.pipe.p)

    def parts(self) -> dict[str, CheckpointPart]:
        """All parts to save, by name. Anything missing here would change a resumed run."""
        parts: dict[str, CheckpointPart] = {
            "G": ModulePart(self.G),  # with w_avg
            "D": ModulePart(self.D),
            "G_ema": ModulePart(self.G_ema),
            "G_opt": AdamPart(self.G_opt, self.G),
            "D_opt": AdamPart(self.D_opt, self.D),
            "pl_mean": ValuesPart(value=self.pl_mean),
            "sampler": ValuesPart(position=self.position),
            "progress": ValuesPart(step=self.step, nimg=self.nimg, bad_steps=self.bad_steps),
            "best": ValuesPart(distance=self.best),
        }
        if self.pipe is not None:
            parts["augment"] = ValuesPart(p=self.pipe.p)
        if self.ada is not None:
            parts["ada"] = ValuesPart(sign_sum=self.ada.sign_sum, sign_count=self.ada.sign_count)
        return parts | {f"rng.{name}": GeneratorPart(stream) for name, stream in self.streams.items()}

    def save(self) -> dict[str, Tensor]:
        """Save all parts as one flat dict of tensors."""
        return {f"{name}:{key}": value for name, part in self.parts().items() for key, value in part.save().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `save` returned."""
        named, parts = by_part(tensors), self.parts()
        if named.keys() != parts.keys():
            raise ValueError(f"a checkpoint must hold the parts {sorted(parts)}, got {sorted(named)}")
        for name, part in parts.items():
            part.load(named[name])


def by_part(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Group the flat tensors of `TrainState.save` by part."""
    named: dict[str, dict[str, Tensor]] = {}
    for full_name, value in tensors.items():
        part_name, _, key = full_name.partition(":")
        named.setdefault(part_name, {})[key] = value
    return named


def fresh_networks(config: TrainConfig, device: torch.device) -> tuple[Generator, Discriminator]:
    """Create untrained networks from the seed, leaving the global random generator unchanged."""
    discriminator = DiscriminatorConfig(
        architecture=config.d_architecture, mbstd_group_size=config.mbstd_group, freeze_layers=config.freeze_d
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        networks = Generator(config.generator()), Discriminator(config.generator(), discriminator)
    return networks[0].to(device).train(), networks[1].to(device).train()


def lazy_adam(module: nn.Module, rate: float, interval: int | None, config: TrainConfig) -> torch.optim.Adam:
    """Adam, corrected for the extra step in every `interval`-th iteration (Karras et al. 2020, appendix B).

    None = there are no extra steps, and nothing to correct.
    """
    share = 1.0 if interval is None else interval / (interval + 1)
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    betas = (config.beta1**share, config.beta2**share)
    return torch.optim.Adam(trainable, lr=rate * share, betas=betas, eps=config.adam_eps)


def fresh_streams(seed: int) -> dict[str, torch.Generator]:
    """Create a CPU random generator for each purpose, so that extra draws in one never shift another."""
    seeds = np.random.SeedSequence(seed).generate_state(len(STREAMS), np.uint32)
    return {name: torch.Generator().manual_seed(int(number)) for name, number in zip(STREAMS, seeds, strict=True)}


def environment(device: torch.device) -> dict[str, str]:
    """Environment facts that bit-exactness depends on. Differences are reported when resuming, not refused."""
    facts = {
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "device": device.type,
    }
    if device.type == "cuda":
        facts |= {"gpu": torch.cuda.get_device_name(device), "cuda": str(torch.version.cuda)}
    return facts


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Describe differences from the recorded environment, one per line."""
    return [
        f"{name} was {before.get(name)}, is {now.get(name)}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
