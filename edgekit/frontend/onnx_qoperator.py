"""Rewrite ONNX's integer operators (QLinearConv, QGemm, …) to dequantize → float operator → quantize.

That is the form in which all quantised models reach the compiler. What an integer operator computes is
defined by the same formula: real = scale · (stored − zero point) of each operand, the operator in reals, the
result quantised (onnx/defs/quantization; ONNX Runtime's ContribOperators.md for com.microsoft).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from edgekit.errors import ModelError, UnsupportedError
from edgekit.frontend.onnx_graph import GraphWriter, attribute, constants_of, nested_graphs
from edgekit.frontend.shapes import show_name

__all__ = ["INT16_OPSET", "PER_CHANNEL_OPSET", "raised", "rewrite_integer_operators"]


PER_CHANNEL_OPSET = 13
"""The first whose DequantizeLinear has an axis."""
INT16_OPSET = 21
"""The first whose QuantizeLinear writes 16-bit integers."""


def rewrite_integer_operators(model: ModelProto) -> tuple[ModelProto, dict[str, str]]:
    """The model in standard operators.

    Returns:
        The model, and for each tensor that the rewrite added the tensor of the file that it stands for.

    Raises:
        ModelError: an integer operator that lacks operands.
        UnsupportedError: a form that has no counterpart in the standard operators.
    """
    origins: dict[str, str] = {}
    needed = 0
    for graph in nested_graphs(model.graph):
        constants = constants_of(graph)
        for node in graph.node:
            if node.domain == "com.microsoft" and node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                node.domain = ""
                zero = constants.get(node.input[2]) if len(node.input) > 2 else None
                if zero is not None and zero.data_type in (TensorProto.INT16, TensorProto.UINT16):
                    needed = INT16_OPSET
                scales = constants.get(node.input[1]) if len(node.input) > 1 else None
                if scales is not None and int(np.prod(scales.dims, dtype=np.int64)) > 1:
                    needed = max(needed, PER_CHANNEL_OPSET)
    model = raised(model, needed)
    if any(node.op_type in _RULES for node in model.graph.node):
        rewriter = _Rewriter(model.graph)
        rewriter.run()
        origins = rewriter.writer.origins
        if any(n.op_type == "DequantizeLinear" and n.attribute for n in model.graph.node):
            model = raised(model, PER_CHANNEL_OPSET)
    return model, origins


def raised(model: ModelProto, opset: int) -> ModelProto:
    """The model in a later operator set, by ONNX's own converter; as it is where its own is late enough.

    Raises:
        UnsupportedError: the converter has no rule for one of its operators.
    """
    versions = [o for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if max(o.version for o in versions) >= opset:
        return model
    try:
        converted: ModelProto = onnx.version_converter.convert_version(model, opset)
    except Exception:  # The C++ converter raises bare exceptions for every operator it has no rule for.
        raise UnsupportedError(
            f"The ONNX file uses operator set {max(o.version for o in versions)} and cannot be converted to "
            f"{opset}.",
            hint=f"Export it again, e.g. torch.onnx.export(..., opset_version={max(opset, 17)}).",
        ) from None
    return converted


class _Rewriter:
    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
        self.writer = GraphWriter(graph)
        self.constants = constants_of(graph)

    def run(self) -> None:
        for node in self.graph.node:
            rule = _RULES.get(node.op_type)
            if rule is None:
                self.writer.keep(node)
                continue
            copy = NodeProto()
            copy.CopyFrom(node)
            self.writer.origin = next(iter(copy.output), "")
            try:
                rule(self, copy)
            except IndexError:
                name = show_name(next(iter(node.output), ""))
                raise ModelError(f"{node.op_type} {name} of the ONNX file lacks operands.") from None
        self.writer.finish()

    def real(self, node: NodeProto, first: int, axis: int | None = None) -> str:
        """The operand at `first`, whose scale and zero point follow it, in reals."""
        stored, scale, zero = node.input[first], node.input[first + 1], node.input[first + 2]
        scales = self.constants.get(scale)
        attributes = {}
        if scales is not None and int(np.prod(scales.dims, dtype=np.int64)) > 1 and axis is not None:
            attributes["axis"] = axis
            scale, zero = self.flat(scale), self.flat(zero)
        return self.writer.node(
            "DequantizeLinear", [stored, scale, *([zero] if zero else [])], f"{stored}/real", **attributes
        )

    def flat(self, name: str) -> str:
        """Scales or zero points in one dimension: QLinearMatMul has them as a row or a column."""
        tensor = self.constants.get(name)
        if tensor is None or len(tensor.dims) == 1:
            return name
        return self.writer.constant(onnx.numpy_helper.to_array(tensor).reshape(-1), None, name)

    def bias(self, node: NodeProto, position: int, x: int, w: int, scale: float = 1.0) -> list[str]:
        """The int32 bias, which counts in steps of input scale times weight scale."""
        if len(node.input) <= position or not node.input[position]:
            return []
        name = node.input[position]
        scales = [self.constants.get(node.input[i]) for i in (x, w)]
        bias = self.constants.get(name)
        if bias is None or any(s is None for s in scales):
            raise ModelError(
                f"{node.op_type} {show_name(node.output[0])} of the ONNX file has a computed bias or scale."
            )
        left, right = (onnx.numpy_helper.to_array(s).reshape(-1) for s in scales if s is not None)
        steps = (np.float32(scale) * left * right).astype(np.float32)
        shape = tuple(bias.dims)
        axis = len(shape) - 1
        if steps.size == 1:
            steps = steps.reshape(())
        step = self.writer.constant(steps, np.float32, f"{name}/scale")
        zero = self.writer.constant(np.zeros_like(steps), np.int32, f"{name}/zero_point")
        extra = {"axis": axis} if steps.ndim else {}
        return [self.writer.node("DequantizeLinear", [name, step, zero], f"{name}/real", **extra)]

    def stored(self, node: NodeProto, kind: str, reals: list[str], scale: int, **attributes: object) -> None:
        """The float operator and the quantize behind it, whose result has the name of the integer one's."""
        zero = node.input[scale + 1] if len(node.input) > scale + 1 else ""
        value = self.writer.node(kind, reals, f"{node.output[0]}/real", **attributes)
        self.writer.node(
            "QuantizeLinear", [value, node.input[scale], *([zero] if zero else [])], "", output=node.output[0]
        )


Rule = Callable[[_Rewriter, NodeProto], None]


def _kept(node: NodeProto, *names: str) -> dict[str, object]:
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute if item.name in names}


_WINDOW = (
    "auto_pad",
    "ceil_mode",
    "count_include_pad",
    "dilations",
    "group",
    "kernel_shape",
    "pads",
    "strides",
)


def _conv(rewriter: _Rewriter, node: NodeProto) -> None:
    # x, its scale and zero point, w, …, y's scale and zero point, bias
    reals = [rewriter.real(node, 0), rewriter.real(node, 3, axis=0)]
    reals += rewriter.bias(node, 8, 1, 4)
    rewriter.stored(node, "Conv", reals, 6, **_kept(node, *_WINDOW))


def _matmul(rewriter: _Rewriter, node: NodeProto) -> None:
    # Scales of b, one a column: along its last axis.
    b = rewriter.constants.get(node.input[3])
    rank = len(b.dims) if b is not None else 2
    reals = [rewriter.real(node, 0), rewriter.real(node, 3, axis=rank - 1)]
    rewriter.stored(node, "MatMul", reals, 6)


def _gemm(rewriter: _Rewriter, node: NodeProto) -> None:
    # a, …, b, …, bias, y's scale and zero point; without these the result is float32
    transposed = int(attribute(node, "transB", 0))
    alpha = float(attribute(node, "alpha", 1.0))
    reals = [rewriter.real(node, 0), rewriter.real(node, 3, axis=0 if transposed else 1)]
    reals += rewriter.bias(node, 6, 1, 4, alpha)
    attributes = _kept(node, "alpha", "transA", "transB")
    if len(node.input) > 7 and node.input[7]:
        rewriter.stored(node, "Gemm", reals, 7, **attributes)
    else:
        rewriter.writer.node("Gemm", reals, "", output=node.output[0], **attributes)


def _two(kind: str) -> Rule:
    def rule(rewriter: _Rewriter, node: NodeProto) -> None:
        rewriter.stored(node, kind, [rewriter.real(node, 0), rewriter.real(node, 3)], 6)

    return rule


def _one(kind: str, *names: str) -> Rule:
    def rule(rewriter: _Rewriter, node: NodeProto) -> None:
        rewriter.stored(node, kind, [rewriter.real(node, 0)], 3, **_kept(node, *names))

    return rule


def _pool(kind: str, *names: str) -> Rule:
    def rule(rewriter: _Rewriter, node: NodeProto) -> None:
        _channels_first(rewriter, node)
        rewriter.stored(node, kind, [rewriter.real(node, 0)], 3, **_kept(node, *names))

    return rule


def _channels_first(rewriter: _Rewriter, node: NodeProto) -> None:
    if int(attribute(node, "channels_last", 0)):
        raise ModelError(
            f"{node.op_type} {show_name(node.output[0])} of the ONNX file has its channels last; "
            "export it with channels first."
        )


def _softmax(rewriter: _Rewriter, node: NodeProto) -> None:
    # Its `opset` says by which version's rules it counts axes; from 13 on an axis is one axis.
    axis = int(attribute(node, "axis", -1 if int(attribute(node, "opset", 13)) >= 13 else 1))
    if int(attribute(node, "opset", 13)) < 13 and axis != -1:
        raise ModelError(
            f"{node.op_type} {show_name(node.output[0])} of the ONNX file flattens its input, as operator "
            "sets below 13 do; export it with 13 or above."
        )
    rewriter.stored(node, "Softmax", [rewriter.real(node, 0)], 3, axis=axis)


def _concat(rewriter: _Rewriter, node: NodeProto) -> None:
    # y's scale and zero point, then each input with its own
    reals = [rewriter.real(node, first) for first in range(2, len(node.input), 3)]
    rewriter.stored(node, "Concat", reals, 0, axis=int(attribute(node, "axis", 0)))


_RULES: Mapping[str, Rule] = {
    "QGemm": _gemm,
    "QLinearAdd": _two("Add"),
    "QLinearAveragePool": _pool("AveragePool", *_WINDOW),
    "QLinearConcat": _concat,
    "QLinearConv": _conv,
    "QLinearGlobalAveragePool": _pool("GlobalAveragePool"),
    "QLinearLeakyRelu": _one("LeakyRelu", "alpha"),
    "QLinearMatMul": _matmul,
    "QLinearMul": _two("Mul"),
    "QLinearSigmoid": _one("Sigmoid"),
    "QLinearSoftmax": _softmax,
}
