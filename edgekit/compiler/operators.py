"""The integer operators: what each one computes, as data.

One frozen dataclass an operator. It holds everything that decides the answer (weights, zero points,
multipliers, clamps, geometry) and nothing about how a target computes it. Activations are int8 in NHWC unless
a field says otherwise; accumulators are int32. `definitions` states the arithmetic of each as TIR;
`schedules` make it fast.

Adding an operator: a dataclass here, a rule in `lowering/rules`, a definition in `definitions.DEFINITIONS`,
a test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.fixed_point import WideMultipliers

__all__ = [
    "Add",
    "AveragePool",
    "Clamp",
    "Concat",
    "Conv2D",
    "Dense",
    "DepthwiseConv2D",
    "Dequantize",
    "FullRange",
    "MaxPool",
    "Mean",
    "Operator",
    "Pad",
    "Quantize",
    "Requantize",
    "Rescale",
    "Softmax",
    "Transpose",
    "Window",
]

Shape = tuple[int, ...]
Int8Array = NDArray[np.int8]
Int32Array = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Clamp:
    """Inclusive bounds of the stored output, e.g. ReLU is [zero_point, 127]."""

    low: int = -128
    high: int = 127

    def intersect(self, low: int, high: int) -> Clamp:
        return Clamp(max(self.low, low), min(self.high, high))


FullRange = Clamp()


@dataclass(frozen=True, slots=True)
class Window:
    """Geometry of a sliding window over (H, W). `padding` is top, left, bottom, right."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Number of window positions that fit in (height, width) with the padding."""
        top, left, bottom, right = self.padding
        span_h = (self.kernel[0] - 1) * self.dilation[0] + 1
        span_w = (self.kernel[1] - 1) * self.dilation[1] + 1
        return (
            (height + top + bottom - span_h) // self.stride[0] + 1,
            (width + left + right - span_w) // self.stride[1] + 1,
        )


@dataclass(frozen=True, slots=True)
class Rescale:
    """A positive real factor as fixed point: multiplier / 2^31 · 2^shift (see `fixed_point`)."""

    multiplier: int
    shift: int


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """Base of all integer operators."""

    NAME: ClassVar[str] = "operator"
    IN_PLACE: ClassVar[bool] = False
    """Each output element depends on the element at the same place in input 0 and nothing else of it.

    So the output may take the storage of an input of the same size.
    """

    def macs(self, output: Shape) -> int:
        """Multiply-accumulates to compute an output of that shape; 0 for operators that have none."""
        return 0

    def parameters(self) -> int:
        """Trained values that the operator holds (weights and biases)."""
        return 0


@dataclass(frozen=True, slots=True, eq=False)
class Conv2D(Operator):
    """(N, H, W, I) → (N, OH, OW, O). Weights (O, KH, KW, I), zero point 0; multipliers and shifts (O,)."""

    NAME: ClassVar[str] = "conv2d"
    window: Window
    weights: Int8Array
    bias: Int32Array
    input_zero_point: int
    output_zero_point: int
    multipliers: Int32Array
    shifts: Int32Array
    clamp: Clamp

    def macs(self, output: Shape) -> int:
        return math.prod((*output, *self.weights.shape[1:]))

    def parameters(self) -> int:
        return self.weights.size + self.bias.size


@dataclass(frozen=True, slots=True, eq=False)
class DepthwiseConv2D(Operator):
    """(N, H, W, C) → (N, OH, OW, C·M).

    Output channel c·M + m reads input channel c. Weights (KH, KW, C·M).
    """

    NAME: ClassVar[str] = "depthwise_conv2d"
    window: Window
    weights: Int8Array
    bias: Int32Array
    input_zero_point: int
    output_zero_point: int
    multipliers: Int32Array
    shifts: Int32Array
    clamp: Clamp

    def macs(self, output: Shape) -> int:
        return math.prod(output) * self.window.kernel[0] * self.window.kernel[1]

    def parameters(self) -> int:
        return self.weights.size + self.bias.size


@dataclass(frozen=True, slots=True, eq=False)
class Dense(Operator):
    """(…, I) → (…, O). Weights (O, I), zero point 0; multipliers (O,)."""

    NAME: ClassVar[str] = "dense"
    weights: Int8Array
    bias: Int32Array
    input_zero_point: int
    output_zero_point: int
    multipliers: WideMultipliers
    clamp: Clamp

    def macs(self, output: Shape) -> int:
        return math.prod(output) * int(self.weights.shape[1])

    def parameters(self) -> int:
        return self.weights.size + self.bias.size


@dataclass(frozen=True, slots=True, eq=False)
class Add(Operator):
    """Sum of two tensors with numpy broadcasting; each has its own scale."""

    NAME: ClassVar[str] = "add"
    IN_PLACE: ClassVar[bool] = True
    zero_points: tuple[int, int]
    rescales: tuple[Rescale, Rescale]
    output_zero_point: int
    output_rescale: Rescale
    clamp: Clamp


@dataclass(frozen=True, slots=True, eq=False)
class AveragePool(Operator):
    """Mean of the window's values that lie inside the input; input and output have the same quantisation.

    With `count_padding` the padded positions count too, as real zeros (the zero point).
    """

    NAME: ClassVar[str] = "average_pool2d"
    window: Window
    zero_point: int
    count_padding: bool
    clamp: Clamp


@dataclass(frozen=True, slots=True, eq=False)
class MaxPool(Operator):
    """Largest of the window's values that lie inside the input; quantisation unchanged."""

    NAME: ClassVar[str] = "max_pool2d"
    window: Window
    clamp: Clamp


@dataclass(frozen=True, slots=True, eq=False)
class Mean(Operator):
    """Mean over `axes`, requantised: Σ(x − zero_point) · rescale + output_zero_point.

    `rescale` already holds the division by the number of elements.
    """

    NAME: ClassVar[str] = "mean"
    axes: tuple[int, ...]
    input_zero_point: int
    output_zero_point: int
    rescale: Rescale
    clamp: Clamp


@dataclass(frozen=True, slots=True, eq=False)
class Pad(Operator):
    """Constant padding. `before` and `after` have an entry a dimension; `value` is a stored value."""

    NAME: ClassVar[str] = "pad"
    before: tuple[int, ...]
    after: tuple[int, ...]
    value: int


@dataclass(frozen=True, slots=True, eq=False)
class Concat(Operator):
    """Inputs joined along `axis`; an input whose quantisation differs from the output's is requantised."""

    NAME: ClassVar[str] = "concat"
    axis: int
    zero_points: tuple[int, ...]
    rescales: tuple[Rescale | None, ...]
    output_zero_point: int
    clamp: Clamp


@dataclass(frozen=True, slots=True, eq=False)
class Requantize(Operator):
    """(x − input_zero_point) · rescale + output_zero_point, clamped; without `rescale` the scale stays.

    A change of scale, ReLU, ReLU6, uint8 ↔ int8.
    """

    NAME: ClassVar[str] = "requantize"
    IN_PLACE: ClassVar[bool] = True
    input_zero_point: int
    output_zero_point: int
    rescale: Rescale | None
    clamp: Clamp


@dataclass(frozen=True, slots=True, eq=False)
class Quantize(Operator):
    """float32 → int8: round(x / scale), ties away from zero, plus zero_point, saturated; NaN gives −128."""

    NAME: ClassVar[str] = "quantize"
    scale: float
    zero_point: int
    clamp: Clamp


@dataclass(frozen=True, slots=True, eq=False)
class Dequantize(Operator):
    """int8 → float32: (x − zero_point) · scale."""

    NAME: ClassVar[str] = "dequantize"
    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True, eq=False)
class Softmax(Operator):
    """Softmax over the last axis; the output [0, 1) is stored with scale 1/256 and zero point −128.

    `table[d]` is exp(−d · scale) for d = max − x in 0…255, in Q0.31 (see `softmax.exponential_table`).
    """

    NAME: ClassVar[str] = "softmax"
    table: Int32Array


@dataclass(frozen=True, slots=True, eq=False)
class Transpose(Operator):
    """Output axis i is input axis `axes[i]`."""

    NAME: ClassVar[str] = "transpose"
    axes: tuple[int, ...]
