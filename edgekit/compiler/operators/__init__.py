"""The integer operators: what each one computes, as data.

One frozen dataclass an operator. It holds everything that decides the answer (weights, zero points,
multipliers, clamps, geometry) and nothing about how a target computes it. Activations are int8 in NHWC unless
a field says otherwise; accumulators are int32. `definitions` states the arithmetic of each as TIR;
`schedules` make it fast.

Adding an operator: a dataclass in the module of its family, a rule in `lowering/rules`, a definition in
`definitions`, a test.
"""

from edgekit.compiler.operators.base import Clamp, FullRange, Operator, Rescale, Rounding, Window
from edgekit.compiler.operators.convolution import (
    Conv2D,
    DepthwiseConv2D,
    GroupedConv2D,
    Int8Convolution,
    TransposedConv2D,
)
from edgekit.compiler.operators.dense import Dense, MatMul
from edgekit.compiler.operators.elementwise import (
    Add,
    Dequantize,
    Lookup,
    Maximum,
    Minimum,
    Multiply,
    PRelu,
    Quantize,
    Requantize,
    SquaredDifference,
    Subtract,
)
from edgekit.compiler.operators.floating import FloatFunction
from edgekit.compiler.operators.movement import Cast, Concat, Copy, Gather, Pad, Slice, Tile, Transpose
from edgekit.compiler.operators.normalization import LayerNorm
from edgekit.compiler.operators.pooling import ArgExtreme, AveragePool, Extreme, MaxPool, Mean
from edgekit.compiler.operators.resize import Blend, ResizeBilinear
from edgekit.compiler.operators.sixteen import Conv2D16x8, Dense16x8
from edgekit.compiler.operators.softmax import Softmax

__all__ = [
    "Add",
    "ArgExtreme",
    "AveragePool",
    "Blend",
    "Cast",
    "Clamp",
    "Concat",
    "Conv2D",
    "Conv2D16x8",
    "Copy",
    "Dense",
    "Dense16x8",
    "DepthwiseConv2D",
    "Dequantize",
    "Extreme",
    "FloatFunction",
    "FullRange",
    "Gather",
    "GroupedConv2D",
    "Int8Convolution",
    "LayerNorm",
    "Lookup",
    "MatMul",
    "MaxPool",
    "Maximum",
    "Mean",
    "Minimum",
    "Multiply",
    "Operator",
    "PRelu",
    "Pad",
    "Quantize",
    "Requantize",
    "Rescale",
    "ResizeBilinear",
    "Rounding",
    "Slice",
    "Softmax",
    "SquaredDifference",
    "Subtract",
    "Tile",
    "Transpose",
    "TransposedConv2D",
    "Window",
]
