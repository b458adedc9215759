"""A generator as one ONNX file that any runtime can draw with, checked against torch before it gets its name.

    from rosacea_model import load
    from rosacea_model.files.onnx_export import export_onnx

    report = export_onnx(load("models/demo"), Path("demo.onnx"))

Inputs, float32: `z` [batch, z_dim]; `label` [batch, c_dim] where the model is conditional; `truncation_psi`
[], where 1 means none; with noise="input" also `noise_{R}_{k}` for each layer, [batch or 1, 1, R, R].
Outputs, float32: `image` [batch, ch, R, R], nominally in [-1, 1]; `ws` [batch, num_ws, w_dim].
"""

from __future__ import annotations

import copy
import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from ..classes import classes_fact
from ..errors import ModelError
from ..model import Model
from ..sample import latents, noise_images, one_hot
from .modelfile import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ..config import GeneratorConfig
    from ..networks.generator import Generator

    Arrays = dict[str, NDArray[np.float32]]

OPSET = 23  # the newest that torch's exporter names as supported; onnxruntime reads it
TOLERANCE = 1e-4  # absolute, for images and ws alike
MAX_BYTES = 2**31 - 1  # what one protobuf message can hold
CHECK_SEEDS: Sequence[int] = (0, 1, 2, 3, 4)
CHECK_BATCHES = (1, 4)
CHECK_PSIS = (1.0, 0.5)

SEED_SCHEME = "z = float32(numpy.random.RandomState(seed).randn(1, z_dim)), one RandomState for each seed"
NOISE_SCHEME = "rng = numpy.random.RandomState(seed); float32(rng.randn(R, R)) for each noise input in order"
PIXEL_SCHEME = "uint8(floor(clip(image * 127.5 + 128, 0, 255)))"

OnnxNoise = Literal["const", "input"]


@dataclass(frozen=True, kw_only=True)
class OnnxReport:
    """What was written, and how far onnxruntime's numbers are from torch's."""

    path: Path
    opset: int
    file_bytes: int
    inputs: tuple[str, ...]
    image_difference: float  # the largest absolute difference of the check
    ws_difference: float


class _Drawing(nn.Module):
    # The exported computation. As psi is an input, truncation is always there; 1 only changes the rounding.
    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        mapping, synthesis = self.generator.mapping, self.generator.synthesis
        w = mapping(inputs["z"], inputs.get("label"))
        w = mapping.w_avg + inputs["truncation_psi"] * (w - mapping.w_avg)
        ws = w[:, None].expand(-1, self.generator.config.num_ws, -1)
        return synthesis(ws, _noises(self.generator, inputs)), ws


def _noises(generator: Generator, inputs: Mapping[str, Tensor]) -> Sequence[Tensor | None]:
    given = [inputs[name] for name in noise_names(generator.config) if name in inputs]
    return given or generator.synthesis.noises("const", 1)


def export_onnx(model: Model, path: Path, *, noise: OnnxNoise = "const") -> OnnxReport:
    """Write `path` and return how closely onnxruntime follows torch with it.

    noise="const" bakes the stored noise in; noise="input" makes it an input of each layer. Where the two
    differ by more than TOLERANCE, raises ModelError and writes nothing.
    """
    if noise not in get_args(OnnxNoise):
        raise ValueError(f"noise must be const or input, got {noise!r}")
    reference = Model(copy.deepcopy(model.generator).cpu(), model.file)
    weight_bytes = sum(tensor.nbytes for tensor in reference.generator.state_dict().values())
    if weight_bytes > MAX_BYTES:
        raise ModelError(f"{path}: an ONNX file holds up to {MAX_BYTES} bytes, the weights {weight_bytes}")

    proto = _trace(reference.generator, noise)
    _tidy(proto, reference, noise)
    onnx.checker.check_model(proto, full_check=True)
    data = proto.SerializeToString()
    image_difference, ws_difference = _compare(reference, data, noise)
    largest = np.max([image_difference, ws_difference])
    if not largest <= TOLERANCE:  # written so that NaN fails
        rule = f"onnxruntime must agree with torch within {TOLERANCE:g}"
        raise ModelError(f"{path}: {rule}, the largest difference is {largest:g}")

    write_atomically(path, data)
    return OnnxReport(
        path=path,
        opset=OPSET,
        file_bytes=len(data),
        inputs=tuple(entry.name for entry in proto.graph.input),
        image_difference=image_difference,
        ws_difference=ws_difference,
    )


def noise_names(config: GeneratorConfig) -> list[str]:
    """Names of the noise inputs in the order of the layers: noise_4_0, noise_8_0, noise_8_1, ..."""
    upper = [f"noise_{resolution}_{k}" for resolution in config.block_resolutions[1:] for k in range(2)]
    return ["noise_4_0", *upper]


def _trace(generator: Generator, noise: OnnxNoise) -> onnx.ModelProto:
    # Two seeds, because the exporter would take a batch of 1 for a constant.
    example = check_inputs(generator.config, (0, 1), 1.0, noise)
    batch = torch.export.Dim("batch", min=1)
    axes = {name: {0: batch} if array.ndim else {} for name, array in example.items()}
    with _quiet():
        program = torch.onnx.export(
            _Drawing(generator).eval(),
            kwargs={"inputs": {name: torch.from_numpy(array) for name, array in example.items()}},
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(example),
            output_names=["image", "ws"],
            dynamic_shapes={"inputs": axes},
        )
    assert program is not None
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    # Three remarks of torch's exporter about itself that no caller can act on: its own use of a deprecated
    # check, that all inputs share the axis `batch`, and that torchvision's operators are not there.
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", r"# The axis name: batch will not be used", UserWarning)
        registration.addFilter(_not_about_torchvision)
        try:
            yield
        finally:
            registration.removeFilter(_not_about_torchvision)


def _not_about_torchvision(record: logging.LogRecord) -> bool:
    return "torchvision is not installed" not in record.getMessage()


def _tidy(proto: onnx.ModelProto, model: Model, noise: OnnxNoise) -> None:
    # The exporter notes down which line of which source file each node comes from: paths of this machine.
    for node in proto.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*proto.graph.input, *proto.graph.output):
        value.ClearField("metadata_props")
    for tensor in proto.graph.initializer:
        tensor.ClearField("metadata_props")
    del proto.graph.metadata_props[:]
    # Intermediate shapes say that noise has the batch size of z, but one noise for all images serves as well.
    del proto.graph.value_info[:]
    for value in proto.graph.input:
        if value.name.startswith("noise_"):
            value.type.tensor_type.shape.dim[0].dim_param = "noise_batch"
    facts = {
        "name": model.file.name,
        "note": model.file.note,
        "digest": model.file.digest,
        "config": model.config.to_json(),
        **classes_fact(model.file.classes),
        "seed": SEED_SCHEME,
        "noise": NOISE_SCHEME if noise == "input" else "const",
        "pixels": PIXEL_SCHEME,
    }
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, facts)


def _compare(model: Model, data: bytes, noise: OnnxNoise) -> tuple[float, float]:
    """The largest differences of image and ws, over every seed, batch size and psi of the check."""
    session: Any = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])  # type: ignore[attr-defined]
    differences = []
    for psi in CHECK_PSIS:
        singles = [check_inputs(model.config, [seed], psi, noise) for seed in CHECK_SEEDS]
        alone = [_torch_answer(model, feed) for feed in singles]
        expected = [np.concatenate(rows) for rows in zip(*alone, strict=True)]
        for size in CHECK_BATCHES:
            for start in range(len(CHECK_SEEDS) - size + 1):
                chosen = slice(start, start + size)
                feed = check_inputs(model.config, CHECK_SEEDS[chosen], psi, noise)
                pairs = zip(session.run(["image", "ws"], feed), expected, strict=True)
                differences.append([np.abs(actual - rows[chosen]).max() for actual, rows in pairs])
    image, ws = np.max(differences, axis=0)  # unlike max(), this keeps a NaN
    return float(image), float(ws)


def check_inputs(config: GeneratorConfig, seeds: Sequence[int], psi: float, noise: OnnxNoise) -> Arrays:
    """Inputs of the graph, in order, for some seeds; each seed picks its class and its own noise as well."""
    feed = {"z": latents(seeds, config.z_dim)}
    if config.c_dim:
        feed["label"] = np.stack([one_hot(seed % config.c_dim, config.c_dim) for seed in seeds])
    feed["truncation_psi"] = np.array(psi, np.float32)
    if noise == "input":
        names = noise_names(config)
        shapes = [(int(name.split("_")[1]),) * 2 for name in names]
        layers = zip(*(noise_images(seed, shapes) for seed in seeds), strict=True)
        feed |= {name: np.stack(layer)[:, None] for name, layer in zip(names, layers, strict=True)}
    return feed


@torch.inference_mode()
def _torch_answer(model: Model, feed: Arrays) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    ws = model.map(feed["z"], feed.get("label"), float(feed["truncation_psi"]))
    inputs = {name: torch.from_numpy(array) for name, array in feed.items()}
    image = model.generator.synthesis(ws, _noises(model.generator, inputs))
    return image.numpy(), ws.numpy()
