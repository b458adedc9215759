"""onnxruntime and OpenVINO draw what torch draws, one image at a time, the same every time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch

from rosacea_model import FaceSample, Model, engines
from rosacea_model.engine import Engine
from rosacea_model.engine.runtimes.choose import choose_runtime
from rosacea_model.engine.runtimes.pytorch import plain_runtime
from rosacea_model.files.modelfile import ModelFile
from rosacea_model.files.onnx_graph import synthesis_graph

from .cases import CONFIGS, build, inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rosacea_model.engines import EngineName, Precision

pytestmark = pytest.mark.long  # a process that had loaded OpenVINO may have ended by SIGSEGV later: docs/LOG.md

TOLERANCE = 5e-5  # of the image's range
RUNTIMES: tuple[EngineName, ...] = ("torch", "onnxruntime", "openvino")


def model(kind: str, digest: str = "a") -> Model:
    generator = build(**CONFIGS[kind])
    return Model(generator, ModelFile(name="small", path=Path("none"), digest=digest * 64, config=generator.config))


@pytest.mark.parametrize("kind", CONFIGS)
@torch.inference_mode()
def test_the_graph_draws_what_the_network_draws(kind: str) -> None:
    drawn = model(kind)
    onnx.checker.check_model(onnx.load_from_string(synthesis_graph(drawn.generator.synthesis, drawn.config)), True)
    ws, noises = inputs(drawn.generator)
    want = drawn.generator.synthesis(ws, noises)

    for name in RUNTIMES[1:]:
        got = choose_runtime(drawn, name).synthesize(ws, noises)
        torch.testing.assert_close(got, want, rtol=0, atol=TOLERANCE * float(want.abs().max()), msg=name)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_image_depends_on_neither_neighbours_nor_what_was_drawn_before(runtime: EngineName) -> None:
    drawn = model("skip")
    engine = Engine(drawn, choose_runtime(drawn, runtime))
    samples = [FaceSample(seed=seed, noise_mode="random", noise_seed=seed) for seed in range(5)]
    alone = [engine.render([sample])[0] for sample in samples]

    assert np.array_equal(engine.render(samples), alone)
    assert np.array_equal(engine.render(samples[::-1]), alone[::-1])
    assert len({image.tobytes() for image in alone}) == len(samples)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_pixels_are_at_most_a_level_from_those_of_the_network(runtime: EngineName) -> None:
    drawn = model("skip")
    samples = [FaceSample(seed=seed) for seed in range(8)]
    want = pixels(Engine(drawn, plain_runtime(drawn, 1)), samples)

    apart = np.abs(pixels(Engine(drawn, choose_runtime(drawn, runtime)), samples) - want)

    assert apart.max() <= 1
    assert np.count_nonzero(apart) <= apart.size / 500


def pixels(engine: Engine, samples: list[FaceSample]) -> NDArray[np.int64]:
    return engine.render(samples).astype(np.int64)


def test_each_runtime_and_precision_has_a_fingerprint_of_its_own() -> None:
    drawn = model("grey")
    chosen: list[tuple[EngineName, Precision]] = [("torch", "exact"), ("onnxruntime", "exact"), ("openvino", "exact")]
    if computes_in_bf16():
        chosen.append(("openvino", "bf16"))
    engines = [Engine(drawn, choose_runtime(drawn, *each)) for each in chosen]

    assert len({engine.fingerprint for engine in engines}) == len(engines)
    assert Engine(drawn).fingerprint == engines[0].fingerprint, "auto is torch"


def test_bf16_is_near_but_not_the_same() -> None:
    if not computes_in_bf16():
        pytest.skip("this CPU does not compute in bfloat16")
    drawn = model("skip")
    samples = [FaceSample(seed=seed) for seed in range(8)]
    exact = pixels(Engine(drawn), samples)

    apart = np.abs(pixels(Engine(drawn, choose_runtime(drawn, "openvino", "bf16")), samples) - exact)

    assert 0 < apart.mean() < 3


def computes_in_bf16() -> bool:
    import openvino

    core = openvino.Core()  # type: ignore[attr-defined]
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize(
    ("name", "precision", "complaint"),
    [
        ("tensorrt", "exact", "engine must be one of auto, torch, onnxruntime, openvino, got 'tensorrt'"),
        ("torch", "fp8", "precision must be exact or bf16, got 'fp8'"),
        ("torch", "bf16", "precision bf16 needs the engine openvino, got 'torch'"),
    ],
)
def test_what_does_not_go_together_is_refused(name: str, precision: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        choose_runtime(model("grey"), name, precision)  # type: ignore[arg-type]


def test_a_cpu_without_bfloat16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    class Old:
        def get_property(self, device: str, name: str) -> list[str]:
            return ["FP32"]

    monkeypatch.setattr(openvino, "Core", Old)
    with pytest.raises(ValueError, match="does not compute in bfloat16"):
        choose_runtime(model("grey"), "openvino", "bf16")


@pytest.mark.parametrize(("name", "extra"), [("onnxruntime", "onnx"), ("openvino", "openvino")])
def test_a_runtime_that_is_not_installed_says_how_to_get_it(
    name: EngineName, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda package: None)
    with pytest.raises(ValueError, match=rf"the engine {name} needs {name}.*\[{extra}\]"):
        choose_runtime(model("grey"), name)
