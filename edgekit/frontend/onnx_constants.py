"""Work out, while importing, what reads constants only, with ONNX's own reference implementation.

Exporters leave transposed weights, tables of positions and masks as operators; a board should not compute
them anew in every run. Quantisation of constants stays: it is how a file says that a weight is stored as
integers.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto
from onnx.reference import ReferenceEvaluator

from edgekit.frontend.onnx_graph import attribute, shapes_of
from edgekit.frontend.onnx_names import CONVERTED

__all__ = ["fold_constants"]

MAX_ELEMENTS = 1 << 22

_KEPT = frozenset({
    "AveragePool", "Conv", "ConvInteger", "ConvTranspose", "DequantizeLinear", "Dropout", "Einsum", "Gemm",
    "LRN", "LpPool", "MatMul", "MatMulInteger", "MaxPool", "QuantizeLinear", "Resize",
})  # fmt: skip
"""Not worked out: the first two kinds say how weights are stored, the others could take long."""

_FOLDED = (CONVERTED - _KEPT) | {"Range"}
_TYPES = frozenset({
    TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16, TensorProto.INT16,
    TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT16, TensorProto.DOUBLE,
    TensorProto.UINT32, TensorProto.UINT64,
})  # fmt: skip


def _evaluate(node: NodeProto, values: list[np.ndarray], opset: int) -> list[np.ndarray] | None:
    names = [f"x{i}" if name else "" for i, name in enumerate(node.input)]
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.domain = ""
    copy.input[:] = names
    copy.output[:] = [f"y{i}" for i in range(len(node.output))]
    feeds = dict(zip((n for n in names if n), values, strict=True))
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            results = ReferenceEvaluator(copy, opsets={"": opset}).run(None, feeds)
    except (
        Exception
    ):  # Its Python code raises whatever it comes upon; the node is then left to its converter.
        return None
    arrays = [np.asarray(result) for result in results]
    return arrays if all(array.dtype.kind in "fiub" for array in arrays) else None


def _range_size(values: list[np.ndarray]) -> int | None:
    start, limit, delta = (float(v.reshape(-1)[0]) for v in values)
    if delta == 0 or not all(map(math.isfinite, (start, limit, delta))):
        return None
    return max(math.ceil((limit - start) / delta), 0)


def fold_constants(model: ModelProto) -> bool:
    """Replace, in place, operators on constants by their results; whether there were any.

    Args:
        model: With inferred shapes: what is not known to be small is left as it is.
    """
    graph = model.graph
    opset = max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    shapes = shapes_of(graph)
    known = {t.name: t for t in graph.initializer if t.data_type in _TYPES}
    arrays: dict[str, np.ndarray] = {}
    outputs = {value.name for value in graph.output}
    kept: list[NodeProto] = []
    changed = False
    for node in graph.node:
        result = None
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and len(node.attribute) == 1:
            result = _constant_node(node)
        elif node.op_type in ("Shape", "Size") and node.input and node.input[0] in shapes:
            shape = shapes[node.input[0]]
            if node.op_type == "Size":
                result = [np.asarray(math.prod(shape), dtype=np.int64)]
            else:
                start, end = attribute(node, "start", 0), attribute(node, "end", None)
                result = [np.asarray(shape[start:end], dtype=np.int64)]
        elif (
            node.op_type in _FOLDED
            and node.domain in ("", "ai.onnx")
            and (node.input or node.op_type == "Constant")
            and all(not name or name in known or name in arrays for name in node.input)
        ):
            values = []
            for name in (n for n in node.input if n):
                if name not in arrays:
                    arrays[name] = onnx.numpy_helper.to_array(known[name])
                values.append(arrays[name])
            small = all(v.size <= MAX_ELEMENTS for v in values)
            size = max(
                (math.prod(shapes[n]) if n in shapes else MAX_ELEMENTS + 1 for n in node.output if n),
                default=0,
            )
            if node.op_type == "Range" and len(values) == 3:
                size = _range_size(values) or MAX_ELEMENTS + 1
            if small and size <= MAX_ELEMENTS:
                result = _evaluate(node, values, opset)
        if result is None or any(name in outputs for name in node.output):
            kept.append(node)
            continue
        changed = True
        for name, array in zip(node.output, result, strict=False):
            if name:
                arrays[name] = array
                graph.initializer.append(
                    onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
                )
    if changed:
        nodes = list(kept)
        del graph.node[:]
        graph.node.extend(nodes)
    return changed


def _constant_node(node: NodeProto) -> list[np.ndarray] | None:
    item = node.attribute[0]
    value = onnx.helper.get_attribute_value(item)
    if item.name == "value":
        return [onnx.numpy_helper.to_array(value)] if value.data_type in _TYPES else None
    if item.name in ("value_float", "value_floats"):
        return [np.asarray(value, dtype=np.float32)]
    if item.name in ("value_int", "value_ints"):
        return [np.asarray(value, dtype=np.int64)]
    return None
