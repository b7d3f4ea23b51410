"""Small float ONNX models for tests, one method an operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["OnnxBuilder", "random_cnn"]


class OnnxBuilder:
    """Collects nodes and weights of one graph (NCHW), then `build()` gives the model."""

    def __init__(self, rng: np.random.Generator, opset: int = 17) -> None:
        self.rng = rng
        self.opset = opset
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: Sequence[int | str | None], dtype: int = TensorProto.FLOAT) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, name: str, shape: Sequence[int | str | None] | None = None) -> None:
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def constant(self, values: NDArray[Any]) -> str:
        name = f"k{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def weights(self, *shape: int, scale: float = 0.5) -> str:
        return self.constant((self.rng.standard_normal(shape) * scale).astype(np.float32))

    def node(self, op: str, inputs: Sequence[str], name: str | None = None, **attributes: Any) -> str:
        """Append a node of one output; returns the name of that output."""
        output = name or f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def conv(
        self, x: str, channels: int, filters: int, kernel: int = 3, group: int = 1, **attributes: Any
    ) -> str:
        w = self.weights(filters, channels // group, kernel, kernel, scale=1.0 / kernel)
        return self.node("Conv", [x, w, self.weights(filters)], group=group, **attributes)

    def build(self) -> onnx.ModelProto:
        graph = helper.make_graph(self._nodes, "test", self._inputs, self._outputs, self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        model.ir_version = 8
        return model


def random_cnn(seed: int) -> onnx.ModelProto:
    """One input (1, 3, 12, 12), two outputs: random convolutions, poolings and joins, then a classifier."""
    rng = np.random.default_rng(seed)
    b = OnnxBuilder(rng)
    x, channels = b.input("x", (1, 3, 12, 12)), 3
    x = b.conv(x, channels, 8, pads=[1, 1, 1, 1])
    x, channels = b.node("Relu", [x]), 8
    for _ in range(4):
        kind = rng.choice(["conv", "depthwise", "residual", "concat", "clip", "pad", "pool"])
        if kind == "conv":
            x = b.conv(x, channels, 8, kernel=1)
            channels = 8
        elif kind == "depthwise":
            x = b.node("Relu", [b.conv(x, channels, channels, group=channels, auto_pad="SAME_UPPER")])
        elif kind == "residual":
            x = b.node("Add", [x, b.conv(x, channels, channels, pads=[1, 1, 1, 1])])
        elif kind == "concat":
            x = b.node("Concat", [x, b.conv(x, channels, 4, auto_pad="SAME_LOWER")], axis=1)
            channels += 4
        elif kind == "clip":
            low, high = b.constant(np.float32(0)), b.constant(np.float32(6))
            x = b.node(
                "Clip", [b.conv(x, channels, channels, dilations=[2, 2], pads=[2, 2, 2, 2]), low, high]
            )
        elif kind == "pad":
            x = b.node("Pad", [x, b.constant(np.array([0, 0, 1, 0, 0, 0, 0, 1], np.int64))])
            x = b.conv(x, channels, channels, strides=[1, 1])
        else:
            op = rng.choice(["MaxPool", "AveragePool"])
            x = b.node(op, [x], kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    b.output(x)
    pooled = b.node("GlobalAveragePool", [x])
    flat = b.node("Flatten", [pooled])
    hidden = b.node("Gemm", [flat, b.weights(channels, 6), b.weights(6)])
    logits = b.node("MatMul", [b.node("Relu", [hidden]), b.weights(6, 5)])
    b.output(b.node("Softmax", [b.node("Add", [logits, b.weights(5)])], name="y", axis=-1), (1, 5))
    return b.build()
