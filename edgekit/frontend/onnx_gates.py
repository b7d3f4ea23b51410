"""Gates of a quantised ONNX model: x · f(x) with nothing quantised between the function and the product."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from onnx import ModelProto, NodeProto

__all__ = ["join_gates"]

FUNCTIONS = frozenset({"Elu", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Softplus", "Tanh"})
"""Of one tensor, element by element."""

_LONGEST = 4
"""Functions in a row; Mish has two."""


def join_gates(model: ModelProto) -> None:
    """Take the QuantizeLinear and DequantizeLinear out of each x · f(x), in place.

    ONNX Runtime writes HardSwish and Mish out as such products, and exporters SiLU. Its quantiser then rounds
    f(x) by itself; without that the whole is one function of one tensor, which the compiler has as a table.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type != "Mul" or node.input[0] == node.input[1]:
            continue
        for position in (0, 1):
            _join(node, position, makers)
    _drop_unread(model)


def _join(product: NodeProto, position: int, makers: Mapping[str, NodeProto]) -> None:
    """Make the operand at `position` real all the way, where it is a function of the other operand."""
    stored = _dequantized(product.input[1 - position], makers)
    reader, operand, joined = product, position, list[tuple[NodeProto, int, str]]()
    for _ in range(_LONGEST):
        real = _unrounded(reader.input[operand], makers)
        function = makers.get(real)
        if stored is None or function is None or function.op_type not in FUNCTIONS:
            return
        joined.append((reader, operand, real))
        if _dequantized(function.input[0], makers) == stored:
            for node, place, name in joined:
                node.input[place] = name
            return
        reader, operand = function, 0


def _dequantized(name: str, makers: Mapping[str, NodeProto]) -> tuple[str, ...] | None:
    """The stored tensor, scale and zero point that a tensor is dequantised from."""
    node = makers.get(name)
    return tuple(node.input) if node is not None and node.op_type == "DequantizeLinear" else None


def _unrounded(name: str, makers: Mapping[str, NodeProto]) -> str:
    """The tensor that was quantised and dequantised to give this one; itself where that was not done."""
    back = makers.get(name)
    forth = makers.get(back.input[0]) if back is not None and back.op_type == "DequantizeLinear" else None
    return forth.input[0] if forth is not None and forth.op_type == "QuantizeLinear" else name


def _drop_unread(model: ModelProto) -> None:
    """Take out the nodes for quantisation whose result nothing reads any longer."""
    graph = model.graph
    outputs = {value.name for value in graph.output}
    reads = Counter(name for node in graph.node for name in node.input)
    kept = []
    for node in reversed(graph.node):
        quantizes = node.op_type in ("QuantizeLinear", "DequantizeLinear")
        if quantizes and not any(reads[name] or name in outputs for name in node.output):
            reads.subtract(node.input)
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
