"""The form for a GPU computes what the networks compute; here on a CPU, where its arithmetic can be seen in float32."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from rosacea_model import FaceSample
from rosacea_model.engine import Engine
from rosacea_model.engine.runtimes import cuda
from rosacea_model.engine.runtimes.arranged import ArrangedSynthesis
from rosacea_model.engine.runtimes.cuda import compiled, cuda_runtime, example
from rosacea_model.engine.runtimes.pytorch import plain_runtime, torch_runtime
from rosacea_model.engine.runtimes.recorded import RecordedSynthesis

from .cases import CONFIGS, build
from .test_graphs import model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rosacea_model.engine.runtimes.runtime import Synthesize
    from rosacea_model.networks.generator import Generator

BATCH = 8
TOLERANCE = 2e-5  # of the images' range
HALF_TOLERANCE = 1e-2  # some steps of float16, 1e-3 of a value, for each of its layers


def inputs(generator: Generator, batch: int = BATCH) -> tuple[torch.Tensor, list[torch.Tensor]]:
    config = generator.config
    ws = torch.randn(batch, config.num_ws, config.w_dim)
    return ws, [torch.randn(batch, 1, *shape) for shape in generator.synthesis.noise_shapes()]


def record(run: Callable[[], None]) -> Callable[[], None]:
    """As a CUDA graph does: what runs again sees the same memory."""
    run()
    return run


def refuse(run: Callable[[], None]) -> Callable[[], None]:
    raise RuntimeError("operation not permitted when stream is capturing")


@pytest.mark.parametrize("compiler", [None, lambda function: function], ids=["eager", "to be compiled"])
@pytest.mark.parametrize("kind", CONFIGS)
@torch.inference_mode()
def test_the_arranged_networks_draw_what_the_network_draws(kind: str, compiler: Any) -> None:
    generator = build(**CONFIGS[kind])
    arranged = ArrangedSynthesis(generator.synthesis, torch.float32, compiler)

    for _ in range(2):
        ws, noises = inputs(generator)
        want = generator.synthesis(ws, noises)
        torch.testing.assert_close(arranged(ws, noises), want, rtol=0, atol=TOLERANCE * float(want.abs().max()))


@pytest.mark.parametrize("kind", ["skip", "bounded resnet", "orig", "wide"])
@torch.inference_mode()
def test_float16_is_near_float32(kind: str) -> None:
    generator = build(**CONFIGS[kind])
    ws, noises = inputs(generator)
    want = generator.synthesis(ws, noises)

    got = ArrangedSynthesis(generator.synthesis, torch.float16)(ws, noises)

    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=0, atol=HALF_TOLERANCE * float(want.abs().max()))
    assert not torch.equal(got, want)


@torch.inference_mode()
def test_styles_and_weights_beyond_float16_do_not_overflow() -> None:
    generator = build(**CONFIGS["skip"])
    ws, noises = inputs(generator)
    for layer in generator.synthesis.b32.layers:  # type: ignore[union-attr]
        layer.weight.mul_(1e5)
        layer.affine.weight.mul_(1e5)
        layer.affine.bias.mul_(1e5)
    want = generator.synthesis(ws, noises)

    got = ArrangedSynthesis(generator.synthesis, torch.float16)(ws, noises)

    torch.testing.assert_close(got, want, rtol=0, atol=HALF_TOLERANCE * float(want.abs().max()))


@torch.inference_mode()
def test_the_blocks_of_the_configuration_are_float16_and_channels_last_and_no_others() -> None:
    generator = build(img_resolution=64, num_fp16_res=2)
    blocks = ArrangedSynthesis(generator.synthesis).blocks

    weights = [block.conv1.weight for block in blocks]
    assert [weight.dtype == torch.float16 for weight in weights] == [False, False, False, True, True]
    for weight in weights:
        assert weight.is_contiguous(memory_format=torch.channels_last) is (weight.dtype == torch.float16)


@torch.inference_mode()
def test_an_image_that_is_not_finite_leaves_its_neighbours_alone() -> None:
    generator = build(**CONFIGS["skip"])
    arranged = ArrangedSynthesis(generator.synthesis, torch.float16)
    ws, noises = inputs(generator)
    want = arranged(ws, noises)
    ws[3] = 1e38

    got = arranged(ws, noises)

    others = [place for place in range(BATCH) if place != 3]
    assert not got[3].isfinite().all()
    assert torch.equal(got[others], want[others])


@pytest.mark.parametrize("records", [False, True])
def test_an_image_depends_neither_on_its_neighbours_nor_on_its_place(records: bool) -> None:
    drawn = model("skip")
    engine = Engine(drawn, cuda_runtime(drawn, 4, records=records, record=record))
    samples = [FaceSample(seed=seed, noise_mode="random", noise_seed=seed) for seed in range(9)]
    alone = [engine.render([sample])[0] for sample in samples]

    assert np.array_equal(engine.render(samples), alone)
    assert np.array_equal(engine.render(samples[::-1]), alone[::-1])
    assert len({image.tobytes() for image in alone}) == len(samples)


def in_one_memory(synthesize: Synthesize) -> Synthesize:
    """A graph writes its images where it wrote them before."""
    memory: list[torch.Tensor] = []

    def draw(ws: torch.Tensor, noises: Sequence[torch.Tensor]) -> torch.Tensor:
        images = synthesize(ws, noises)
        memory[:] = memory[:1] or [torch.empty_like(images)]
        return memory[0].copy_(images)

    return draw


@torch.inference_mode()
def test_what_is_recorded_is_drawn_with_new_inputs_and_kept_from_the_next() -> None:
    drawn = model("skip")
    arranged = ArrangedSynthesis(drawn.generator.synthesis, torch.float32)
    recording = RecordedSynthesis(in_one_memory(arranged), *example(drawn, 2), record)
    first, second = inputs(drawn.generator, 2), inputs(drawn.generator, 2)

    images, others = recording(*first), recording(*second)

    assert torch.equal(images, arranged(*first))
    assert torch.equal(others, arranged(*second))


def test_a_recording_is_named(caplog: pytest.LogCaptureFixture) -> None:
    drawn = model("skip")
    runtime = cuda_runtime(drawn, 2, half=torch.float32, records=True, record=record)

    assert isinstance(runtime.synthesize, RecordedSynthesis)
    assert runtime.description.endswith("arranged float32 CUDA graph")
    assert not caplog.records


def test_what_is_recorded_are_the_kernels_that_repeat() -> None:
    settings: list[tuple[Any, str]] = [
        (torch.backends.cudnn, name) for name in ("deterministic", "benchmark", "allow_tf32")
    ]
    settings.append((torch.backends.cuda.matmul, "allow_tf32"))
    before = [getattr(owner, name) for owner, name in settings]
    chosen: list[list[bool]] = []

    def look(run: Callable[[], None]) -> Callable[[], None]:
        chosen.append([getattr(owner, name) for owner, name in settings])
        return run

    try:
        for (owner, name), value in zip(settings, [False, True, True, True], strict=True):
            setattr(owner, name, value)
        cuda_runtime(model("grey"), 2, records=True, record=look)
    finally:
        for (owner, name), value in zip(settings, before, strict=True):
            setattr(owner, name, value)

    assert chosen == [[True, False, False, False]]


def test_what_cannot_be_recorded_or_compiled_is_drawn_without_and_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "find_spec", lambda name: None)
    drawn = model("grey")
    runtime = cuda_runtime(drawn, 2, compiles=True, records=True, record=refuse)

    assert isinstance(runtime.synthesize, ArrangedSynthesis)
    assert runtime.description == cuda_runtime(drawn, 2).description
    assert [line.levelno for line in caplog.records] == [logging.WARNING] * 2
    assert "triton is not installed" in caplog.text
    assert "not permitted when stream is capturing" in caplog.text


def test_a_compiler_that_fails_leaves_the_form_without_it(caplog: pytest.LogCaptureFixture) -> None:
    def broken(function: Any) -> Any:
        def fail(*inputs: Any) -> Any:
            raise RuntimeError("no kernel")

        return fail

    drawn = model("grey")
    network, given = drawn.generator.synthesis, example(drawn, 2)

    assert compiled(network, torch.float32, *given, compiler=broken) is None
    assert "drawing without compiled passes: no kernel" in caplog.text
    assert compiled(network, torch.float32, *given, compiler=lambda function: function) is not None


def test_on_a_gpu_torch_draws_with_the_arranged_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = model("grey")
    monkeypatch.setattr(type(drawn), "device", torch.device("cuda:1"))
    monkeypatch.setattr(cuda, "hardware", lambda device: f"a GPU, {device}")
    runtime = torch_runtime(drawn)

    assert isinstance(runtime.synthesize, ArrangedSynthesis)
    assert runtime.micro_batch == 8
    assert runtime.description == f"torch {torch.__version__} arranged float16"
    assert runtime.hardware == "a GPU, cuda:1"


def test_each_form_has_a_fingerprint_of_its_own() -> None:
    drawn = model("grey")
    forms = [
        torch_runtime(drawn),
        plain_runtime(drawn, 8),
        cuda_runtime(drawn),
        cuda_runtime(drawn, 4),
        cuda_runtime(drawn, half=torch.float32),
        cuda_runtime(drawn, records=True, record=record),
    ]

    assert len({Engine(drawn, form).fingerprint for form in forms}) == len(forms)
