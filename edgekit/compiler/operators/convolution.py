"""Convolutions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from edgekit.compiler.operators.base import Clamp, Int8Array, Int32Array, Operator, Rounding, Shape, Window

__all__ = ["Conv2D", "DepthwiseConv2D", "GroupedConv2D", "Int8Convolution", "TransposedConv2D"]


@dataclass(frozen=True, slots=True, eq=False)
class Int8Convolution(Operator):
    """What convolutions of int8 activations share: weights of zero point 0, whose shape is the kind's, and
    for each output channel, (O,), a bias in units of the sums, a multiplier and a shift.
    """

    window: Window
    weights: Int8Array
    bias: Int32Array
    input_zero_point: int
    output_zero_point: int
    multipliers: Int32Array
    shifts: Int32Array
    clamp: Clamp
    rounding: Rounding = "double"

    def parameters(self) -> int:
        return self.weights.size + self.bias.size


@dataclass(frozen=True, slots=True, eq=False)
class Conv2D(Int8Convolution):
    """(N, H, W, I) → (N, OH, OW, O). Weights (O, KH, KW, I), zero point 0; multipliers and shifts (O,)."""

    NAME: ClassVar[str] = "conv2d"

    def macs(self, output: Shape) -> int:
        return math.prod((*output, *self.weights.shape[1:]))


@dataclass(frozen=True, slots=True, eq=False)
class DepthwiseConv2D(Int8Convolution):
    """(N, H, W, C) → (N, OH, OW, C·M).

    Output channel c·M + m reads input channel c. Weights (KH, KW, C·M).
    """

    NAME: ClassVar[str] = "depthwise_conv2d"

    def macs(self, output: Shape) -> int:
        return math.prod(output) * self.window.kernel[0] * self.window.kernel[1]


@dataclass(frozen=True, slots=True, eq=False)
class GroupedConv2D(Int8Convolution):
    """(N, H, W, G·I) → (N, OH, OW, G·O'): output channel o reads the I channels of group o // O'.

    Weights (G·O', KH, KW, I), zero point 0; multipliers and shifts (G·O',).
    """

    NAME: ClassVar[str] = "grouped_conv2d"
    groups: int = field(kw_only=True)

    def macs(self, output: Shape) -> int:
        return math.prod((*output, *self.weights.shape[1:]))


@dataclass(frozen=True, slots=True, eq=False)
class TransposedConv2D(Int8Convolution):
    """(N, H, W, G·I) → (N, OH, OW, G·O'): input pixel (y, x) adds to the outputs from (y·stride − top, …) on.

    Weights (G·O', KH, KW, I), zero point 0, dilation spread out in them already; multipliers and shifts
    (G·O',). Of `window.padding` top and left count; OH and OW are the output's own.
    """

    NAME: ClassVar[str] = "transposed_conv2d"
    groups: int = field(kw_only=True)

    def macs(self, output: Shape) -> int:
        rows, columns = self.window.stride
        return math.prod((*output, *self.weights.shape[1:])) // (rows * columns)
