"""Batch normalisations taken into the weights before them.

What a batch normalisation does after training is one factor and one addend a channel, which a convolution or
a matrix product with constant weights can do itself: w' = w·s and b' = (b − mean)·s + beta, with
s = gamma / sqrt(variance + epsilon) (Jacob et al., 2018, section 3.2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto

from edgekit.frontend.onnx_graph import GraphWriter, attribute, nested_graphs, rename

__all__ = ["fold_batch_normalizations"]

Array = npt.NDArray[np.float64]

_BIAS = 2
"""Its position among the operands of all three operators."""


def fold_batch_normalizations(model: ModelProto) -> bool:
    """Fold, in place, those whose input nothing else reads; whether there were any."""
    graph = model.graph
    if not any(node.op_type == "BatchNormalization" for node in graph.node):
        return False
    constants = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT}
    outputs = {value.name for value in graph.output}
    readers = Counter(name for inner in nested_graphs(graph) for node in inner.node for name in node.input)
    writer = GraphWriter(graph)
    makers: dict[str, NodeProto] = {}
    renamed: dict[str, str] = {}
    for original in graph.node:
        node = rename(original, lambda name: renamed.get(name, name)) if renamed else original
        maker = makers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        alone = maker is not None and readers[maker.output[0]] == 1 and maker.output[0] not in outputs
        if maker is not None and alone and _fold(writer, maker, node, constants):
            constants |= {tensor.name: tensor for tensor in graph.initializer[-2:]}
            if node.output[0] in outputs:
                maker.output[0] = node.output[0]
            else:
                renamed[node.output[0]] = maker.output[0]
                readers[maker.output[0]] = readers[original.output[0]]
            continue
        copy = NodeProto()
        copy.CopyFrom(node)
        writer.keep(copy)
        if copy.op_type in ("Conv", "ConvTranspose", "Gemm") and copy.domain in ("", "ai.onnx"):
            makers[copy.output[0]] = copy
    folded = len(writer.nodes) < len(graph.node)
    if folded:
        writer.finish()
    return folded


def _fold(
    writer: GraphWriter, maker: NodeProto, norm: NodeProto, constants: Mapping[str, TensorProto]
) -> bool:
    """Give `maker` weights and a bias that do the work of `norm`; False where they cannot."""
    names = [maker.input[1], *norm.input[1:5]]
    bias_name = maker.input[_BIAS] if len(maker.input) > _BIAS else ""
    if any(name not in constants for name in (*names, *filter(None, [bias_name]))):
        return False
    if int(attribute(norm, "training_mode", 0)) or any(norm.output[1:]):
        return False
    weights, gamma, beta, mean, variance = (_values(constants[name]) for name in names)
    if len({gamma.shape, beta.shape, mean.shape, variance.shape}) > 1 or weights.ndim < 2:
        return False
    with np.errstate(all="ignore"):
        factor = gamma / np.sqrt(variance + float(attribute(norm, "epsilon", 1e-5)))
    scaled = _scaled(maker, weights, factor)
    bias = _values(constants[bias_name]).reshape(-1) if bias_name else np.zeros(1)
    if maker.op_type == "Gemm":
        bias = bias * float(attribute(maker, "beta", 1.0))
    if scaled is None or bias.size not in (1, factor.size) or not np.isfinite(factor).all():
        return False
    moved = (bias - mean) * factor + beta
    maker.input[1] = writer.constant(scaled, np.float32, names[0])
    del maker.input[_BIAS:]
    maker.input.append(writer.constant(moved, np.float32, bias_name or f"{names[0]}/bias"))
    for item in list(maker.attribute):
        if item.name == "beta":
            maker.attribute.remove(item)
    return True


def _scaled(maker: NodeProto, weights: Array, factor: Array) -> Array | None:
    """The weights with each output channel times its factor; None where the channels do not fit."""
    if maker.op_type == "Gemm":
        transposed = int(attribute(maker, "transB", 0))
        if weights.ndim != 2 or weights.shape[0 if transposed else 1] != factor.size:
            return None
        return weights * (factor[:, None] if transposed else factor)
    tail = (1,) * (weights.ndim - 2)
    if maker.op_type == "Conv":
        return weights * factor.reshape(-1, 1, *tail) if weights.shape[0] == factor.size else None
    groups = int(attribute(maker, "group", 1))
    if weights.shape[1] * groups != factor.size or weights.shape[0] % groups:
        return None
    # (C, M / groups, …): the channels of each group of inputs lie along the second axis.
    grouped = weights.reshape(groups, -1, *weights.shape[1:]) * factor.reshape(groups, 1, -1, *tail)
    return grouped.reshape(weights.shape)


def _values(tensor: TensorProto) -> Array:
    return np.asarray(onnx.numpy_helper.to_array(tensor), dtype=np.float64)
