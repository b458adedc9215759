"""The four passes of a training iteration (generator, path length, discriminator, R1) and the weight average.

Each pass sums its gradients over micro batches and ranks, checks that they are finite, and makes one step of Adam.
What a micro batch draws depends on its number in the global batch alone, not on which rank computes it.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from . import loss
from .augment import RandomDraws
from .errors import NotFinite
from .feed import to_unit
from .state import PHASES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .distributed import Ranks
    from .state import TrainState

W_AVG_DECAY = 0.995


@dataclass(frozen=True, kw_only=True)
class Micro:
    """A micro-batch: its inputs and its own random generators."""

    z: Tensor  # [n, z_dim]
    c: Tensor | None  # [n, label_width]; None = unconditional
    reals: Tensor  # [n, C, H, W] in [-1, 1]
    real_c: Tensor | None
    noise: torch.Generator
    mixing: torch.Generator
    augment: torch.Generator


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of one micro-batch: loss, statistics, and the w of its samples, if any (for w_avg)."""

    loss: Tensor  # []
    figures: dict[str, Tensor] = field(default_factory=dict)  # each [any]; reported as means
    w: Tensor | None = None  # [n, w_dim], for w_avg


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A training statistic, such as a loss: its sum and count over all micro-batches and ranks."""

    total: float
    count: float

    @property
    def mean(self) -> float:
        return self.total / self.count


Figures = dict[str, Figure]


class Passes:
    """Runs the passes on a state, on one of several ranks."""

    def __init__(self, state: TrainState, ranks: Ranks, labels: Tensor | None = None) -> None:
        """`labels` [M, label_width] are those that fakes get, drawn at random; None = unconditional."""
        self.state = state
        self.ranks = ranks
        self.labels = labels
        self.config = state.config
        self.micros = self.config.batch // self.config.batch_gpu
        own = self.micros // ranks.world
        self.own = range(ranks.rank * own, (ranks.rank + 1) * own)

    # Passes.

    def generator(self, reals: Tensor, real_c: Tensor | None) -> Figures:
        """Generator pass: fakes should be classified as real."""
        return self._run("G/main", reals, real_c, self._generator, trains_d=False)

    def path_length(self, reals: Tensor, real_c: Tensor | None) -> Figures:
        """Path length pass: images should move in proportion to latents."""
        figures = self._run("G/path", reals, real_c, self._path_length, trains_d=False, gain=self.config.pl_interval)
        if "path_length" in figures:
            # What is kept is of the whole batch: the same however it is cut into micro batches and ranks.
            mean = torch.full_like(self.state.pl_mean, figures["path_length"].mean)
            self.state.pl_mean.lerp_(mean, self.config.pl_decay)
        return figures

    def discriminator(self, reals: Tensor, real_c: Tensor | None) -> Figures:
        """Discriminator pass: classify reals and fakes."""
        figures = self._run("D/main", reals, real_c, self._discriminator, trains_d=True)
        return self._note_signs(figures)

    def r1(self, reals: Tensor, real_c: Tensor | None) -> Figures:
        """R1 pass: penalise the discriminator's gradients at reals."""
        figures = self._run("D/r1", reals, real_c, self._r1, trains_d=True, gain=self.config.r1_interval)
        return self._note_signs(figures)

    @torch.no_grad()
    def update_ema(self) -> None:
        """Update the averaged generator, with a half-life of ema_kimg or, early in the run, a fraction of the images
        shown so far."""
        config, state = self.config, self.state
        half_life = config.ema_kimg * 1000
        if config.ema_rampup is not None:
            half_life = min(half_life, float(state.nimg) * config.ema_rampup)
        keep = 0.5 ** (config.batch / max(half_life, 1e-8))
        for average, parameter in zip(state.G_ema.parameters(), state.G.parameters(), strict=True):
            average.copy_(parameter.lerp(average, keep))
        for copied, buffer in zip(state.G_ema.buffers(), state.G.buffers(), strict=True):
            copied.copy_(buffer)

    # Losses of one micro batch.

    def _generator(self, micro: Micro) -> Outcome:
        images, _, w = self._fakes(micro)
        logits = self._judge(images, micro.c, micro)
        value = loss.generator_loss(logits)
        return Outcome(loss=value, w=w, figures={"G/loss": value, **_scores("fake", logits)})

    def _path_length(self, micro: Micro) -> Outcome:
        images, ws, w = self._fakes(micro, max(len(micro.z) // self.config.pl_batch_shrink, 1))
        lengths = loss.path_lengths(images, ws, loss.path_noise(images, micro.noise))
        # As in the reference: the mean moves first, and the gradient goes through it.
        mean = self.state.pl_mean.lerp(lengths.mean(), self.config.pl_decay)
        penalty = loss.path_penalty(lengths, mean)
        return Outcome(
            loss=penalty * self.config.pl_weight,
            w=w,
            figures={"path_length": lengths, "path_penalty": penalty},
        )

    def _discriminator(self, micro: Micro) -> Outcome:
        with torch.no_grad():
            images, _, w = self._fakes(micro)
        fake_logits = self._judge(images, micro.c, micro)
        real_logits = self._judge(micro.reals, micro.real_c, micro)
        value = loss.fake_loss(fake_logits) + loss.real_loss(real_logits)
        return Outcome(loss=value, w=w, figures={"D/loss": value, **_scores("real", real_logits)})

    def _r1(self, micro: Micro) -> Outcome:
        reals = micro.reals.detach().requires_grad_()
        logits = self._judge(reals, micro.real_c, micro)
        penalty = loss.r1_penalty(logits, reals)
        return Outcome(
            loss=(penalty * (self.config.gamma / 2)).mean(),
            figures={"r1_penalty": penalty, **_scores("real", logits)},
        )

    def _fakes(self, micro: Micro, count: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Draw images of the first `count` latents; returns them, their ws, and the w before style mixing."""
        generator = self.state.G
        z, c = micro.z[:count], None if micro.c is None else micro.c[:count]

        def other() -> Tensor:
            drawn = torch.randn(z.shape, generator=micro.mixing, device=micro.mixing.device)
            return self._rows(generator.mapping(drawn.to(z.device), c))

        w = generator.mapping(z, c)
        ws = self._rows(w)
        if self.config.style_mixing > 0:
            ws = loss.mix_styles(ws, other, self.config.style_mixing, micro.mixing)
        return generator.synthesis(ws, self._noises(len(z), micro.noise)), ws, w

    def _rows(self, w: Tensor) -> Tensor:  # [n, w_dim] => [n, num_ws, w_dim]
        return w[:, None].repeat(1, self.state.G.config.num_ws, 1)

    def _noises(self, count: int, generator: torch.Generator) -> list[Tensor | None]:
        constants = self.state.G.synthesis.noises("const", count)
        shapes = [constant.shape for constant in constants if constant is not None]
        return [torch.randn(count, 1, *shape[-2:], generator=generator, device=generator.device) for shape in shapes]

    def _judge(self, images: Tensor, c: Tensor | None, micro: Micro) -> Tensor:
        """The discriminator's logits of augmented images."""
        pipe = self.state.pipe
        shown = images if pipe is None else pipe(images, RandomDraws(micro.augment))
        logits: Tensor = self.state.D(shown, c)
        return logits

    # What all passes share.

    def _run(
        self,
        phase: str,
        reals: Tensor,
        real_c: Tensor | None,
        outcome_of: Callable[[Micro], Outcome],
        *,
        trains_d: bool,
        gain: float = 1.0,
    ) -> Figures:
        """Accumulate gradients over micro-batches, sum them over ranks, and step; if they are not finite, skip the
        step, or raise NotFinite after too many skips in a row."""
        state = self.state
        parameters = state.trainable_D if trains_d else list(state.G.parameters())
        optimiser = state.D_opt if trains_d else state.G_opt
        optimiser.zero_grad(set_to_none=True)
        sums = _BatchSums(self.micros)
        with self._only_training(parameters):
            for micro in self._draw(reals, real_c):
                outcome = outcome_of(micro)
                (outcome.loss * (gain / self.micros)).backward()
                sums.add(outcome)

        # Sum gradients and figures in one go, in a fixed order.
        gradients = [torch.zeros_like(item) if item.grad is None else item.grad for item in parameters]
        total = self.ranks.sum(torch.cat([item.flatten() for item in gradients] + sums.vectors()))
        pieces = total.split([item.numel() for item in gradients] + [len(item) for item in sums.vectors()])
        sums.take_back(pieces[len(gradients) :])

        # Refuse to step with what is not finite.
        skipped = state.bad_steps[PHASES.index(phase)]
        if not bool(torch.isfinite(total).all()):
            if int(skipped) >= self.config.bad_steps:
                found = self._offenders(sums, parameters, pieces)
                raise NotFinite(found[0], phase, int(state.step), found)
            skipped += 1
            return {"skipped": Figure(total=1, count=1)}
        skipped.zero_()
        for parameter, piece in zip(parameters, pieces, strict=False):
            # As in the reference, a parameter that no loss reached has a gradient of zeros: Adam's momentum moves it.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.copy_(piece.view_as(parameter))
        optimiser.step()
        if sums.w_sum is not None:
            state.G.mapping.w_avg.copy_((sums.w_sum / sums.w_count).lerp(state.G.mapping.w_avg, W_AVG_DECAY))
        return sums.figures()

    @contextmanager
    def _only_training(self, parameters: list[nn.Parameter]) -> Iterator[None]:
        """Context manager that enables gradients of only these parameters, and of none afterwards."""
        for parameter in (*self.state.G.parameters(), *self.state.D.parameters()):
            parameter.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
        try:
            yield
        finally:
            for parameter in parameters:
                parameter.requires_grad_(False)

    def _draw(self, reals: Tensor, real_c: Tensor | None) -> Iterator[Micro]:
        """Draw this rank's micro-batches. Every rank draws for all, so that the random streams stay identical."""
        config, streams, device = self.config, self.state.streams, self.ranks.device
        size = config.batch_gpu
        # In float64, whose values do not hang on the CPU's instruction set.
        z = torch.randn(config.batch, config.z_dim, dtype=torch.float64, generator=streams["z"]).float()
        c = None
        if self.labels is not None:
            c = self.labels[torch.randint(len(self.labels), (config.batch,), generator=streams["label"])]
        seeds = {
            name: torch.randint(2**63 - 1, (self.micros,), generator=streams[name])
            for name in ("noise", "mixing", "augment")
        }
        for place, number in enumerate(self.own):
            rows, own = slice(number * size, (number + 1) * size), slice(place * size, (place + 1) * size)
            yield Micro(
                z=z[rows].to(device),
                c=None if c is None else c[rows].to(device),
                reals=to_unit(reals[own].to(device)),
                real_c=None if real_c is None else real_c[own].to(device),
                noise=torch.Generator(device).manual_seed(int(seeds["noise"][number])),
                mixing=torch.Generator().manual_seed(int(seeds["mixing"][number])),
                augment=torch.Generator().manual_seed(int(seeds["augment"][number])),
            )

    def _note_signs(self, figures: Figures) -> Figures:
        if self.state.ada is not None and "signs/real" in figures:
            self.state.ada.record(figures["signs/real"].total, figures["signs/real"].count)
        return figures

    def _offenders(self, sums: _BatchSums, parameters: list[nn.Parameter], pieces: tuple[Tensor, ...]) -> list[str]:
        """Names of non-finite tensors: weights first, then losses and statistics, then gradients."""
        networks = {"G": self.state.G, "D": self.state.D}
        named = {
            f"{network}.{name}": tensor
            for network, module in networks.items()
            for name, tensor in module.named_parameters()
        }
        names = {id(tensor): name for name, tensor in named.items()}
        found = [f"weight {name}" for name, tensor in named.items() if not bool(torch.isfinite(tensor).all())]
        found += [name for name, figure in sums.figures().items() if not math.isfinite(figure.total)]
        found += [
            f"gradient of {names[id(parameter)]}"
            for parameter, piece in zip(parameters, pieces, strict=False)
            if not bool(torch.isfinite(piece).all())
        ]
        return found or ["w"]


class _BatchSums:
    """Sums of micro-batch results, to be reduced over the ranks."""

    def __init__(self, micros: int) -> None:
        self.micros = micros
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.w_sum: Tensor | None = None
        self.w_count = 0
        self.seen = 0

    def add(self, outcome: Outcome) -> None:
        self.seen += 1
        for name, values in outcome.figures.items():
            values = values.detach().float()
            self.sums[name] = self.sums.get(name, torch.zeros([], device=values.device)) + values.sum()
            self.counts[name] = self.counts.get(name, 0) + values.numel()
        if outcome.w is not None:
            added = outcome.w.detach().sum(dim=0)
            self.w_sum = added if self.w_sum is None else self.w_sum + added
            self.w_count += len(outcome.w)

    def vectors(self) -> list[Tensor]:
        """Vectors to sum over the ranks, in the same order on each."""
        figures = torch.stack([self.sums[name] for name in sorted(self.sums)])
        return [figures] if self.w_sum is None else [figures, self.w_sum]

    def take_back(self, summed: tuple[Tensor, ...]) -> None:
        """Replace this rank's sums by those of all ranks, and scale its counts: ranks do equal amounts of work."""
        self.sums = dict(zip(sorted(self.sums), summed[0].cpu(), strict=True))
        ranks = self.micros // self.seen
        self.counts = {name: count * ranks for name, count in self.counts.items()}
        if self.w_sum is not None:
            self.w_sum = summed[1]
            self.w_count *= ranks

    def figures(self) -> Figures:
        return {name: Figure(total=float(self.sums[name]), count=self.counts[name]) for name in self.sums}


def _scores(kind: str, logits: Tensor) -> dict[str, Tensor]:
    return {f"scores/{kind}": logits, f"signs/{kind}": logits.sign()}
