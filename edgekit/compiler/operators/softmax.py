"""Softmax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgekit.compiler.operators.base import Int32Array, Operator

__all__ = ["Softmax"]


@dataclass(frozen=True, slots=True, eq=False)
class Softmax(Operator):
    """Softmax over the last axis; the output [0, 1) is stored with scale 1/256 and zero point −128.

    `table[d]` is exp(−d · scale) for d = max − x in 0…255, in Q0.31 (see `softmax.exponential_table`).
    """

    NAME: ClassVar[str] = "softmax"
    table: Int32Array
