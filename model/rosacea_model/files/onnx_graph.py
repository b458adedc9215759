"""The synthesis network as an ONNX graph, written node by node: it takes milliseconds, and no exporter."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..networks import ops

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ..config import GeneratorConfig
    from ..networks.generator import Linear, SynthesisBlock, SynthesisLayer, SynthesisNetwork, ToRGB

OPSET = 21
IR_VERSION = 10  # what onnxruntime and OpenVINO read


def synthesis_graph(network: SynthesisNetwork, config: GeneratorConfig) -> bytes:
    """A serialized ONNX model: ws [N, num_ws, w_dim] and noise_{R}_{k} [N or 1, 1, R, R] => image [N, ch, R, R]."""
    graph = _Graph()
    x: str | None = None
    image: str | None = None
    row = 0
    for block in network.blocks():
        rows = [graph.node("Gather", "ws", graph.integer(row + k), axis=1) for k in range(block.num_layers + 1)]
        x, image = _block(graph, block, x, image, rows)
        row += block.num_layers
    assert image is not None
    inputs = [_value("ws", ["N", config.num_ws, config.w_dim])]
    inputs += [_value(name, ["M", 1, resolution, resolution]) for name, resolution in noise_inputs(config)]
    size = config.img_resolution
    output = _value("image", ["N", config.img_channels, size, size])
    graph.nodes.append(helper.make_node("Identity", [image], ["image"]))
    made = helper.make_graph(graph.nodes, "synthesis", inputs, [output], initializer=graph.weights)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    data: bytes = model.SerializeToString()
    return data


def noise_inputs(config: GeneratorConfig) -> list[tuple[str, int]]:
    """Name and resolution of each layer's noise, in order: noise_4_0, noise_8_0, noise_8_1, ..."""
    upper = [(f"noise_{resolution}_{k}", resolution) for resolution in config.block_resolutions[1:] for k in range(2)]
    return [("noise_4_0", 4), *upper]


class _Graph:
    """Nodes and weights as they are added; values have numbers for names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add an operation; returns the name of its output."""
        name = f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def weight(self, tensor: Tensor | float) -> str:
        """Add a float32 constant; returns its name."""
        return self._constant(np.asarray(tensor, np.float32))

    def integer(self, *values: int) -> str:
        """Add int64 constants; returns their name."""
        return self._constant(np.array(values if len(values) > 1 else values[0], np.int64))

    def _constant(self, array: np.ndarray[Any, Any]) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name


def _value(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _block(
    graph: _Graph, block: SynthesisBlock, x: str | None, image: str | None, rows: Sequence[str]
) -> tuple[str, str | None]:
    resolution = len(block.conv1.noise_const)
    gain = math.sqrt(0.5) if block.is_residual else 1.0
    below = graph.weight(block.const[None]) if x is None else x
    y = below
    if not block.is_first:
        y = _layer(graph, block.conv0, y, rows[0], f"noise_{resolution}_0")
    y = _layer(graph, block.conv1, y, rows[-2], f"noise_{resolution}_{block.num_layers - 1}", gain)
    if block.is_residual:
        weight = block.skip.weight * (gain / math.sqrt(block.skip.weight.shape[1]))
        shortcut = graph.node("Conv", below, graph.weight(weight))
        y = graph.node("Add", _upsampled(graph, shortcut, block.resample_filter, len(weight)), y)
    if image is not None:
        image = _upsampled(graph, image, block.resample_filter, len(block.torgb.weight) if block.has_torgb else 0)
    if block.has_torgb:
        colour = _colour(graph, block.torgb, y, rows[-1])
        image = colour if image is None else graph.node("Add", image, colour)
    return y, image


def _layer(graph: _Graph, layer: SynthesisLayer, x: str, w: str, noise: str, gain: float = 1.0) -> str:
    """Modulated convolution, noise, bias and activation; the gains are in the demodulation, the noise and the bias."""
    gain *= ops.ACTIVATION_GAIN
    styles = _linear(graph, layer.affine, w)
    scaled = graph.node("Mul", x, _spatial(graph, styles))
    y = _convolved(graph, layer, scaled)
    y = graph.node("Mul", y, _spatial(graph, _demodulation(graph, layer, styles, gain)))
    y = graph.node("Add", y, graph.node("Mul", noise, graph.weight(layer.noise_strength * gain)))
    y = graph.node("Add", y, graph.weight((layer.bias * gain)[:, None, None]))
    y = graph.node("LeakyRelu", y, alpha=ops.LEAK)
    return _bounded(graph, y, None if layer.clamp is None else layer.clamp * gain / ops.ACTIVATION_GAIN)


def _convolved(graph: _Graph, layer: SynthesisLayer, x: str) -> str:
    if not layer.up:
        return graph.node("Conv", x, graph.weight(layer.weight), pads=[1, 1, 1, 1])
    outputs = len(layer.weight)
    wide = graph.node("ConvTranspose", x, graph.weight(layer.weight.transpose(0, 1)), strides=[2, 2])
    kernel = (layer.resample_filter * 4).expand(outputs, 1, -1, -1)
    return graph.node("Conv", wide, graph.weight(kernel), group=outputs, pads=[1, 1, 1, 1])


def _demodulation(graph: _Graph, layer: SynthesisLayer, styles: str, gain: float) -> str:  # => [N, O]
    energy = layer.weight.square().sum(dim=(2, 3)).t()
    sums = graph.node("MatMul", graph.node("Mul", styles, styles), graph.weight(energy))
    root = graph.node("Sqrt", graph.node("Add", sums, graph.weight(ops.EPSILON)))
    return graph.node("Div", graph.weight(gain), root)


def _colour(graph: _Graph, torgb: ToRGB, x: str, w: str) -> str:
    styles = _linear(graph, torgb.affine, w, 1 / math.sqrt(torgb.weight.shape[1]))
    scaled = graph.node("Mul", x, _spatial(graph, styles))
    colour = graph.node("Conv", scaled, graph.weight(torgb.weight), graph.weight(torgb.bias))
    return _bounded(graph, colour, torgb.clamp)


def _linear(graph: _Graph, layer: Linear, x: str, gain: float = 1.0) -> str:
    weight = layer.weight * (layer.lr_multiplier / math.sqrt(layer.weight.shape[1]) * gain)
    bias = layer.bias * (layer.lr_multiplier * gain)
    return graph.node("Gemm", x, graph.weight(weight), graph.weight(bias), transB=1)


def _upsampled(graph: _Graph, x: str, kernel: Tensor, channels: int) -> str:
    weight = graph.weight((kernel * 4).expand(channels, 1, -1, -1))
    return graph.node("ConvTranspose", x, weight, group=channels, pads=[1, 1, 1, 1], strides=[2, 2])


def _spatial(graph: _Graph, factors: str) -> str:  # [N, C] => [N, C, 1, 1]
    return graph.node("Unsqueeze", factors, graph.integer(2, 3))


def _bounded(graph: _Graph, x: str, limit: float | None) -> str:
    return x if limit is None else graph.node("Clip", x, graph.weight(-limit), graph.weight(limit))
