"""Rewrites of a float ONNX model that ONNX Runtime's quantiser needs and does not make."""

from __future__ import annotations

from onnx import ModelProto, helper

from edgekit.frontend.onnx_graph import attribute

__all__ = ["prepare_for_quantization"]

_BIASED = ("Conv", "ConvTranspose", "Gemm")


def prepare_for_quantization(model: ModelProto) -> None:
    """Rewrite the optimised model in place."""
    _split_sums(model)
    _separate_biases(model)


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
