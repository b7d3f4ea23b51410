"""Convolutions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from edgekit.compiler.operators.base import Clamp, Int8Array, Int32Array, Operator, Shape, Window

__all__ = ["Conv2D", "DepthwiseConv2D"]


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
