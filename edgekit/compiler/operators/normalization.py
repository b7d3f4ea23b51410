"""Normalisation of rows by their own mean and variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgekit.compiler.operators.base import Clamp, Int32Array, Operator

__all__ = ["LayerNorm"]


@dataclass(frozen=True, slots=True, eq=False)
class LayerNorm(Operator):
    """(x − mean) / sqrt(variance + epsilon) over the last axis, times a factor and plus an offset an element.

    Input and output (rows, n). With D = n·x − Σx and W = n·Σx² − (Σx)² + `epsilon`, D / sqrt(W) is the
    normalised value whatever the input's scale and zero point are.
    """

    NAME: ClassVar[str] = "layer_norm"
    epsilon: int
    """epsilon · n² / scale², 16 bits of fraction; in the units of W."""
    multipliers: Int32Array
    """(n,), factor / output scale · 2^(shift − 4): 20 bits of fraction in, 16 bits out."""
    shift: int
    offsets: Int32Array
    """(n,), offset / output scale, 16 bits of fraction."""
    output_zero_point: int
    clamp: Clamp

    def parameters(self) -> int:
        return self.multipliers.size + self.offsets.size
