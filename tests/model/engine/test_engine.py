"""An image depends on its sample alone: not on the batch, the neighbours, or the place among them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from rosacea_model import FaceSample, GeneratorConfig, MixedRows, Model, OutputNotFinite, load
from rosacea_model.engine import Engine
from rosacea_model.engine.runtimes.cuda import cuda_runtime
from rosacea_model.engine.runtimes.pytorch import plain_runtime, torch_runtime
from rosacea_model.files import weights
from rosacea_model.fresh import fresh_model
from rosacea_model.sample import latents, one_hot

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from rosacea_model.engine.runtimes.runtime import Runtime

SIZES: dict[str, Any] = {"z_dim": 16, "w_dim": 24, "img_resolution": 16}
THIN: dict[str, Any] = {"channel_base": 256, "channel_max": 16, "mapping_layers": 2}
CLASSES = 3
RUNTIMES: dict[str, Callable[[Model], Runtime]] = {
    "folded": torch_runtime,
    "plain in fours": lambda model: plain_runtime(model, 4),
    "arranged in fours": lambda model: cuda_runtime(model, 4),
}


def build(folder: Any, c_dim: int) -> Model:
    """A small untrained model whose noise shows."""
    config = GeneratorConfig(c_dim=c_dim, **SIZES, **THIN)
    file = fresh_model(folder, config, seed=1, name="small")
    tensors = weights.read(file)
    for key in tensors:
        if key.endswith("noise_strength"):
            tensors[key] = torch.full_like(tensors[key], 0.3)
    weights.save(folder, config, tensors, name="small")
    return load(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return build(tmp_path_factory.mktemp("small"), c_dim=0)


@pytest.fixture(scope="module")
def engine(model: Model) -> Engine:
    return Engine(model)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(build(tmp_path_factory.mktemp("classes"), c_dim=CLASSES))


def mixed_samples(config: GeneratorConfig) -> list[FaceSample]:
    """24 samples that differ in every setting."""
    rng = np.random.RandomState(0)
    samples = []
    for seed in range(24):
        sources: list[dict[str, Any]] = [
            {"seed": seed, "truncation_psi": 0.5},
            {"seed": seed, "mixes": (MixedRows(seed=seed + 50, first_row=2, end_row=4),)},
            {"z": rng.randn(config.z_dim).astype(np.float32), "truncation_psi": 0.7, "truncation_cutoff": 3},
            {"w": rng.randn(config.w_dim).astype(np.float32)},
            {"ws": rng.randn(config.num_ws, config.w_dim).astype(np.float32)},
        ]
        mapped = seed % 5 > 2
        label = one_hot(seed % config.c_dim, config.c_dim) if config.c_dim and not (mapped and seed % 2) else None
        noise: Any = ("const", "none", "random")[seed % 3]
        samples.append(FaceSample(noise_mode=noise, noise_seed=seed // 2, label=label, **sources[seed % 5]))
    return samples


def draw(engine: Engine, sample: FaceSample) -> NDArray[np.uint8]:
    image: NDArray[np.uint8] = engine.render([sample])[0]
    return image


@pytest.mark.parametrize("kind", ["engine", "conditional"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_image_does_not_depend_on_its_batch(kind: str, runtime: str, request: pytest.FixtureRequest) -> None:
    given: Engine = request.getfixturevalue(kind)
    engine = Engine(given.model, RUNTIMES[runtime](given.model))
    samples = mixed_samples(engine.config)
    alone = [draw(engine, sample) for sample in samples]

    # Every window of 1 to 8 samples, so that each stands at every position of every batch size.
    doubled = [*range(len(samples)), *range(8)]
    for size in range(1, 9):
        for start in range(len(samples)):
            chosen = doubled[start : start + size]
            images = engine.render([samples[index] for index in chosen])
            assert np.array_equal(images, [alone[index] for index in chosen]), (size, start)


def test_the_samples_of_the_batch_test_differ(engine: Engine) -> None:
    images = engine.render(mixed_samples(engine.config))

    assert len({image.tobytes() for image in images}) == len(images)


def test_no_samples_give_no_images(engine: Engine) -> None:
    assert engine.render([]).shape == (0, 16, 16, 3)
    assert engine.render_each([]) == []
    assert engine.ws([]).shape == (0, engine.config.num_ws, engine.config.w_dim)


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (FaceSample(), "exactly one of seed, z, w and ws, got none"),
        (FaceSample(seed=1, w=np.zeros(24, np.float32)), "got seed and w"),
        (FaceSample(seed=-1), r"seed must be from 0 to 2\*\*32 - 1, got -1"),
        (FaceSample(seed=2**32), "seed must be from"),
        (FaceSample(seed=1, noise_seed=2**32), "noise_seed must be from"),
        (FaceSample(z=np.zeros(15, np.float32)), r"z must have shape \[16\], got \[15\]"),
        (FaceSample(w=np.full(24, np.nan, np.float32)), "w must be finite"),
        (FaceSample(ws=np.zeros((1, 24), np.float32)), "ws must have shape"),
        (FaceSample(seed=1, truncation_psi=float("nan")), "truncation_psi must be finite"),
        (FaceSample(seed=1, truncation_cutoff=7), "truncation_cutoff must be from 0 to 6, got 7"),
        (FaceSample(w=np.zeros(24, np.float32), truncation_psi=0.5), "w is used as it is"),
        (FaceSample(seed=1, mixes=(MixedRows(seed=2, first_row=3, end_row=3),)), "within 0 to 6, got 3 to 3"),
        (FaceSample(seed=1, mixes=(MixedRows(seed=2, first_row=3, end_row=7),)), "within 0 to 6, got 3 to 7"),
        (FaceSample(seed=1, mixes=(MixedRows(seed=-2, first_row=0, end_row=1),)), "seed of a style mix must be"),
        (FaceSample(seed=1, label=np.zeros(3, np.float32)), "label must have shape"),
    ],
)
def test_a_bad_sample_fails_alone(engine: Engine, bad: FaceSample, complaint: str) -> None:
    good = [FaceSample(seed=3), FaceSample(seed=4, noise_mode="random")]

    outcomes: list[Any] = engine.render_each([good[0], bad, good[1]])

    assert isinstance(outcomes.pop(1), ValueError)
    assert np.array_equal(outcomes, [draw(engine, sample) for sample in good])
    with pytest.raises(ValueError, match=complaint):
        engine.render([good[0], bad, good[1]])


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_latent_that_gives_nan_fails_alone(
    engine: Engine, runtime: str, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(engine.model, RUNTIMES[runtime](engine.model))
    samples = [FaceSample(seed=3), FaceSample(seed=4)]
    samples.insert(place, FaceSample(ws=np.full((6, 24), 1e38, np.float32)))

    outcomes: list[Any] = engine.render_each(samples)

    assert isinstance(outcomes.pop(place), OutputNotFinite)
    assert np.array_equal(outcomes, [draw(engine, FaceSample(seed=3)), draw(engine, FaceSample(seed=4))])
    with pytest.raises(OutputNotFinite):
        engine.render(samples)


def test_random_noise_repeats_with_its_seed_and_differs_by_seed(engine: Engine) -> None:
    first, again, other = (
        draw(engine, FaceSample(seed=5, noise_mode="random", noise_seed=noise_seed)) for noise_seed in (1, 1, 2)
    )

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_random_noise_neither_uses_nor_moves_the_global_generators(engine: Engine) -> None:
    sample = FaceSample(seed=5, noise_mode="random", noise_seed=1)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]

    draw(engine, sample)

    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]


def test_a_w_is_ws_with_equal_rows(engine: Engine) -> None:
    w = np.random.RandomState(0).randn(24).astype(np.float32)

    assert np.array_equal(draw(engine, FaceSample(w=w)), draw(engine, FaceSample(ws=np.tile(w, (6, 1)))))


def test_a_z_is_its_seed(engine: Engine) -> None:
    assert np.array_equal(draw(engine, FaceSample(z=latents([7], 16)[0])), draw(engine, FaceSample(seed=7)))


def test_drawing_the_ws_of_a_sample_draws_the_sample(engine: Engine) -> None:
    sample = FaceSample(seed=7, truncation_psi=0.6, mixes=(MixedRows(seed=8, first_row=1, end_row=5),))

    ws = engine.ws([sample])[0].numpy()

    assert np.array_equal(draw(engine, FaceSample(ws=ws)), draw(engine, sample))


@pytest.mark.parametrize("kind", ["engine", "conditional"])
def test_the_ws_of_a_sample_do_not_depend_on_its_batch(kind: str, request: pytest.FixtureRequest) -> None:
    engine: Engine = request.getfixturevalue(kind)
    samples = mixed_samples(engine.config)

    together: list[Any] = engine.ws_each(samples)

    for sample, each in zip(samples, together, strict=True):
        alone: Any = engine.ws_each([sample])[0]
        assert np.array_equal(each, alone)
        assert np.array_equal(each, engine.ws([sample])[0].numpy())


def test_a_latent_that_cannot_be_mapped_fails_alone(engine: Engine) -> None:
    huge = np.full(engine.config.z_dim, 3e38, np.float32)

    samples = [FaceSample(seed=1), FaceSample(seed=-1), FaceSample(z=huge, truncation_psi=1e300), FaceSample(seed=1)]
    outcomes: list[Any] = engine.ws_each(samples)

    good, wrong, not_finite, also_good = outcomes
    assert isinstance(wrong, ValueError) and isinstance(not_finite, OutputNotFinite)
    assert np.array_equal(good, also_good)


def test_mixing_by_seed_is_mixing_ws_by_hand(engine: Engine) -> None:
    ws = engine.ws([FaceSample(seed=seed, truncation_psi=0.8) for seed in (1, 2, 3)]).numpy()
    by_hand = ws[0].copy()
    by_hand[1:4] = ws[1, 1:4]
    by_hand[3:6] = ws[2, 3:6]  # the later mix wins where both take a row

    mixes = (MixedRows(seed=2, first_row=1, end_row=4), MixedRows(seed=3, first_row=3, end_row=6))
    mixed = FaceSample(seed=1, truncation_psi=0.8, mixes=mixes)

    assert np.array_equal(engine.ws([mixed])[0].numpy(), by_hand)
    assert np.array_equal(draw(engine, mixed), draw(engine, FaceSample(ws=by_hand)))


def test_truncation_moves_the_first_rows_to_w_avg(engine: Engine) -> None:
    ws = engine.ws([FaceSample(seed=1, truncation_psi=0, truncation_cutoff=2), FaceSample(seed=1)]).numpy()

    assert np.array_equal(ws[0, :2], np.tile(engine.model.w_avg.numpy(), (2, 1)))
    assert np.array_equal(ws[0, 2:], ws[1, 2:])


def test_the_label_picks_the_class(conditional: Engine) -> None:
    samples = [FaceSample(seed=1, label=one_hot(index, CLASSES)) for index in range(CLASSES)]
    zero = FaceSample(seed=1, label=np.zeros(CLASSES, np.float32))

    images = conditional.render([*samples, zero])

    assert len({image.tobytes() for image in images}) == CLASSES + 1


def test_a_conditional_model_is_asked_for_a_class(conditional: Engine) -> None:
    rule = "the model is conditional: label must be a class from 0 to 2, or 3 weights"
    with pytest.raises(ValueError, match=rule):
        conditional.render([FaceSample(seed=1)])
    with pytest.raises(ValueError, match=rule):
        conditional.model.map(latents([1], 16))

    w = conditional.ws([FaceSample(seed=1, label=one_hot(1, CLASSES))])[0, 0]
    assert len(conditional.render([FaceSample(w=w.numpy())])) == 1, "the label is in w"


def test_a_mix_has_the_label_of_its_sample(conditional: Engine) -> None:
    label = one_hot(2, CLASSES)
    mixed = FaceSample(seed=1, label=label, mixes=(MixedRows(seed=9, first_row=0, end_row=6),))

    assert np.array_equal(draw(conditional, mixed), draw(conditional, FaceSample(seed=9, label=label)))


def test_a_class_index_is_its_one_hot_vector(conditional: Engine) -> None:
    z = latents([1, 2], 16)

    by_index = conditional.model.map(z, 1)

    assert torch.equal(by_index, conditional.model.map(z, one_hot(1, CLASSES)))
    assert torch.equal(by_index, conditional.model.map(z, np.tile(one_hot(1, CLASSES), (2, 1))))


@pytest.mark.parametrize(
    ("z", "label", "complaint"),
    [
        (np.zeros(16), None, r"z must have shape \[N, 16\], got \[16\]"),
        (np.zeros((2, 15)), None, r"z must have shape \[N, 16\], got \[2, 15\]"),
        (np.zeros((2, 16)), 0, "label must be None: the model is unconditional"),
    ],
)
def test_map_refuses_wrong_shapes(model: Model, z: Any, label: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        model.map(z, label)


@pytest.mark.parametrize(
    ("label", "complaint"),
    [
        (CLASSES, "class index must be from 0 to 2, got 3"),
        (np.zeros(2), r"label must have shape \[3\] or \[2, 3\], got \[2\]"),
        (np.zeros((1, 3)), r"label must have shape \[3\] or \[2, 3\], got \[1, 3\]"),
    ],
)
def test_map_refuses_wrong_labels(conditional: Engine, label: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        conditional.model.map(np.zeros((2, 16)), label)


def test_synthesize_refuses_wrong_shapes_and_noise_modes(model: Model) -> None:
    with pytest.raises(ValueError, match=r"ws must have shape \[N, 6, 24\], got \[1, 5, 24\]"):
        model.synthesize(np.zeros((1, 5, 24)))
    with pytest.raises(ValueError, match="noise_mode must be const, none or random, got 'loud'"):
        model.synthesize(np.zeros((1, 6, 24)), "loud")  # type: ignore[arg-type]


def test_a_fresh_model_is_a_function_of_its_seed(tmp_path: Any) -> None:
    config = GeneratorConfig(**SIZES, **THIN)
    state = torch.get_rng_state()

    first, again, other = (
        fresh_model(tmp_path / folder, config, seed=seed, name="x").digest
        for folder, seed in [("first", 1), ("again", 1), ("other", 2)]
    )

    assert first == again != other
    assert torch.equal(torch.get_rng_state(), state)


def test_a_fresh_model_has_the_mean_of_its_latents_as_w_avg(model: Model) -> None:
    w = model.map(latents(range(1000), 16))[:, 0]

    assert model.w_avg.abs().max() > 0
    torch.testing.assert_close(model.w_avg, w.mean(dim=0), rtol=0, atol=1e-5)


def test_the_mapping_network_is_timed_as_a_part_of_drawing(engine: Engine) -> None:
    began = time.perf_counter()
    engine.render([FaceSample(seed=1), FaceSample(seed=2)])
    whole = time.perf_counter() - began

    assert 0 < engine.mapping_seconds < whole


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_engine_draws_the_same_without_the_networks_that_its_runtime_was_made_of(
    runtime: str, tmp_path: Any
) -> None:
    model = build(tmp_path, c_dim=CLASSES)
    engine = Engine(model, RUNTIMES[runtime](model))
    samples = mixed_samples(engine.config)
    before, ws = engine.render(samples), np.array(engine.ws_each(samples))
    engine.free_networks()

    assert np.array_equal(engine.render(samples), before)
    assert np.array_equal(np.array(engine.ws_each(samples)), ws)
    if engine.runtime.copies_weights:
        assert all(parameter.numel() == 0 for parameter in model.generator.parameters())
