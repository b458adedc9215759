"""An exported ONNX file draws what torch draws, at any batch size and truncation, and says what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from rosacea_model import GeneratorConfig, Model, ModelError, load
from rosacea_model.classes import classes_fact
from rosacea_model.files import onnx_export, weights
from rosacea_model.files.onnx_export import OPSET, check_inputs, export_onnx
from rosacea_model.fresh import fresh_model
from rosacea_model.sample import latents, noise_images

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.slow  # together they take half a minute

TOLERANCE = 1e-4
SEEDS = [10, 11, 12, 13, 14]
NOISES = ("noise_4_0", "noise_8_0", "noise_8_1", "noise_16_0", "noise_16_1")
KINDS: dict[str, dict[str, Any]] = {
    "skip": {"architecture": "skip"},
    "resnet": {"architecture": "resnet", "conv_clamp": None, "img_channels": 1},
    "conditional": {"architecture": "orig", "c_dim": 3},
}


def build(folder: Path, **settings: Any) -> Model:
    """A small untrained model whose noise shows."""
    config = GeneratorConfig(
        z_dim=16, w_dim=24, img_resolution=16, channel_base=256, channel_max=16, mapping_layers=2, **settings
    )
    tensors = weights.read(fresh_model(folder, config, seed=1, name="small"))
    for key in tensors:
        if key.endswith("noise_strength"):
            tensors[key] = torch.full_like(tensors[key], 0.3)
    names = classes_fact([f"grade {number}" for number in range(config.c_dim)])
    weights.save(folder, config, tensors, name="small", note="for tests", **names)
    return load(folder)


class Exported:
    """A model and its two files."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.model = build(folder / "model", **KINDS[kind])
        self.const = folder / "const.onnx"
        self.input = folder / "input.onnx"
        self.reports = {
            "const": export_onnx(self.model, self.const),
            "input": export_onnx(self.model, self.input, noise="input"),
        }


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return build(tmp_path_factory.mktemp("onnx") / "model", **KINDS["conditional"])


@pytest.fixture(scope="module", params=KINDS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(tmp_path_factory.mktemp("onnx"), request.param)


def answer(path: Path, feed: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    session: Any = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])  # type: ignore[attr-defined]
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


def close(actual: NDArray[np.float32], expected: torch.Tensor) -> None:
    np.testing.assert_allclose(actual, expected.numpy(), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(("psi", "cutoff"), [(1.0, None), (0.5, None), (0.5, 0), (0.5, 3)])
def test_the_file_draws_what_torch_draws(exported: Exported, batch: int, psi: float, cutoff: int | None) -> None:
    model = exported.model
    for start in range(0, len(SEEDS), batch):
        seeds = SEEDS[start : start + batch]
        feed: dict[str, NDArray[Any]] = {"z": latents(seeds, 16), "truncation_psi": np.array(psi, np.float32)}
        feed["truncation_cutoff"] = np.array(99 if cutoff is None else cutoff)
        if model.config.c_dim:
            feed["label"] = np.eye(3, dtype=np.float32)[np.array(seeds) % 3]

        outputs = answer(exported.const, feed)

        ws = model.map(feed["z"], feed.get("label"), psi, cutoff)
        close(outputs["ws"], ws)
        close(outputs["image"], model.synthesize(ws))


def test_a_file_that_takes_ws_draws_rows_that_differ(conditional: Model, tmp_path: Path) -> None:
    report = export_onnx(conditional, tmp_path / "ws.onnx", start="ws")
    ws = conditional.map(latents(SEEDS, 16), 1).clone()
    ws[:, 3:] = ws.flip(0)[:, 3:]  # each face with the fine rows of another

    outputs = answer(tmp_path / "ws.onnx", {"ws": ws.numpy()})

    assert (report.inputs, list(outputs)) == (("ws",), ["image"])
    close(outputs["image"], conditional.synthesize(ws))


def test_a_file_that_takes_w_draws_it_in_every_layer(conditional: Model, tmp_path: Path) -> None:
    report = export_onnx(conditional, tmp_path / "w.onnx", start="w", noise="input")
    ws = conditional.map(latents(SEEDS, 16), 1, 0.7)
    shapes = conditional.generator.synthesis.noise_shapes()
    zeros = {name: np.zeros((1, 1, *shape), np.float32) for name, shape in zip(NOISES, shapes, strict=True)}

    outputs = answer(tmp_path / "w.onnx", {"w": ws[:, 0].numpy(), **zeros})

    assert (report.inputs, list(outputs)) == (("w", *NOISES), ["image"])
    close(outputs["image"], conditional.synthesize(ws, noise_mode="none"))


def test_an_unknown_input_is_refused(conditional: Model, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="start must be z, w or ws, got 'x'"):
        export_onnx(conditional, tmp_path / "x.onnx", start="x")  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("noise_batch", ["one", "each"])
def test_noise_inputs_are_the_noise_of_the_layers(exported: Exported, batch: int, noise_batch: str) -> None:
    model = exported.model
    shapes = model.generator.synthesis.noise_shapes()
    rows = [noise_images(seed, shapes) for seed in range(batch if noise_batch == "each" else 1)]
    noises = [torch.from_numpy(np.stack(layer)[:, None]) for layer in zip(*rows, strict=True)]
    feed = check_inputs(model, SEEDS[:batch], 0.7)
    feed |= {name: noise.numpy() for name, noise in zip(NOISES, noises, strict=True)}

    outputs = answer(exported.input, feed)

    ws = model.map(feed["z"], feed.get("label"), truncation_psi=0.7)
    with torch.inference_mode():
        close(outputs["image"], model.generator.synthesis(ws, noises))
        assert (model.synthesize(ws) - model.generator.synthesis(ws, noises)).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("noise", ["const", "input"])
def test_inputs_and_outputs_have_the_documented_names_and_shapes(exported: Exported, noise: str) -> None:
    config = exported.model.config
    graph = onnx.load(getattr(exported, noise)).graph

    inputs: dict[str, list[Any]] = {"z": ["batch", 16]}
    if config.c_dim:
        inputs["label"] = ["batch", 3]
    inputs |= {"truncation_psi": [], "truncation_cutoff": []}
    if noise == "input":
        for resolution, k in [(4, 0), (8, 0), (8, 1), (16, 0), (16, 1)]:
            inputs[f"noise_{resolution}_{k}"] = ["noise_batch", 1, resolution, resolution]
    outputs = {"image": ["batch", config.img_channels, 16, 16], "ws": ["batch", 6, 24]}
    assert [(value.name, shape_of(value)) for value in graph.input] == list(inputs.items())
    assert {value.name: shape_of(value) for value in graph.output} == outputs
    assert exported.reports[noise].inputs == tuple(inputs)


def shape_of(value: onnx.ValueInfoProto) -> list[Any]:
    tensor = value.type.tensor_type
    assert tensor.elem_type == (onnx.TensorProto.INT64 if value.name == "truncation_cutoff" else onnx.TensorProto.FLOAT)
    return [dimension.dim_param or dimension.dim_value for dimension in tensor.shape.dim]


@pytest.mark.parametrize("noise", ["const", "input"])
def test_the_file_is_valid_and_self_contained(exported: Exported, noise: str) -> None:
    path: Path = getattr(exported, noise)

    onnx.checker.check_model(path, full_check=True)
    proto = onnx.load(path, load_external_data=False)

    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", OPSET)]
    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["const.onnx", "input.onnx", "model"]


def test_the_file_says_what_it_is(exported: Exported) -> None:
    proto = onnx.load(exported.input)
    facts = {entry.key: entry.value for entry in proto.metadata_props}

    assert GeneratorConfig.from_json(facts["config"]) == exported.model.config
    assert facts["digest"] == exported.model.file.digest
    assert (facts["name"], facts["note"]) == ("small", "for tests")
    assert tuple(json.loads(facts.get("classes", "[]"))) == exported.model.file.classes
    assert len(exported.model.file.classes) == exported.model.config.c_dim
    assert "numpy.random.RandomState(seed).randn(1, z_dim)" in facts["seed"]


def test_the_file_tells_no_path_of_the_machine_that_made_it(exported: Exported) -> None:
    data = exported.const.read_bytes()

    for folder in (Path(torch.__file__).parent, Path(onnx_export.__file__).parent, Path.home()):
        assert str(folder).encode() not in data
    assert b".py" not in data


def test_the_same_model_gives_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    export_onnx(exported.model, tmp_path / "again.onnx")

    assert (tmp_path / "again.onnx").read_bytes() == exported.const.read_bytes()


def test_the_report_holds_the_largest_differences(exported: Exported) -> None:
    for report in exported.reports.values():
        assert report.file_bytes == report.path.stat().st_size
        assert 0 <= report.image_difference <= TOLERANCE
        assert 0 <= report.ws_difference <= TOLERANCE


@pytest.mark.parametrize("fault", [pytest.param(0.01, marks=pytest.mark.long), float("nan")])
def test_a_file_that_draws_something_else_is_not_kept(
    fault: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = onnx_export._trace

    def trace_wrongly(*arguments: Any) -> onnx.ModelProto:
        proto = trace(*arguments)
        last = next(node for node in proto.graph.node if "image" in node.output)
        last.output[:] = ["right"]
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(fault, np.float32), "fault"))
        proto.graph.node.append(onnx.helper.make_node("Add", ["right", "fault"], ["image"]))
        return proto

    monkeypatch.setattr(onnx_export, "_trace", trace_wrongly)
    model = build(tmp_path / "model")

    with pytest.raises(ModelError, match=r"the largest difference is (0\.01|nan)"):
        export_onnx(model, tmp_path / "wrong.onnx")

    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_too_large_for_one_file_is_refused(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "MAX_BYTES", 1000)

    with pytest.raises(ModelError, match="an ONNX file holds up to 1000 bytes"):
        export_onnx(exported.model, tmp_path / "large.onnx")


def test_an_unknown_noise_is_refused(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="noise must be const or input, got 'random'"):
        export_onnx(exported.model, tmp_path / "x.onnx", noise="random")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [pytest.param("unconditional", marks=pytest.mark.long), "conditional"])
def test_a_golden_network_exports(name: str, golden: Path, tmp_path: Path) -> None:
    reference = json.loads((golden / name / "config.json").read_text())["G"]
    config = GeneratorConfig(
        z_dim=reference["z_dim"],
        c_dim=reference["c_dim"],
        w_dim=reference["w_dim"],
        img_resolution=reference["img_resolution"],
        mapping_layers=reference["mapping_kwargs"]["num_layers"],
        **reference["synthesis_kwargs"],
    )
    with np.load(golden / name / "generator.npz") as arrays:
        tensors = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    weights.save(tmp_path / "model", config, tensors, name="golden")
    want = dict(np.load(golden / name / "generator_outputs.npz"))

    export_onnx(load(tmp_path / "model"), tmp_path / "golden.onnx")

    feed = {"z": want["z"].astype(np.float32)}
    if config.c_dim:
        feed["label"] = want["c"].astype(np.float32)
    for psi, key in ((1.0, "psi1"), (0.5, "psi0.5")):
        truncation = {"truncation_psi": np.array(psi, np.float32), "truncation_cutoff": np.array(config.num_ws)}
        outputs = answer(tmp_path / "golden.onnx", feed | truncation)
        np.testing.assert_allclose(outputs["image"], want[f"image.{key}.const"], rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(outputs["ws"], want[f"ws.{key}"], rtol=0, atol=TOLERANCE)
