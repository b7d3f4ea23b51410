"""Rewrites of a float ONNX model that ONNX Runtime's quantiser needs and does not make."""

from __future__ import annotations

import math

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from edgekit.frontend.onnx_graph import GraphWriter, attribute, shapes_of
from edgekit.frontend.onnx_infer import infer_shapes
from edgekit.frontend.tflite_operators import same_padding

__all__ = ["prepare_for_quantization"]

_BIASED = ("Conv", "ConvTranspose", "Gemm")


def prepare_for_quantization(model: ModelProto) -> None:
    """Rewrite the optimised model in place."""
    _split_sums(model)
    _separate_biases(model)
    _state_paddings(model)
    _flatten_norms(model)


def _state_paddings(model: ModelProto) -> None:
    """Write out the automatic padding of dilated convolutions, which ONNX Runtime refuses to compute.

    torch's older exporter writes `padding="same"` so.
    """
    dilated = [
        node
        for node in model.graph.node
        if node.op_type == "Conv"
        and bytes(attribute(node, "auto_pad", b"NOTSET")) in (b"SAME_UPPER", b"SAME_LOWER")
        and max(attribute(node, "dilations", []), default=1) > 1
    ]
    shapes = shapes_of(infer_shapes(model).graph) if dilated else {}
    for node in dilated:
        data, kernel = shapes.get(node.input[0]), shapes.get(node.input[1])
        if data is None or kernel is None or len(data) != len(kernel):
            continue
        spatial = len(kernel) - 2
        strides, dilations = (attribute(node, name, [1] * spatial) for name in ("strides", "dilations"))
        upper = bytes(attribute(node, "auto_pad", b"")) == b"SAME_UPPER"
        pads = [
            same_padding(size, (extent - 1) * dilation + 1, stride)[:2][:: 1 if upper else -1]
            for size, extent, dilation, stride in zip(data[2:], kernel[2:], dilations, strides, strict=True)
        ]
        kept = [item for item in node.attribute if item.name not in ("auto_pad", "pads")]
        del node.attribute[:]
        node.attribute.extend(kept)
        stated = [before for before, _ in pads] + [after for _, after in pads]
        node.attribute.append(helper.make_attribute("pads", stated))


def _flatten_norms(model: ModelProto) -> None:
    """A layer normalisation over several axes becomes one over a single axis between two reshapes.

    The quantiser takes factors and offsets for lists.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    wide = {
        node.output[0]
        for node in graph.node
        if node.op_type == "LayerNormalization"
        and sum(map(bool, node.output)) == 1
        and len(getattr(constants.get(node.input[1]), "dims", ())) > 1
        and all(name in constants for name in node.input[1:])
    }
    shapes = shapes_of(infer_shapes(model).graph) if wide else {}
    writer = GraphWriter(graph)
    for node in graph.node:
        shape = shapes.get(node.input[0]) if node.output[0] in wide else None
        if shape is None:
            writer.keep(node)
            continue
        axis = int(attribute(node, "axis", -1)) % len(shape)
        rows = (*shape[:axis], math.prod(shape[axis:]))
        base = node.output[0]
        values = [numpy_helper.to_array(constants[name]) for name in node.input[1:]]
        factors = [
            writer.constant(np.broadcast_to(value, shape[axis:]).ravel(), "f4", base) for value in values
        ]
        flat = writer.node("Reshape", [node.input[0], writer.constant(rows, "i8", base)], base)
        epsilon = float(attribute(node, "epsilon", 1e-5))
        normal = writer.node(node.op_type, [flat, *factors], base, axis=len(rows) - 1, epsilon=epsilon)
        writer.node("Reshape", [normal, writer.constant(shape, "i8", base)], base, output=base)
    if wide:
        writer.finish()


def _split_sums(model: ModelProto) -> None:
    """A Gemm that adds an activation becomes MatMul and Add: the quantiser takes its third input for a bias.

    ONNX Runtime's own fusion makes such a Gemm of every step of a recurrent layer.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        plain = all(
            float(attribute(node, name, wanted)) == wanted
            for name, wanted in (("transA", 0), ("transB", 0), ("alpha", 1), ("beta", 1))
        )
        if node.op_type != "Gemm" or len(node.input) < 3 or node.input[2] in constants or not plain:
            nodes.append(node)
            continue
        product = f"{node.output[0]}/product"
        nodes.append(helper.make_node("MatMul", node.input[:2], [product], name=f"{node.name}/product"))
        nodes.append(helper.make_node("Add", [product, node.input[2]], node.output, name=node.name))
    del graph.node[:]
    graph.node.extend(nodes)


def _separate_biases(model: ModelProto) -> None:
    """Give each operator a bias of its own, as each has a scale of its own for it.

    The quantiser would copy a shared one itself, under a name that a tensor of the graph may have already.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    used: set[str] = set()
    for node in graph.node:
        bias = node.input[2] if node.op_type in _BIASED and len(node.input) > 2 else ""
        if bias in used and bias in constants:
            copied = graph.initializer.add()
            copied.CopyFrom(constants[bias])
            copied.name = node.input[2] = f"{bias}/of/{node.output[0]}"
        used.add(bias)
