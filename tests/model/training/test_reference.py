"""Steps are those of the reference, written here a second time: which gradients there are, and what Adam does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from rosacea_model.training import loss
from rosacea_model.training.distributed import Ranks
from rosacea_model.training.state import TrainState
from rosacea_model.training.step import Micro, Passes

from .runs import Squares, smoke
from .runs import one_thread as one_thread  # for every test here

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rosacea_model.training.config import TrainConfig

STEPS = 40
REALS = torch.from_numpy(Squares().images[:4])


class PlainAdam:
    """Adam as its paper has it (Kingma and Ba 2015, algorithm 1), corrected for one extra step in `interval`."""

    def __init__(self, network: nn.Module, rate: float, interval: int, config: TrainConfig) -> None:
        share = interval / (interval + 1)
        self.parameters = list(network.parameters())
        self.rate, self.beta1, self.beta2 = rate * share, config.beta1**share, config.beta2**share
        self.eps, self.count = config.adam_eps, 0
        self.means = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in self.parameters]

    @torch.no_grad()
    def step(self, gradients: list[Tensor]) -> None:
        self.count += 1
        for parameter, gradient, mean, square in zip(self.parameters, gradients, self.means, self.squares, strict=True):
            mean.lerp_(gradient, 1 - self.beta1)
            square.lerp_(gradient.square(), 1 - self.beta2)
            corrected = (square / (1 - self.beta2**self.count)).sqrt() + self.eps
            parameter.sub_(self.rate * mean / (1 - self.beta1**self.count) / corrected)


class PlainRule:
    """The reference's iteration: one micro batch, no augmentation, every gradient of a network, zeros included."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.draws = Passes(TrainState(config), Ranks())  # for latents and noise, and the fakes of them
        self.G, self.D = self.draws.state.G, self.draws.state.D
        self.G_opt = PlainAdam(self.G, config.glr, config.pl_interval, config)
        self.D_opt = PlainAdam(self.D, config.dlr, config.r1_interval, config)
        self.pl_mean = torch.zeros([])
        self.penalties: list[float] = []

    def iteration(self, number: int) -> None:
        config = self.config
        self.apply(self.G_opt, loss.generator_loss(self.D(self.fakes()[0], None)))
        if number % config.pl_interval == 0:
            self.apply(self.G_opt, self.path_length() * config.pl_weight * config.pl_interval)
        micro = self.draw()
        real, fake = self.D(micro.reals, None), self.D(self.draws._fakes(micro)[0].detach(), None)
        self.apply(self.D_opt, loss.fake_loss(fake) + loss.real_loss(real))
        if number % config.r1_interval == 0:
            reals = self.draw().reals.requires_grad_()
            penalty = loss.r1_penalty(self.D(reals, None), reals).mean()
            self.apply(self.D_opt, penalty * config.gamma / 2 * config.r1_interval)

    def path_length(self) -> Tensor:
        micro = self.draw()
        images, ws, _ = self.draws._fakes(micro, len(micro.z) // self.config.pl_batch_shrink)
        lengths = loss.path_lengths(images, ws, loss.path_noise(images, micro.noise))
        moved = self.pl_mean + self.config.pl_decay * (lengths.mean() - self.pl_mean)
        self.pl_mean = moved.detach()
        penalty = (lengths - moved).square().mean()
        self.penalties.append(float(penalty.detach()))
        return penalty

    def fakes(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.draws._fakes(self.draw())

    def draw(self) -> Micro:
        (micro,) = self.draws._draw(REALS, None)
        return micro

    def apply(self, optimiser: PlainAdam, value: Tensor) -> None:
        reached = torch.autograd.grad(value, optimiser.parameters, allow_unused=True)
        given = zip(reached, optimiser.parameters, strict=True)
        optimiser.step([torch.zeros_like(each) if gradient is None else gradient for gradient, each in given])


def config_here() -> TrainConfig:
    return smoke(STEPS, aug="noaug", style_mixing=0, beta1=0.5)


def iterate(passes: Passes, number: int) -> float | None:
    """One iteration of ours; the path length penalty where there was one."""
    config, penalty = passes.config, None
    passes.generator(REALS, None)
    if number % config.pl_interval == 0:
        penalty = passes.path_length(REALS, None)["path_penalty"].mean
    passes.discriminator(REALS, None)
    if number % config.r1_interval == 0:
        passes.r1(REALS, None)
    passes.state.step += 1
    return penalty


def test_the_first_path_length_penalty_is_that_of_a_mean_that_has_moved() -> None:
    rule, ours = PlainRule(config_here()), Passes(TrainState(config_here()), Ranks())

    rule.iteration(0)
    penalty = iterate(ours, 0)

    assert penalty == pytest.approx(rule.penalties[0], rel=1e-5)
    assert float(ours.state.pl_mean) == pytest.approx(float(rule.pl_mean), rel=1e-5)


@pytest.mark.slow
def test_after_forty_iterations_from_equal_weights_every_weight_is_where_the_rule_has_it() -> None:
    rule, ours = PlainRule(config_here()), Passes(TrainState(config_here()), Ranks())
    begin = {name: value.clone() for name, value in named(ours).items()}

    for number in range(STEPS):
        rule.iteration(number)
        iterate(ours, number)

    found, wanted = named(ours), named(rule.draws)
    apart = {
        name: float((found[name] - wanted[name]).norm() / ((wanted[name] - begin[name]).norm() + 1e-12))
        for name in found
    }
    reached_now_and_then = [value for name, value in apart.items() if name.endswith(("torgb.bias", "out.bias"))]
    assert len(reached_now_and_then) == 4, "of three blocks of G, and D's last"
    assert max(reached_now_and_then) <= max(apart.values()) < 1e-3, apart


def named(passes: Passes) -> dict[str, Tensor]:
    networks = {"G": passes.state.G, "D": passes.state.D}
    return {
        f"{network}.{name}": parameter.detach()
        for network, module in networks.items()
        for name, parameter in module.named_parameters()
    }
