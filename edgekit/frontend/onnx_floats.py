"""Real numbers of other widths (float16, float64) as float32.

A program computes reals in float32, the width that Cortex-M's floating-point units have. Tensors of the other
widths become float32 throughout, at the model's border too: what is fed and read is float32. float16 fits in
it; of float64 what lies beyond becomes the largest float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, TypeProto

from edgekit.frontend.onnx_graph import nested_graphs

__all__ = ["reals_as_float32"]

_REALS = frozenset({TensorProto.FLOAT16, TensorProto.DOUBLE})

_TYPE_ATTRIBUTES = {
    "Cast": "to",
    "DequantizeLinear": "output_dtype",
    "EyeLike": "dtype",
    "BlackmanWindow": "output_datatype",
    "HammingWindow": "output_datatype",
    "HannWindow": "output_datatype",
}
"""Of the operators that say the type of their result."""


def reals_as_float32(model: ModelProto) -> None:
    """Make every tensor of reals float32, in place."""
    for graph in nested_graphs(model.graph):
        for kind in _types(graph):
            if kind.HasField("tensor_type") and kind.tensor_type.elem_type in _REALS:
                kind.tensor_type.elem_type = TensorProto.FLOAT
        for tensor in _tensors(graph):
            _narrow(tensor)
        for node in graph.node:
            name = _TYPE_ATTRIBUTES.get(node.op_type)
            for attribute in node.attribute:
                if attribute.name == name and attribute.i in _REALS:
                    attribute.i = TensorProto.FLOAT


def _types(graph: GraphProto) -> Iterator[TypeProto]:
    for values in (graph.input, graph.output, graph.value_info):
        for value in values:
            yield value.type


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _narrow(tensor: TensorProto) -> None:
    if tensor.data_type not in _REALS:
        return
    limit = np.finfo(np.float32).max
    values = np.asarray(onnx.numpy_helper.to_array(tensor), dtype=np.float64)
    finite = np.where(np.isfinite(values), np.clip(values, -limit, limit), values).astype(np.float32)
    tensor.CopyFrom(onnx.numpy_helper.from_array(finite, tensor.name))
