"""Exports a generator as one ONNX file, which is written only if its results agree with torch's.

    from rosacea_model import load
    from rosacea_model.files.onnx_export import export_onnx

    report = export_onnx(load("models/demo"), Path("demo.onnx"))

Inputs, float32 but for the cutoff: `z` [batch, z_dim]; `label` [batch, c_dim] where the model is conditional;
`truncation_psi` [], where 1 means none; `truncation_cutoff` [], int64: how many rows of ws are truncated, all of
them from num_ws on. With start="w" instead `w` [batch, w_dim], with start="ws" `ws` [batch, num_ws, w_dim], which are
used as they are. With noise="input" also `noise_{R}_{k}` for each layer, [batch or 1, 1, R, R].
Outputs, float32: `image` [batch, ch, R, R], nominally in [-1, 1]; of z also `ws` [batch, num_ws, w_dim].
"""

from __future__ import annotations

import copy
import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
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

    Arrays = dict[str, NDArray[Any]]

OPSET = 23  # the newest that torch's exporter names as supported; onnxruntime reads it
TOLERANCE = 1e-4  # absolute, for images and ws alike
MAX_BYTES = 2**31 - 1  # what one protobuf message can hold
CHECK_SEEDS: Sequence[int] = (0, 1, 2, 3, 4)
CHECK_BATCHES = (1, 4)
CHECK_TRUNCATIONS = ((1.0, None), (0.5, None), (0.5, 2))  # psi and cutoff; None is all rows

SEED_SCHEME = "z = float32(numpy.random.RandomState(seed).randn(1, z_dim)), one RandomState for each seed"
NOISE_SCHEME = "rng = numpy.random.RandomState(seed); float32(rng.randn(R, R)) for each noise input in order"
PIXEL_SCHEME = "uint8(floor(clip(image * 127.5 + 128, 0, 255)))"

OnnxNoise = Literal["const", "input"]
OnnxStart = Literal["z", "w", "ws"]


@dataclass(frozen=True, kw_only=True)
class OnnxReport:
    """What was written, and how far onnxruntime's results are from torch's."""

    path: Path
    opset: int
    file_bytes: int
    inputs: tuple[str, ...]
    image_difference: float  # the largest absolute difference of the check
    ws_difference: float  # 0 where ws is no output


class _Drawing(nn.Module):
    # The exported computation. As psi is an input, truncation is always there; 1 only changes the rounding.
    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        ws = _ws(self.generator, inputs)
        image = self.generator.synthesis(ws, _noises(self.generator, inputs))
        return (image, ws) if "z" in inputs else (image,)


def _ws(generator: Generator, inputs: Mapping[str, Tensor]) -> Tensor:  # => [batch, num_ws, w_dim]
    if "ws" in inputs:
        return inputs["ws"]
    num_ws = generator.config.num_ws
    if "w" in inputs:
        return inputs["w"][:, None].expand(-1, num_ws, -1)
    mapping = generator.mapping
    w = mapping(inputs["z"], inputs.get("label"))
    truncated = mapping.w_avg + inputs["truncation_psi"] * (w - mapping.w_avg)
    rows = torch.arange(num_ws)[:, None] < inputs["truncation_cutoff"]
    return torch.where(rows, truncated[:, None], w[:, None])


def _noises(generator: Generator, inputs: Mapping[str, Tensor]) -> Sequence[Tensor | None]:
    given = [inputs[name] for name in noise_names(generator.config) if name in inputs]
    return given or generator.synthesis.noises("const", 1)


def export_onnx(model: Model, path: Path, *, noise: OnnxNoise = "const", start: OnnxStart = "z") -> OnnxReport:
    """Write the ONNX file and report on it; if onnxruntime's results differ too much from torch's, ModelError and no
    file.

    noise="const" bakes the stored noise in; noise="input" makes it an input of each layer. `start` is the latent that
    the graph takes. Where onnxruntime and torch differ by more than TOLERANCE, raises ModelError and writes nothing.
    """
    if noise not in get_args(OnnxNoise):
        raise ValueError(f"noise must be const or input, got {noise!r}")
    if start not in get_args(OnnxStart):
        raise ValueError(f"start must be z, w or ws, got {start!r}")
    reference = Model(copy.deepcopy(model.generator).cpu(), model.file)
    weight_bytes = sum(tensor.nbytes for tensor in reference.generator.state_dict().values())
    if weight_bytes > MAX_BYTES:
        raise ModelError(f"{path}: an ONNX file holds up to {MAX_BYTES} bytes, the weights {weight_bytes}")

    proto = _trace(reference, noise, start)
    _tidy(proto, reference, noise)
    onnx.checker.check_model(proto, full_check=True)
    data = proto.SerializeToString()
    image_difference, ws_difference = _compare(reference, data, noise, start)
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


def _trace(model: Model, noise: OnnxNoise, start: OnnxStart) -> onnx.ModelProto:
    # Two seeds, because the exporter would take a batch of 1 for a constant.
    example = check_inputs(model, (0, 1), noise=noise, start=start)
    batch = torch.export.Dim("batch", min=1)
    axes = {name: {0: batch} if array.ndim else {} for name, array in example.items()}
    with _quiet():
        program = torch.onnx.export(
            _Drawing(model.generator).eval(),
            kwargs={"inputs": {name: torch.from_numpy(array) for name, array in example.items()}},
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(example),
            output_names=["image", "ws"] if start == "z" else ["image"],
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


def _compare(model: Model, data: bytes, noise: OnnxNoise, start: OnnxStart) -> tuple[float, float]:
    """Maximum differences of image and ws over all tested seeds, batch sizes and psi."""
    session: Any = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])  # type: ignore[attr-defined]
    differences = []
    for psi, cutoff in CHECK_TRUNCATIONS:
        inputs = partial(check_inputs, model, psi=psi, cutoff=cutoff, noise=noise, start=start)
        alone = [_torch_answer(model, inputs([seed])) for seed in CHECK_SEEDS]
        expected = [np.concatenate(rows) for rows in zip(*alone, strict=True)]
        for size in CHECK_BATCHES:
            for first in range(len(CHECK_SEEDS) - size + 1):
                chosen = slice(first, first + size)
                answers = session.run(None, inputs(CHECK_SEEDS[chosen]))
                pairs = zip(answers, expected[: len(answers)], strict=True)
                differences.append([np.abs(actual - rows[chosen]).max() for actual, rows in pairs])
    image, ws = [*np.max(differences, axis=0), 0.0][:2]  # unlike max(), this keeps a NaN
    return float(image), float(ws)


def check_inputs(
    model: Model,
    seeds: Sequence[int],
    psi: float = 1.0,
    cutoff: int | None = None,
    *,
    noise: OnnxNoise = "const",
    start: OnnxStart = "z",
) -> Arrays:
    """Test inputs of the graph for some seeds; each seed also picks its class and noise."""
    feed: Arrays = {"z": latents(seeds, model.config.z_dim)}
    if model.config.c_dim:
        feed["label"] = np.stack([one_hot(seed % model.config.c_dim, model.config.c_dim) for seed in seeds])
    if start == "z":
        feed["truncation_psi"] = np.array(psi, np.float32)
        feed["truncation_cutoff"] = np.array(model.config.num_ws if cutoff is None else cutoff, np.int64)
    else:
        ws = model.map(feed["z"], feed.get("label"), psi, cutoff).numpy()
        feed = {"ws": ws} if start == "ws" else {"w": ws[:, 0]}
    return feed | (_noise_inputs(model.config, seeds) if noise == "input" else {})


def _noise_inputs(config: GeneratorConfig, seeds: Sequence[int]) -> Arrays:
    names = noise_names(config)
    shapes = [(int(name.split("_")[1]),) * 2 for name in names]
    layers = zip(*(noise_images(seed, shapes) for seed in seeds), strict=True)
    return {name: np.stack(layer)[:, None] for name, layer in zip(names, layers, strict=True)}


@torch.inference_mode()
def _torch_answer(model: Model, feed: Arrays) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    inputs = {name: torch.from_numpy(array) for name, array in feed.items()}
    if "z" in feed:
        ws = model.map(feed["z"], feed.get("label"), float(feed["truncation_psi"]), int(feed["truncation_cutoff"]))
    else:
        ws = _ws(model.generator, inputs)
    image = model.generator.synthesis(ws, _noises(model.generator, inputs))
    return image.numpy(), ws.numpy()
