"""Fully connected layers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from edgekit.compiler.fixed_point import WideMultipliers
from edgekit.compiler.operators.base import Clamp, Int8Array, Int32Array, Operator, Shape

__all__ = ["Dense"]


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
