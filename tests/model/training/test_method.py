"""Each paragraph of the method happens, to the right images, with the right labels and weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from rosacea_model.training.distributed import Ranks
from rosacea_model.training.feed import RankShare, feed, to_unit
from rosacea_model.training.state import TrainState
from rosacea_model.training.step import Micro, Passes

from .runs import Squares, smoke
from .runs import one_thread as one_thread  # for every test here

if TYPE_CHECKING:
    from torch import Tensor

    from rosacea_model.training.config import TrainConfig

BATCH = 4
SHIFT = 10.0


def reals() -> Tensor:
    return torch.from_numpy(Squares().images[:BATCH])


def passes_of(config: TrainConfig, labels: Tensor | None = None) -> Passes:
    return Passes(TrainState(config), Ranks(), labels)


def first_micro(passes: Passes, real_c: Tensor | None = None) -> Micro:
    return next(iter(passes._draw(reals(), real_c)))


class Seen:
    """What the discriminator is shown."""

    def __init__(self, passes: Passes) -> None:
        self.images: list[Tensor] = []
        self.labels: list[Tensor | None] = []
        passes.state.D.register_forward_pre_hook(self._note)

    def _note(self, module: object, inputs: tuple[Any, ...]) -> None:
        self.images.append(inputs[0].detach().clone())
        self.labels.append(inputs[1])


def test_styles_of_two_latents_are_mixed_in_fakes_as_often_as_stated() -> None:
    def mixed(probability: float) -> int:
        passes = passes_of(smoke(1, style_mixing=probability))
        _, ws, w = passes._fakes(first_micro(passes))
        assert torch.equal(ws[:, 0], w), "the first layers are those of the image's own latent"
        return int((ws != w[:, None]).any(dim=(1, 2)).sum())

    assert mixed(0) == 0
    assert mixed(1) == BATCH


def test_r1_weighs_half_of_gamma() -> None:
    passes = passes_of(smoke(1, gamma=3, aug="noaug"))

    outcome = passes._r1(first_micro(passes))

    assert float(outcome.loss.detach()) == pytest.approx(1.5 * float(outcome.figures["r1_penalty"].detach().mean()))
    assert float(outcome.loss.detach()) > 0


@pytest.mark.parametrize(("name", "shown"), [("generator", 1), ("discriminator", 2), ("r1", 1)])
def test_the_discriminator_sees_no_image_that_was_not_augmented(name: str, shown: int) -> None:
    passes = passes_of(smoke(1))
    passes.state.pipe = lambda images, draws: images + SHIFT  # type: ignore[assignment]
    seen = Seen(passes)

    getattr(passes, name)(reals(), None)

    assert len(seen.images) == shown
    assert all(float(images.mean()) > SHIFT / 2 for images in seen.images)
    if name != "generator":
        torch.testing.assert_close(seen.images[-1], to_unit(reals()) + SHIFT)


def test_the_mean_path_length_moves_by_its_decay_towards_the_lengths_of_the_batch() -> None:
    passes = passes_of(smoke(1, pl_decay=0.25))

    lengths = passes.path_length(reals(), None)["path_length"].mean

    assert lengths > 0
    assert float(passes.state.pl_mean) == pytest.approx(0.25 * lengths)


@pytest.mark.parametrize(("shrink", "count"), [(1, 4), (2, 2), (8, 1)])
def test_path_lengths_are_of_a_part_of_the_batch(shrink: int, count: int) -> None:
    passes = passes_of(smoke(1, pl_batch_shrink=shrink))

    assert passes.path_length(reals(), None)["path_length"].count == count


@pytest.mark.parametrize("name", ["discriminator", "r1"])
def test_the_signs_of_every_real_that_the_discriminator_judges_steer_the_augmentation(name: str) -> None:
    passes = passes_of(smoke(1))
    ada = passes.state.ada
    assert ada is not None

    figures = getattr(passes, name)(reals(), None)

    assert float(ada.sign_count) == BATCH
    assert float(ada.sign_sum) == figures["signs/real"].total


def test_labels_of_fakes_are_drawn_from_those_of_the_whole_set() -> None:
    labels = torch.eye(7)
    passes = passes_of(smoke(1, label_width=7), labels)

    drawn = [first_micro(passes, labels[:BATCH]).c for _ in range(50)]

    numbers = torch.cat([c.argmax(dim=1) for c in drawn if c is not None])
    assert len(numbers) == 50 * BATCH
    assert numbers.unique().tolist() == list(range(7))
    assert int(numbers.bincount().min()) > 10


def test_real_images_meet_the_discriminator_with_their_own_labels_and_fakes_with_those_drawn_for_them() -> None:
    images = Squares(classes=2)
    config = smoke(1, label_width=2, batch_gpu=2, mbstd_group=2, aug="noaug", style_mixing=0)
    passes = passes_of(config, torch.linspace(0.1, 0.9, 100).view(50, 2))
    shown, real_c = next(feed(images, seed=0, mirror=False, share=RankShare(batch=BATCH), position=0))
    own = {to_unit(torch.from_numpy(images[index][0])).numpy().tobytes(): images.label(index) for index in range(12)}
    made: list[Tensor | None] = []
    passes.state.G.mapping.register_forward_pre_hook(lambda module, inputs: made.append(inputs[1]))
    seen = Seen(passes)

    passes.discriminator(shown, real_c)

    met = [
        (own.get(image.numpy().tobytes()), label)
        for images, labels in zip(seen.images, seen.labels, strict=True)
        if labels is not None
        for image, label in zip(images, labels, strict=True)
    ]
    of_reals = [(wanted, label) for wanted, label in met if wanted is not None]
    assert len(of_reals) == BATCH
    assert all((label.numpy() == wanted).all() for wanted, label in of_reals)
    of_fakes = [label.tolist() for wanted, label in met if wanted is None]
    assert of_fakes == [label.tolist() for labels in made if labels is not None for label in labels]


def test_rates_are_corrected_for_extra_steps_only_where_there_are_any() -> None:
    with_none = TrainState(smoke(1, gamma=0, pl_weight=0))
    with_both = TrainState(smoke(1))

    for optimiser in (with_none.G_opt, with_none.D_opt):
        (group,) = optimiser.param_groups
        assert (group["lr"], group["betas"]) == (0.0025, (0.0, 0.99))
    for optimiser in (with_both.G_opt, with_both.D_opt):
        assert optimiser.param_groups[0]["lr"] < 0.0025
