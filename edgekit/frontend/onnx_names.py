"""The names of the ONNX operators that can be imported, and by which way.

Apart from the converters themselves, as these need TVM, which takes seconds to import: a file with an
operator that is in none of the lists is refused before.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import onnx
from onnx import NodeProto

__all__ = ["CONVERTED", "FOLDED_ONLY", "MICROSOFT", "REWRITTEN", "has_function_body", "importable"]

CONVERTED: frozenset[str] = frozenset({
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh",
    "AveragePool", "BatchNormalization", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor",
    "Cast", "CastLike", "Ceil", "Celu", "Clip", "Compress", "Concat", "ConstantOfShape", "Conv",
    "ConvInteger", "ConvTranspose", "Cos", "Cosh", "CumProd", "CumSum", "DepthToSpace", "DequantizeLinear",
    "Div", "Dropout", "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten", "Floor",
    "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalLpPool",
    "GlobalMaxPool", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Hardmax", "Identity",
    "InstanceNormalization", "IsInf", "IsNaN", "LRN", "LayerNormalization", "LeakyRelu", "Less",
    "LessOrEqual", "Log", "LogSoftmax", "LpNormalization", "LpPool", "MatMul", "MatMulInteger", "Max",
    "MaxPool", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "OneHot", "Or", "PRelu", "Pad", "Pow",
    "QuantizeLinear", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize",
    "ReverseSequence", "Round", "Scatter", "ScatterElements", "ScatterND", "Selu", "Shrink", "Sigmoid",
    "Sign", "Sin", "Sinh", "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt",
    "Squeeze", "Sub", "Sum", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Tile", "TopK", "Transpose",
    "Trilu", "Unsqueeze", "Where", "Xor",
})  # fmt: skip
"""With a converter in `onnx_operators`; whether a target has an integer form is the compiler's to say."""

FOLDED_ONLY: frozenset[str] = frozenset({"Constant", "Range", "Shape", "Size"})
"""Worked out while importing, where what they read is constant."""

REWRITTEN: frozenset[str] = frozenset(
    {"GRU", "If", "LSTM", "Loop", "QLinearConv", "QLinearMatMul", "RNN", "Scan"}
)
"""Written out in other operators before the conversion."""

MICROSOFT: frozenset[str] = frozenset({
    "DequantizeLinear", "QGemm", "QLinearAdd", "QLinearAveragePool", "QLinearConcat", "QLinearConv",
    "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMatMul", "QLinearMul", "QLinearSigmoid",
    "QLinearSoftmax", "QuantizeLinear",
})  # fmt: skip
"""Of ONNX Runtime's own domain, com.microsoft: what its quantiser writes."""

# Their bodies draw random numbers, loop over sequences, or are only the training's.
_NOT_EXPANDED = frozenset({"Bernoulli", "SequenceMap"})


def _has_body(schema: Any) -> bool:
    # Left out of onnx's own type stubs.
    return bool(schema.has_function or schema.has_context_dependent_function)


@cache
def _functions() -> Mapping[str, int]:
    return {
        schema.name: schema.since_version
        for schema in onnx.defs.get_all_schemas()
        if schema.domain == "" and _has_body(schema) and schema.name not in _NOT_EXPANDED
    }


def has_function_body(name: str) -> bool:
    """Whether ONNX itself defines an operator by others."""
    return name in _functions()


def importable(node: NodeProto) -> bool:
    """Whether there is a way for a node; its form may still be refused."""
    if node.domain == "com.microsoft":
        return node.op_type in MICROSOFT
    if node.domain not in ("", "ai.onnx"):
        return False
    name = node.op_type
    return name in CONVERTED or name in FOLDED_ONLY or name in REWRITTEN or has_function_body(name)
