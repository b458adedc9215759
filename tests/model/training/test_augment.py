"""The augmentation pipe gives the reference's numbers, and is random, differentiable and cheap where it should be."""

from __future__ import annotations

import io
import math
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor

from rosacea_model.importers.unpickler import SNAPSHOT_READERS, interpret
from rosacea_model.training.augment import AUGMENT_SETS, AugmentConfig, AugmentPipe, RandomDraws
from rosacea_model.training.augment.corruption import NOISE
from rosacea_model.training.augment.filters import SYM2, SYM6, amplify_bands, filter_bank
from rosacea_model.training.augment.geometry import margins, rotation, scaling, translation, warp

if TYPE_CHECKING:
    from pathlib import Path

SETS = ("unconditional", "conditional")
TRANSFORMS = tuple(asdict(AugmentConfig()))
EVERYTHING = AUGMENT_SETS["bgcfnc"]
CASES = {
    **{name: AugmentConfig(**{name: 1.0}) for name in TRANSFORMS if name != "noise"},
    "bgc": AUGMENT_SETS["bgc"],
    "bgcfc": replace(EVERYTHING, noise=0),
}
TOLERANCE = 1e-5

# The table of the reference's options: each letter adds a group to the ones before it.
BLIT = {"xflip", "rotate90", "xint"}
GEOM = {"scale", "rotate", "aniso", "xfrac"}
COLOR = {"brightness", "contrast", "lumaflip", "hue", "saturation"}
MEMBERS = {
    "blit": BLIT,
    "geom": GEOM,
    "color": COLOR,
    "filter": {"imgfilter"},
    "noise": {"noise"},
    "cutout": {"cutout"},
    "bg": BLIT | GEOM,
    "bgc": BLIT | GEOM | COLOR,
    "bgcf": BLIT | GEOM | COLOR | {"imgfilter"},
    "bgcfn": BLIT | GEOM | COLOR | {"imgfilter", "noise"},
    "bgcfnc": BLIT | GEOM | COLOR | {"imgfilter", "noise", "cutout"},
}


class FixedDraws:
    """Every draw at percentile q; of the two rotations, only the first turns."""

    def __init__(self, q: float) -> None:
        self.q = torch.tensor(q)

    def uniform(self, name: str, *shape: int) -> Tensor:
        return torch.full(shape, 0.5) if name == "rotate after" else self.q.expand(shape)

    def normal(self, name: str, *shape: int) -> Tensor:
        return torch.erfinv(2 * self.q - 1).expand(shape)


class CountedDraws(RandomDraws):
    """Random draws that remember their names."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__(generator)
        self.names: list[str] = []

    def uniform(self, name: str, *shape: int) -> Tensor:
        self.names.append(name)
        return super().uniform(name, *shape)

    def normal(self, name: str, *shape: int) -> Tensor:
        self.names.append(name)
        return super().normal(name, *shape)


def seeded(seed: int = 0) -> RandomDraws:
    return RandomDraws(torch.Generator().manual_seed(seed))


def some_images(batch: int = 4, channels: int = 3, height: int = 16, width: int = 16, seed: int = 1) -> Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))


def only(name: str) -> AugmentConfig:
    return AugmentConfig(**{name: 1.0})


@pytest.mark.parametrize("transform", CASES)
@pytest.mark.parametrize("folder", SETS)
def test_the_reference_gives_the_same_numbers(golden: Path, folder: str, transform: str) -> None:
    with np.load(golden / folder / "augment_outputs.npz") as arrays:
        images = torch.from_numpy(arrays["input"])
        wanted = {name: arrays[name] for name in arrays.files if name.startswith(f"{transform}@")}
    assert wanted

    for name, want in wanted.items():
        got = AugmentPipe(CASES[transform], p=1)(images, FixedDraws(float(name.partition("@")[2])))

        np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("folder", SETS)
def test_no_reference_number_is_left_out(golden: Path, folder: str) -> None:
    with np.load(golden / folder / "augment_outputs.npz") as arrays:
        assert {name.partition("@")[0] for name in arrays.files} == {"input", *CASES}


@pytest.mark.parametrize("folder", SETS)
def test_a_snapshot_holds_the_same_filters(golden: Path, folder: str) -> None:
    data = (golden / folder / "network-snapshot-000000.pkl").read_bytes()
    snapshot = interpret(io.BytesIO(data), SNAPSHOT_READERS)
    assert isinstance(snapshot, dict)
    buffers = snapshot["augment_pipe"].state["_buffers"]
    pipe = AugmentPipe(EVERYTHING)

    np.testing.assert_allclose(pipe.taps.numpy(), buffers["Hz_geom"].array(), rtol=0, atol=1e-7)
    np.testing.assert_allclose(pipe.bank.numpy(), buffers["Hz_fbank"].array(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("taps", [SYM2, SYM6], ids=["sym2", "sym6"])
def test_wavelet_filters_are_orthonormal_and_low_pass(taps: tuple[float, ...]) -> None:
    array = np.array(taps)

    overlaps = [array[2 * shift :] @ array[: len(array) - 2 * shift] for shift in range(len(array) // 2)]

    np.testing.assert_allclose(overlaps, [1] + [0] * (len(overlaps) - 1), atol=1e-9)
    assert array.sum() == pytest.approx(math.sqrt(2), abs=1e-9)


def test_the_bands_add_up_to_the_image() -> None:
    bank = filter_bank()
    delta = torch.zeros(43)
    delta[21] = 1
    images = some_images(height=32, width=32)

    torch.testing.assert_close(bank.sum(dim=0), delta, rtol=0, atol=1e-7)
    torch.testing.assert_close(amplify_bands(images, torch.ones(4, 4), bank), images, rtol=0, atol=1e-6)


def test_the_sets_are_those_of_the_reference() -> None:
    members = {
        name: {transform for transform, multiplier in asdict(config).items() if multiplier == 1}
        for name, config in AUGMENT_SETS.items()
    }

    assert members == MEMBERS
    assert {value for config in AUGMENT_SETS.values() for value in asdict(config).values()} == {0.0, 1.0}


@pytest.mark.parametrize("multiplier", [-0.1, math.inf, math.nan])
def test_a_multiplier_that_is_no_multiplier_is_refused(multiplier: float) -> None:
    with pytest.raises(ValueError, match="hue must be a finite multiplier of at least 0"):
        AugmentConfig(hue=multiplier)


def test_at_p_0_images_come_back_untouched_and_nothing_is_drawn() -> None:
    images = some_images()
    draws = CountedDraws(torch.Generator())

    assert AugmentPipe(EVERYTHING)(images, draws) is images
    assert draws.names == []


@pytest.mark.parametrize("p", [1.0, 7.0])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_at_p_1_and_above_every_sample_is_transformed(transform: str, p: float) -> None:
    # What falls on every sample may still leave it as it was: no flip, no quarter turn, a shift by no pixel at all.
    chance = {"xflip": 1 / 2, "lumaflip": 1 / 2, "rotate90": 3 / 4, "xint": 15 / 16}.get(transform, 1.0)
    images = some_images(batch=400)
    neutral = AugmentPipe(replace(only(transform), **{transform: 1e-30}), p=1)(images, seeded())

    changes = (AugmentPipe(only(transform), p)(images, seeded(3)) - neutral).abs().amax(dim=(1, 2, 3)) > 1e-4

    slack = 4 * math.sqrt(chance * (1 - chance) / len(images))
    assert changes.float().mean() == pytest.approx(chance, abs=slack + 0.005)


@pytest.mark.parametrize("transform", ["scale", "brightness", "saturation", "imgfilter", "noise", "cutout", "rotate"])
def test_a_transform_falls_on_samples_at_its_rate(transform: str) -> None:
    p, multiplier = 0.6, 0.5
    images = some_images(batch=1000)
    # Two rotations or four bands: rotation is balanced so that the rate is p, bands are drawn one by one.
    expected = {"imgfilter": 1 - (1 - p * multiplier) ** 4}.get(transform, p * multiplier)
    neutral = AugmentPipe(AugmentConfig(**{transform: 1e-30}), p=1)(images, seeded())

    pipe = AugmentPipe(AugmentConfig(**{transform: multiplier}), p)
    changes = (pipe(images, seeded(5)) - neutral).abs().amax(dim=(1, 2, 3)) > 1e-4

    assert changes.float().mean() == pytest.approx(expected, abs=4 * math.sqrt(0.25 / len(images)))


def test_half_of_the_chosen_samples_are_flipped() -> None:
    ramp = torch.linspace(-1, 1, 8).expand(4000, 1, 8, 8)

    shown = AugmentPipe(only("xflip"), p=0.4)(ramp, seeded())

    flipped = shown[:, 0, 4, 1] > shown[:, 0, 4, 6]
    assert flipped.float().mean() == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 4000))


def test_samples_are_drawn_independently() -> None:
    same = some_images(batch=1).expand(8, -1, -1, -1)

    shown = AugmentPipe(EVERYTHING, p=1)(same, seeded())

    distances = torch.cdist(shown.flatten(1), shown.flatten(1)) + torch.eye(8)
    assert distances.min() > 0.1


def test_the_same_generator_state_gives_the_same_images_and_the_next_one_others() -> None:
    images = some_images()
    generator = torch.Generator().manual_seed(7)
    pipe, draws = AugmentPipe(EVERYTHING, p=0.8), RandomDraws(generator)
    state = generator.get_state()
    first, second = pipe(images, draws), pipe(images, draws)

    torch.manual_seed(99)
    generator.set_state(state)

    assert torch.equal(pipe(images, draws), first)
    assert torch.equal(pipe(images, draws), second)
    assert not torch.equal(first, second)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()

    AugmentPipe(EVERYTHING, p=0.8)(some_images(), seeded())

    assert torch.equal(torch.get_rng_state(), before)


def test_a_warped_image_does_not_depend_on_its_batch() -> None:
    images = some_images(batch=2, height=24, width=32)
    matrices = torch.cat([rotation(torch.tensor([0.3])), scaling(torch.tensor([1.4]), torch.tensor([1.5]))])
    taps = AugmentPipe(EVERYTHING).taps
    assert margins(matrices, 24, 32) != margins(matrices[:1], 24, 32)

    together, alone = warp(images, matrices, taps)[:1], warp(images[:1], matrices[:1], taps)

    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


def test_whole_pixels_are_shifted_with_reflection() -> None:
    images = some_images(batch=1, height=24, width=24).cumsum(dim=3) / 5  # smooth along x
    matrices = translation(torch.tensor([-3.0]), torch.tensor([0.0]))

    shown = warp(images, matrices, AugmentPipe(EVERYTHING).taps)

    still = warp(images, torch.eye(3)[None], AugmentPipe(EVERYTHING).taps)
    torch.testing.assert_close(shown[..., 3:], still[..., :-3], rtol=0, atol=1e-5)
    torch.testing.assert_close(shown[..., :3], still[..., 1:4].flip(-1), rtol=0, atol=0.5)


def test_pictures_need_not_be_square() -> None:
    images = some_images(height=12, width=20)

    shown = AugmentPipe(EVERYTHING, p=1)(images, seeded())

    assert shown.shape == images.shape
    assert torch.isfinite(shown).all()


@pytest.mark.parametrize("size", [4, 8])
def test_images_smaller_than_the_filters_are_augmented(size: int) -> None:
    shown = AugmentPipe(EVERYTHING, p=1)(some_images(height=size, width=size), seeded())

    assert torch.isfinite(shown).all()


def test_grey_images_are_augmented_as_grey_colours_are() -> None:
    grey = some_images(channels=1)
    config = replace(AUGMENT_SETS["bgcf"], hue=0, saturation=0)

    alone = AugmentPipe(config, p=0.7)(grey, FixedDraws(0.4))
    as_colour = AugmentPipe(config, p=0.7)(grey.expand(-1, 3, -1, -1), FixedDraws(0.4))

    assert alone.shape == grey.shape
    torch.testing.assert_close(alone.expand(-1, 3, -1, -1), as_colour, rtol=0, atol=1e-5)


def test_grey_images_have_no_hue_or_saturation() -> None:
    draws = CountedDraws(torch.Generator())

    shown = AugmentPipe(replace(only("hue"), saturation=1), p=1)(some_images(channels=1), draws)

    torch.testing.assert_close(shown, some_images(channels=1))
    assert not {"hue", "saturation"} & set(draws.names)


@pytest.mark.parametrize("p", [0.0, 0.5])
@pytest.mark.parametrize("channels", [2, 4])
def test_other_channel_counts_are_refused(channels: int, p: float) -> None:
    with pytest.raises(ValueError, match=f"images of 1 or 3 channels, got {channels}"):
        AugmentPipe(AUGMENT_SETS["bgc"], p)(some_images(channels=channels), seeded())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_as_it_came_and_is_computed_in_float32(dtype: torch.dtype) -> None:
    images = some_images().to(dtype)
    pipe = AugmentPipe(EVERYTHING, p=0.8)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        shown = pipe(images, seeded())

    assert shown.dtype == dtype
    assert torch.equal(shown, pipe(images.float(), seeded()).to(dtype))


@pytest.mark.parametrize("name", ["bgc", "bgcfnc"])
def test_gradients_and_their_gradients_are_right(name: str) -> None:
    images = some_images(batch=2, channels=3, height=6, width=6).double().requires_grad_()
    pipe = AugmentPipe(AUGMENT_SETS[name], p=0.7)

    def shown(images: Tensor) -> Tensor:
        bent: Tensor = pipe(images, seeded(2)).sin()  # so that the second derivative is not zero
        return bent

    assert torch.autograd.gradcheck(shown, images)
    assert torch.autograd.gradgradcheck(shown, images, fast_mode=True)  # along a random direction


def test_noise_has_a_random_strength() -> None:
    shown = AugmentPipe(only("noise"), p=1)(torch.zeros(2000, 1, 16, 16), seeded())

    strengths = shown.std(dim=(1, 2, 3))
    assert strengths.mean() == pytest.approx(NOISE * math.sqrt(2 / math.pi), rel=0.05)  # mean of |N(0, 1)|
    assert strengths.square().mean().sqrt() == pytest.approx(NOISE, rel=0.05)


def test_only_p_is_saved() -> None:
    assert list(AugmentPipe(EVERYTHING, p=0.25).state_dict()) == ["p"]
