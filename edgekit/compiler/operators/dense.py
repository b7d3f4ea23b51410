"""Fully connected layers, and products of two activations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from edgekit.compiler.fixed_point import WideMultipliers
from edgekit.compiler.operators.base import Clamp, Int8Array, Int32Array, Operator, Rescale, Shape

__all__ = ["Dense", "MatMul"]


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
class MatMul(Operator):
    """(…, M, K) × (…, K, N) → (…, M, N) of two activations; the leading axes broadcast.

    Axis i of operand j, as it is stored, is its logical axis `orders[j][i]`: a transposed operand need not be
    copied. `depth` is K.
    """

    NAME: ClassVar[str] = "matmul"
    orders: tuple[tuple[int, ...], tuple[int, ...]]
    depth: int
    zero_points: tuple[int, int]
    output_zero_point: int
    rescale: Rescale
    clamp: Clamp

    def macs(self, output: Shape) -> int:
        return math.prod(output) * self.depth
