"""Shape arithmetic of ONNX files, worked out while importing.

Exporters write a reshape of a dynamic batch as Shape → Gather → Unsqueeze → Concat → Reshape, and the widths
of a padding as ConstantOfShape → Concat → Reshape → Slice → Transpose → Reshape → Cast → Pad. Once the inputs
are fixed all but the last are constants of a few integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from edgekit.errors import ModelError
from edgekit.frontend.onnx_graph import shapes_of
from edgekit.frontend.shapes import show_name

__all__ = ["FOLDED", "fold_shapes", "foldable_nodes"]

Integers = npt.NDArray[Any]

MAX_ELEMENTS = 64
INTEGER_TYPES = (TensorProto.INT64, TensorProto.INT32)


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default


def _axes(node: NodeProto, inputs: Sequence[Integers]) -> tuple[int, ...]:
    """Axes are an input from opset 13 on and an attribute before."""
    values = inputs[1].ravel() if len(inputs) > 1 else _attribute(node, "axes", ())
    return tuple(int(v) for v in values)


class _NotAShape(Exception):
    """What looks like shape arithmetic computes something else; the node stays."""


def _cast(node: NodeProto, inputs: Sequence[Integers]) -> Integers:
    kind = _attribute(node, "to", 0)
    if kind not in INTEGER_TYPES:
        raise _NotAShape
    return inputs[0].astype(np.int64 if kind == TensorProto.INT64 else np.int32)


def _slice(node: NodeProto, inputs: Sequence[Integers]) -> Integers:
    values = inputs[0]
    starts, ends = (int(v.reshape(())) if v.size == 1 else None for v in inputs[1:3])
    axis = int(inputs[3].reshape(())) if len(inputs) > 3 else 0
    step = int(inputs[4].reshape(())) if len(inputs) > 4 else 1
    if starts is None or ends is None or not -values.ndim <= axis < values.ndim:
        raise ValueError("a shape is sliced along several axes")
    return values[(slice(None),) * (axis % values.ndim) + (slice(starts, ends, step),)]


def _filled(node: NodeProto, inputs: Sequence[Integers]) -> Integers:
    shape = tuple(int(size) for size in inputs[0].ravel())
    value = _attribute(node, "value", None)
    if value is None or value.data_type not in INTEGER_TYPES or not 0 <= np.prod(shape) <= MAX_ELEMENTS:
        raise _NotAShape
    return np.full(shape, onnx.numpy_helper.to_array(value).reshape(()))


def _reshape(node: NodeProto, inputs: Sequence[Integers]) -> Integers:
    values, wanted = inputs
    keeps = not _attribute(node, "allowzero", 0)
    shape = [
        values.shape[axis] if size == 0 and keeps else int(size) for axis, size in enumerate(wanted.ravel())
    ]
    return values.reshape(shape)


def _divide(node: NodeProto, inputs: Sequence[Integers]) -> Integers:
    # ONNX divides integers as C does.
    return np.trunc(inputs[0] / inputs[1]).astype(inputs[0].dtype)


# None stands for Shape, which reads no value.
FOLDED: Mapping[str, Callable[[NodeProto, Sequence[Integers]], Integers] | None] = {
    "Shape": None,
    "Add": lambda node, inputs: inputs[0] + inputs[1],
    "Cast": _cast,
    "ConstantOfShape": _filled,
    "Concat": lambda node, inputs: np.concatenate(inputs, axis=_attribute(node, "axis", 0)),
    "Div": _divide,
    "Gather": lambda node, inputs: np.take(inputs[0], inputs[1], axis=_attribute(node, "axis", 0)),
    "Identity": lambda node, inputs: inputs[0],
    "Mul": lambda node, inputs: inputs[0] * inputs[1],
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": lambda node, inputs: np.squeeze(inputs[0], _axes(node, inputs) or None),
    "Sub": lambda node, inputs: inputs[0] - inputs[1],
    "Transpose": lambda node, inputs: np.transpose(inputs[0], _attribute(node, "perm", None)),
    "Unsqueeze": lambda node, inputs: np.expand_dims(inputs[0], _axes(node, inputs)),
}


def _integer_constants(graph: GraphProto) -> dict[str, TensorProto]:
    """Small constants of integers, by name."""
    tensors: Iterable[tuple[str, TensorProto]] = [
        *((t.name, t) for t in graph.initializer),
        *(
            (node.output[0], attribute.t)
            for node in graph.node
            if node.op_type == "Constant" and node.output
            for attribute in node.attribute
            if attribute.name == "value"
        ),
    ]
    return {
        name: tensor
        for name, tensor in tensors
        if tensor.data_type in INTEGER_TYPES
        and len(tensor.dims) <= 2
        and 0 <= np.prod(tensor.dims, dtype=object) <= MAX_ELEMENTS
    }


def foldable_nodes(graph: GraphProto) -> frozenset[int]:
    """Positions of the nodes that are shape arithmetic: they read shapes and small integers only."""
    known = set(_integer_constants(graph))
    found = set()
    for index, node in enumerate(graph.node):
        if node.op_type not in FOLDED or node.domain not in ("", "ai.onnx") or len(node.output) != 1:
            continue
        if node.op_type == "Shape" or (node.input and all(name in known for name in node.input)):
            known.add(node.output[0])
            found.add(index)
    return frozenset(found)


def _shape(node: NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> Integers:
    shape = shapes[node.input[0]]
    if 0 in shape:
        raise ValueError("a tensor without elements")
    start, end = _attribute(node, "start", 0), _attribute(node, "end", None)
    return np.asarray(shape[start:end], dtype=np.int64)


def fold_shapes(model: ModelProto) -> bool:
    """Replace shape arithmetic in a model with inferred shapes by constants; whether there was any.

    Raises:
        ModelError: arithmetic that makes no sense, or on a shape that is not known.
    """
    graph = model.graph
    chosen = foldable_nodes(graph)
    if not chosen:
        return False
    values = {name: onnx.numpy_helper.to_array(t) for name, t in _integer_constants(graph).items()}
    shapes = shapes_of(graph)
    outputs = {value.name for value in graph.output}
    kept = []
    for index, node in enumerate(graph.node):
        known = shapes if node.op_type == "Shape" else values
        # What is not known yet may be so when more of the graph has been worked out.
        if index not in chosen or node.output[0] in outputs or any(name not in known for name in node.input):
            kept.append(node)
            continue
        try:
            function = FOLDED[node.op_type]
            inputs = [values[name] for name in node.input] if function is not None else []
            result = _shape(node, shapes) if function is None else function(node, inputs)
            if result.size > MAX_ELEMENTS:
                raise ValueError("a shape of that many dimensions")
        except _NotAShape:
            kept.append(node)
            continue
        except (ValueError, TypeError, IndexError, KeyError, OverflowError) as error:
            raise ModelError(
                f"{node.op_type} {show_name(node.output[0])} (operator {index}) of the ONNX file computes a "
                f"shape that makes no sense ({type(error).__name__})."
            ) from error
        values[node.output[0]] = np.asarray(result)
        graph.initializer.append(onnx.numpy_helper.from_array(values[node.output[0]], node.output[0]))
    changed = len(kept) < len(graph.node)
    del graph.node[:]
    graph.node.extend(kept)
    return changed
