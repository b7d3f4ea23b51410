"""Operators on int16 activations with int8 weights (16x8): symmetric, zero points 0, biases of 64 bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.fixed_point import WideMultipliers
from edgekit.compiler.operators.base import Clamp, Int8Array, Int32Array, Operator, Shape, Window

__all__ = ["Conv2D16x8", "Dense16x8"]


@dataclass(frozen=True, slots=True, eq=False)
class Conv2D16x8(Operator):
    """(N, H, W, G·I) → (N, OH, OW, G·O'), int16: output channel o reads the I channels of group o // O'.

    Weights (G·O', KH, KW, I); a depthwise convolution has I = 1. Multipliers of 15 bits and shifts (G·O',).
    """

    NAME: ClassVar[str] = "conv2d_16x8"
    window: Window
    groups: int
    weights: Int8Array
    bias: NDArray[np.int64]
    multipliers: Int32Array
    shifts: Int32Array
    clamp: Clamp

    def macs(self, output: Shape) -> int:
        return math.prod((*output, *self.weights.shape[1:]))

    def parameters(self) -> int:
        return self.weights.size + self.bias.size


@dataclass(frozen=True, slots=True, eq=False)
class Dense16x8(Operator):
    """(…, I) → (…, O), int16. Weights (O, I); multipliers (O,)."""

    NAME: ClassVar[str] = "dense_16x8"
    weights: Int8Array
    bias: NDArray[np.int64]
    multipliers: WideMultipliers
    clamp: Clamp

    def macs(self, output: Shape) -> int:
        return math.prod(output) * int(self.weights.shape[1])

    def parameters(self) -> int:
        return self.weights.size + self.bias.size
